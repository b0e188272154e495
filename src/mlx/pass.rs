//! One forward pass: the step's rows, and attention over what they have stored.

use mlx_rs::Array;
use mlx_rs::ops::indexing::{TryIndexOp, take_axis};

use super::array::{Result, dims, settle};
use super::attention::{self, PackedAttention, PackedStep, Queries};
use super::backend::Kernels;
use super::gate::Mlx;
use super::kv::{KvSpec, RowKv};
use super::step::Step;

/// The rows of a batch while they take a step.
pub struct Pass<'a> {
    step: &'a Step,
    spec: &'a KvSpec,
    rows: Vec<&'a mut RowKv>,
    kernels: Kernels,
    packed: Option<PackedStep<'a>>,
}

impl<'a> Pass<'a> {
    /// `step` over `rows`, in its order.
    pub fn new(
        step: &'a Step,
        spec: &'a KvSpec,
        rows: Vec<&'a mut RowKv>,
        kernels: Kernels,
        packed: Option<&'a PackedAttention>,
    ) -> Self {
        Self { step, spec, rows, kernels, packed: packed.map(PackedAttention::step) }
    }

    /// What each row gets, and where.
    pub fn step(&self) -> &'a Step {
        self.step
    }

    /// Appends keys and values to a layer of every row, then attends: queries `[tokens, heads, head_dim]`, keys and
    /// values `[tokens, kv heads, head_dim]`, result `[tokens, heads * head_dim]`.
    ///
    /// The new tokens are read back as they were stored, like all others: so borders between chunks change nothing.
    pub fn attend(
        &mut self,
        mx: &Mlx,
        layer: usize,
        queries: Queries<'_>,
        [key, value]: [&Array; 2],
    ) -> Result<Array> {
        self.append(mx, layer, key, value)?;
        let rows = self.rows.iter().zip(self.step.rows()).map(|(row, at)| (&row.layers[layer], *at));
        match self.kernels {
            Kernels::Host => attention::host(mx, self.spec, queries, rows),
            Kernels::Device => attention::device(mx, self.spec, queries, rows, self.packed.as_mut()),
        }
    }

    fn append(&mut self, mx: &Mlx, layer: usize, key: &Array, value: &Array) -> Result<()> {
        let spec = self.spec;
        let mut encoded = spec.setting.keys.encode(mx, key)?;
        encoded.extend(spec.setting.values.encode(mx, value)?);
        if self.kernels == Kernels::Host {
            encoded = encoded.iter().map(Array::contiguous).collect::<std::result::Result<_, _>>()?;
            settle(mx, &encoded)?;
        }
        for (row, at) in self.rows.iter_mut().zip(self.step.rows()) {
            let state = &mut row.layers[layer];
            state.reserve(mx, spec, at.position, at.tokens)?;
            match self.kernels {
                Kernels::Host => state.write_host(mx, spec, *at, &encoded)?,
                Kernels::Device => {
                    let (from, to) = (at.first as i32, at.range().end as i32);
                    let by_head = |plane: &Array| plane.try_index(from..to)?.transpose_axes(&[1, 0, 2]);
                    let own = encoded.iter().map(by_head).collect::<std::result::Result<Vec<_>, _>>()?;
                    state.write(mx, at.position, at.tokens, &own)?;
                }
            }
        }
        Ok(())
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
