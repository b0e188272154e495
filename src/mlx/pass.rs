//! One forward pass: the step's rows, and attention over what they have stored.

use mlx_rs::Array;
use mlx_rs::ops::indexing::{TryIndexOp, take_axis};
use prefixd_cache::Buffer;

use super::array::{Result, dims, host_copied};
use super::attention::{self, PagedAttention, PagedStep, Projected, Queries};
use super::cpu::encode::encode;
use super::error::MlxError;
use super::gate::Mlx;
use super::kv::{DeviceRow, DeviceState, HostRow, KvSpec, RowKv, RowStates, StateTensor, StatesSpec};
use super::step::{RowStep, Step};

/// The rows of a batch while they take a step.
pub struct Pass<'a> {
    step: &'a Step,
    spec: &'a KvSpec,
    rows: Rows<'a>,
}

/// A layer's state of one row, on the host: its tensors one behind the other.
pub struct HostState<'a> {
    /// The row's share of the step.
    pub at: RowStep,
    /// Before it.
    pub before: &'a [f32],
    /// After it, to be written.
    pub after: &'a mut [f32],
}

/// They are all of one kind.
enum Rows<'a> {
    Host(Vec<&'a mut HostRow>),
    Pool(Box<PagedStep<'a>>),
    Device(Vec<&'a mut DeviceRow>),
}

impl<'a> Pass<'a> {
    /// `step` over `rows`, in its order: makes room for its tokens.
    pub fn new(
        mx: &Mlx,
        step: &'a Step,
        spec: &'a KvSpec,
        rows: Vec<&'a mut RowKv>,
        paged: Option<&'a PagedAttention>,
    ) -> Result<Self> {
        let (mut host, mut pool, mut device) = (Vec::new(), Vec::new(), Vec::new());
        for (row, at) in rows.into_iter().zip(step.rows()) {
            row.reserve(mx, spec, at.tokens)?;
            match row {
                RowKv::Host(row) => host.push(row),
                RowKv::Pool(row) => pool.push(row),
                RowKv::Device(row) => device.push(row),
            }
        }
        let rows = match (host.len(), pool.len(), device.len(), paged) {
            (_, 0, 0, _) => Rows::Host(host),
            (0, _, 0, Some(paged)) => {
                let told = paged.step(mx, spec, step, &pool)?;
                Rows::Pool(Box::new(told))
            }
            (0, 0, _, _) => Rows::Device(device),
            _ => return Err(MlxError::backend("a step over rows of several kinds".into())),
        };
        Ok(Self { step, spec, rows })
    }

    /// What each row gets, and where.
    pub fn step(&self) -> &'a Step {
        self.step
    }

    /// Appends keys and values to a layer of every row, then attends: queries `[tokens, heads, head_dim]`, keys and
    /// values `[tokens, kv heads, head_dim]`, result `[tokens, heads * head_dim]`. Without keys and values it attends to
    /// what the step has appended to the layer already.
    ///
    /// The new tokens are read back as they were stored, like all others: so borders between chunks change nothing.
    pub fn attend(
        &mut self,
        mx: &Mlx,
        layer: usize,
        queries: Queries<'_>,
        new: Option<[&Array; 2]>,
    ) -> Result<Array> {
        let (spec, step) = (self.spec, self.step);
        match &mut self.rows {
            Rows::Host(rows) => {
                let mut encoded = Vec::new();
                for (array, format) in new.into_iter().flatten().zip(spec.formats) {
                    encoded.extend(encode(format.encoding(), &host_copied(mx, array)?));
                }
                for (row, at) in rows.iter_mut().zip(step.rows()) {
                    row.write(spec, layer, *at, &encoded)?;
                }
                let rows = rows.iter().zip(step.rows()).map(|(row, at)| (&**row, *at));
                attention::host(mx, spec, layer, queries, rows)
            }
            Rows::Pool(paged) => paged.attend_to(mx, layer, queries, new),
            Rows::Device(rows) => {
                let mut encoded = Vec::new();
                for (array, format) in new.into_iter().flatten().zip(spec.formats) {
                    encoded.extend(format.encode(mx, array)?);
                }
                for (row, at) in rows.iter_mut().zip(step.rows()).filter(|_| new.is_some()) {
                    let (from, to) = (at.first as i32, at.range().end as i32);
                    let by_head = |plane: &Array| plane.try_index(from..to)?.transpose_axes(&[1, 0, 2]);
                    let own = encoded.iter().map(by_head).collect::<std::result::Result<Vec<_>, _>>()?;
                    row.layers[layer].write(mx, at.position, at.tokens, &own)?;
                }
                let rows = rows.iter().zip(step.rows()).map(|(row, at)| (&row.layers[layer], *at));
                attention::device(mx, spec, layer, queries, rows)
            }
        }
    }

    /// The same for queries, keys and values of one product, which are turned on the way. Result: `[tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// When the rows do not lie in pages of a device.
    pub fn attend_projected(&mut self, mx: &Mlx, layer: usize, projected: Projected<'_>) -> Result<Array> {
        match &mut self.rows {
            Rows::Pool(paged) => paged.attend_projected(mx, layer, projected),
            Rows::Host(_) | Rows::Device(_) => Err(MlxError::backend(
                "rows elsewhere than in pages of a device, for which projections are joined".into(),
            )),
        }
    }

    /// Takes the states of a recurrent layer, on the host, through the step: `advance` gets those of every row.
    ///
    /// # Errors
    /// When the rows are on a device.
    pub fn advance_host(
        &mut self,
        layer: usize,
        advance: impl FnOnce(&mut [HostState<'_>]) -> Result<()>,
    ) -> Result<()> {
        let (spec, Rows::Host(rows)) = (self.spec, &mut self.rows) else {
            return Err(MlxError::backend("states on a device, expected them on the host".into()));
        };
        let bytes = spec.states.as_ref().map_or(0, StatesSpec::layer_bytes);
        let mut after: Vec<Buffer> = rows.iter().map(|_| spec.memory.buffer(bytes)).collect();
        let states = rows.iter().zip(&mut after).zip(self.step.rows());
        let states = states.map(|((row, after), at)| {
            let before = floats(row.states.before(layer)?);
            Ok(HostState { at: *at, before, after: floats_mut(after) })
        });
        advance(&mut states.collect::<Result<Vec<_>>>()?)?;
        for (row, after) in rows.iter_mut().zip(after) {
            row.states.put(layer, after.share());
        }
        Ok(())
    }

    /// What tells kernels over pages of the step: see `step.cu`.
    ///
    /// # Errors
    /// When the rows do not lie in pages of a device.
    pub fn words(&self) -> Result<&Array> {
        match &self.rows {
            Rows::Pool(paged) => Ok(paged.words()),
            Rows::Host(_) | Rows::Device(_) => {
                Err(MlxError::backend("states elsewhere than in pages of a device".into()))
            }
        }
    }

    /// Bytes of a recurrent layer's state before its tensor number `tensor`.
    pub fn state_begin(&self, tensor: usize) -> usize {
        let tensors = self.spec.states.iter().flat_map(|states| &states.tensors);
        tensors.take(tensor).map(StateTensor::bytes).sum()
    }

    /// Takes the states of a recurrent layer, in arrays on a device, through the step: `advance` makes the state of a row after its share of the step out of that before it. Lazy.
    ///
    /// # Errors
    /// When the rows lie in pages.
    pub fn advance_device(
        &mut self,
        layer: usize,
        mut advance: impl FnMut(RowStep, &[Array]) -> Result<Vec<Array>>,
    ) -> Result<()> {
        let spec = self.spec;
        let mut take = |at: &RowStep, states: &mut RowStates<DeviceState>| -> Result<()> {
            let after = advance(*at, &states.before(layer)?.tensors)?;
            states.put(layer, DeviceState::new(spec, after));
            Ok(())
        };
        let at = self.step.rows().iter();
        match &mut self.rows {
            Rows::Host(_) | Rows::Pool(..) => {
                Err(MlxError::backend("states in pages, expected them in arrays of a device".into()))
            }
            Rows::Device(rows) => rows.iter_mut().zip(at).try_for_each(|(row, at)| take(at, &mut row.states)),
        }
    }

    /// Lets an NVIDIA GPU begin with what was built so far while the host builds the rest: a fifth to a third less time a
    /// token, with an 8B shape. A layer at a time; each has ten launches.
    pub fn begin<'b>(&self, _: &Mlx, built: impl IntoIterator<Item = &'b Array>) -> Result<()> {
        match self.rows {
            Rows::Pool(..) => Ok(mlx_rs::transforms::async_eval(built)?),
            Rows::Host(_) | Rows::Device(_) => Ok(()),
        }
    }

    /// The vectors of some of the new tokens, by their places among all: `[tokens, width]` to `[wanted, width]`. `None`
    /// when none is wanted.
    pub fn select(&self, _: &Mlx, x: &Array, wanted: &[i32]) -> Result<Option<Array>> {
        Ok(match wanted.len() {
            0 => None,
            count if count == self.step.tokens() => Some(x.clone()),
            count => Some(take_axis(x, Array::from_slice(wanted, &dims([count])), 0)?),
        })
    }
}

/// A state's memory as floats.
fn floats(bytes: &[u8]) -> &[f32] {
    // SAFETY: every pattern of bits is a float. What does not lie as floats do, at either end, is left out.
    unsafe { bytes.align_to().1 }
}

fn floats_mut(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: as above, and every float is a pattern of bytes.
    unsafe { bytes.align_to_mut().1 }
}
