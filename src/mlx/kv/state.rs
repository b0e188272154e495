//! What recurrent layers keep of a row: one state a layer, whole, after all of the row's tokens.
//!
//! 1. A state is never changed: a step makes new ones beside those of before, and they count when the step is whole. So a
//!    step that fails leaves the row as it was, and copies of a row and snapshots share states.
//! 2. A row that took its tokens from blocks has none until it is given a snapshot, and takes no step before that.
//! 3. A snapshot's tensor is named `layer.name`, `002.delta` say.

use std::rc::Rc;

use mlx_rs::{Array, Dtype};
use prefixd_cache::{Bytes, Counted, Dtype as BlockDtype, Part, Payload, TensorBytes};

use super::batch::{BatchKv, RowKv};
use super::device::DeviceRow;
use super::paged::{DevicePool, PageMemory};
use super::spec::KvSpec;
use crate::mlx::array::{Result, bytes, dims, from_bytes, host_contiguous, item_bytes, zeros_of};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;

/// The states of a model's recurrent layers, which are all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatesSpec {
    /// Numbers of the layers.
    pub layers: Vec<usize>,
    /// What each keeps, one behind the other.
    pub tensors: Vec<StateTensor>,
}

/// One tensor of a layer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTensor {
    /// Its name within the layer.
    pub name: &'static str,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Type in memory and in snapshots: f32, or bf16 on a device.
    pub dtype: Dtype,
}

impl StateTensor {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * item_bytes(self.dtype)
    }

    fn block_dtype(&self) -> BlockDtype {
        if self.dtype == Dtype::Float32 { BlockDtype::F32 } else { BlockDtype::BF16 }
    }

    fn dims(&self) -> Vec<i32> {
        self.shape.iter().flat_map(|dim| dims([*dim])).collect()
    }
}

impl StatesSpec {
    /// Bytes of a layer's state.
    pub fn layer_bytes(&self) -> usize {
        self.tensors.iter().map(StateTensor::bytes).sum()
    }
}

/// A row's states, in the order of its recurrent layers. `S` is what one lies in.
#[derive(Clone, Debug)]
pub struct RowStates<S> {
    now: Now<S>,
    next: Vec<Option<S>>,
}

#[derive(Clone, Debug)]
enum Now<S> {
    /// No tokens yet.
    Fresh,
    /// After the row's tokens.
    There(Vec<S>),
    /// Its tokens came from blocks.
    Missing,
}

/// A layer's state on a device, tensor by tensor.
#[derive(Clone, Debug)]
pub struct DeviceState {
    /// As the specification lists them.
    pub tensors: Vec<Array>,
    /// Their memory.
    _counted: Rc<Counted>,
}

impl DeviceState {
    /// Of tensors.
    pub fn new(spec: &KvSpec, tensors: Vec<Array>) -> Self {
        let counted = spec.memory.count(tensors.iter().map(Array::nbytes).sum());
        Self { tensors, _counted: Rc::new(counted) }
    }
}

impl<S> Default for RowStates<S> {
    fn default() -> Self {
        Self { now: Now::Fresh, next: Vec::new() }
    }
}

impl<S: Clone> RowStates<S> {
    /// Before a step: a row without tokens gets `zero` in every layer, and what a failed step left is dropped.
    pub fn begin(&mut self, layers: usize, zero: impl FnOnce() -> Result<S>) -> Result<()> {
        if matches!(self.now, Now::Fresh) {
            self.now = Now::There(vec![zero()?; layers]);
        }
        self.next = vec![None; layers];
        self.held().map(|_| ())
    }

    /// A layer's state before the step.
    pub fn before(&self, layer: usize) -> Result<&S> {
        self.held()?
            .get(layer)
            .ok_or_else(|| MlxError::backend(format!("no state of recurrent layer {layer}")))
    }

    /// Recurrent layers of the step.
    pub fn layers(&self) -> usize {
        self.next.len()
    }

    /// A layer's states before and after the step.
    pub fn both(&self, layer: usize) -> Result<[&S; 2]> {
        let next = self.next.get(layer).and_then(Option::as_ref);
        let next = next
            .ok_or_else(|| MlxError::backend(format!("no place for the state of recurrent layer {layer}")))?;
        Ok([self.before(layer)?, next])
    }

    /// Takes a layer's state after the step.
    pub fn put(&mut self, layer: usize, state: S) {
        if let Some(next) = self.next.get_mut(layer) {
            *next = Some(state);
        }
    }

    /// The step is whole.
    pub fn commit(&mut self) {
        let next: Vec<S> = std::mem::take(&mut self.next).into_iter().flatten().collect();
        if !next.is_empty() {
            self.now = Now::There(next);
        }
    }

    /// The row took tokens from blocks.
    pub fn lose(&mut self) {
        self.now = Now::Missing;
    }

    fn held(&self) -> Result<&[S]> {
        match &self.now {
            Now::There(states) => Ok(states),
            Now::Fresh => Err(MlxError::input("a row without tokens has no state".into())),
            Now::Missing => Err(MlxError::input(
                "a row of a model with recurrent layers took its tokens from blocks; expected a snapshot for it first".into(),
            )),
        }
    }

    /// All that it holds.
    pub fn all(&self) -> impl Iterator<Item = &S> {
        let now = match &self.now {
            Now::There(states) => states.as_slice(),
            Now::Fresh | Now::Missing => &[],
        };
        now.iter().chain(self.next.iter().flatten())
    }

    fn resume(&mut self, states: Vec<S>) -> Result<()> {
        if !matches!(self.now, Now::Missing) {
            return Err(MlxError::input(
                "a snapshot for a row that did not take its tokens from blocks".into(),
            ));
        }
        self.now = Now::There(states);
        Ok(())
    }
}

impl BatchKv {
    /// A row's states after all of its tokens. On the host they are not copied, and in pages of a device they stay there, too.
    ///
    /// # Errors
    /// When the model has no recurrent layers, or the row no state.
    pub fn snapshot(&self, mx: &Mlx, row: usize) -> Result<Payload> {
        let states = states_of(self.spec())?;
        let mut tensors = Vec::new();
        let mut add = |layer: usize, tensor: &StateTensor, data| {
            tensors.push(TensorBytes {
                name: name(layer, tensor),
                part: Part::State,
                dtype: tensor.block_dtype(),
                shape: tensor.shape.clone(),
                data,
            });
        };
        let mut add_all = |layer: usize, held: &Bytes| {
            let mut from = 0;
            for tensor in &states.tensors {
                add(layer, tensor, held.slice(from..from + tensor.bytes()));
                from += tensor.bytes();
            }
        };
        match self.row(row)? {
            RowKv::Host(row) => {
                for (layer, held) in states.layers.iter().zip(row.states.held()?) {
                    add_all(*layer, held);
                }
            }
            RowKv::Pool(row) => {
                let pool = DevicePool::of(self.spec())?;
                for (layer, held) in states.layers.iter().zip(row.states.held()?) {
                    add_all(*layer, &pool.export(held)?);
                }
            }
            RowKv::Device(DeviceRow { states: held, .. }) => {
                for (layer, held) in states.layers.iter().zip(held.held()?) {
                    for (tensor, array) in states.tensors.iter().zip(&held.tensors) {
                        let array = host_contiguous(mx, array)?;
                        let source = bytes(mx, &array)?;
                        let mut data = self.spec().memory.buffer(source.len());
                        data.copy_from_slice(source);
                        add(*layer, tensor, data.share());
                    }
                }
            }
        }
        Ok(Payload { tensors })
    }

    /// Gives a row whose tokens came from blocks the states after exactly these.
    ///
    /// # Errors
    /// When the snapshot is not one of this model, or the row needs none. The row stays as it was.
    pub fn resume(&mut self, mx: &Mlx, row: usize, snapshot: &Payload) -> Result<()> {
        self.row(row)?;
        let spec = self.spec().clone();
        let states = states_of(&spec)?;
        let layer = |layer: &usize| -> Result<Vec<&TensorBytes>> {
            states.tensors.iter().map(|tensor| checked(snapshot, *layer, tensor)).collect()
        };
        let layers = states.layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        match &mut self.rows_mut()[row] {
            RowKv::Host(row) => {
                row.states.resume(layers.iter().map(|tensors| joined(&spec, tensors)).collect())
            }
            RowKv::Pool(row) => {
                let pool = DevicePool::of(&spec)?;
                let each = layers.iter().map(|tensors| pool.import(Part::State, joined(&spec, tensors)));
                row.states.resume(each.collect::<Result<_>>()?)
            }
            RowKv::Device(DeviceRow { states: held, .. }) => {
                let each = layers.iter().map(|tensors| {
                    let arrays = tensors.iter().zip(&states.tensors).map(|(tensor, expected)| {
                        from_bytes(mx, &tensor.data, &expected.dims(), expected.dtype)
                    });
                    Ok(DeviceState::new(&spec, arrays.collect::<Result<_>>()?))
                });
                held.resume(each.collect::<Result<_>>()?)
            }
        }
    }
}

/// Zeros for one layer on a device.
pub fn device_zero(mx: &Mlx, spec: &KvSpec) -> Result<DeviceState> {
    let zeros = states_of(spec)?.tensors.iter().map(|tensor| zeros_of(mx, &tensor.dims(), tensor.dtype));
    Ok(DeviceState::new(spec, zeros.collect::<Result<_>>()?))
}

fn states_of(spec: &KvSpec) -> Result<&StatesSpec> {
    let none = || MlxError::input("a snapshot of a model without recurrent layers".into());
    spec.states.as_ref().ok_or_else(none)
}

fn name(layer: usize, tensor: &StateTensor) -> String {
    format!("{layer:03}.{}", tensor.name)
}

fn checked<'a>(snapshot: &'a Payload, layer: usize, expected: &StateTensor) -> Result<&'a TensorBytes> {
    let name = name(layer, expected);
    let found = snapshot.tensor(&name);
    let found = found
        .ok_or_else(|| MlxError::block(format!("the snapshot lacks the tensor {name}, which is needed")))?;
    let (dtype, bytes) = (expected.block_dtype(), expected.bytes());
    if found.dtype != dtype || found.shape != expected.shape || found.data.len() != bytes {
        return Err(MlxError::block(format!(
            "snapshot, tensor {name}: found {:?} {:?} of {} bytes, expected {dtype:?} {:?} of {bytes}",
            found.dtype,
            found.shape,
            found.data.len(),
            expected.shape
        )));
    }
    Ok(found)
}

/// A layer's tensors one behind the other, without a copy where they lie so and floats can be read there.
fn joined(spec: &KvSpec, tensors: &[&TensorBytes]) -> Bytes {
    let parts = || tensors.iter().map(|tensor| &tensor.data);
    let whole = Bytes::join(parts()).filter(|whole| whole.as_ptr().align_offset(align_of::<f32>()) == 0);
    whole.unwrap_or_else(|| {
        let mut copy = spec.memory.buffer(parts().map(|part| part.len()).sum());
        let mut rest = &mut copy[..];
        for part in parts() {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        copy.share()
    })
}
