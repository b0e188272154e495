//! One forward pass: the step's rows, and attention over what they have stored.

use mlx_rs::Array;

use super::array::{Result, dims};
use super::attention::{self, Queries};
use super::backend::Kernels;
use super::gate::Mlx;
use super::kv::{BatchKv, KvSpec, RowKv};
use super::step::Step;

/// The rows of a batch while they take a step.
pub struct Pass<'a> {
    step: &'a Step,
    spec: &'a KvSpec,
    rows: &'a mut [RowKv],
    kernels: Kernels,
}

impl<'a> Pass<'a> {
    /// `step` over all rows of `batch`.
    pub fn new(step: &'a Step, spec: &'a KvSpec, batch: &'a mut BatchKv, kernels: Kernels) -> Self {
        Self { step, spec, rows: batch.rows_mut(), kernels }
    }

    /// What each row gets, and where.
    pub fn step(&self) -> &'a Step {
        self.step
    }

    /// Appends keys and values to a layer of every row, then attends: queries `[rows, tokens, heads, head_dim]`, keys
    /// and values `[rows, tokens, kv heads, head_dim]`, result `[rows * tokens, heads * head_dim]`.
    ///
    /// The new tokens are read back as they were stored, like all others: so borders between chunks change nothing.
    pub fn attend(&mut self, mx: &Mlx, layer: usize, heads: [&Array; 3], scale: f32) -> Result<Array> {
        let [query, key, value] = heads;
        self.append(mx, layer, key, value)?;
        let spans = self.rows.iter().zip(self.step.starts()).map(|(row, &start)| (&row.layers[layer], start));
        let queries = Queries { array: query, scale, tokens: self.step.tokens() };
        match self.kernels {
            Kernels::Host => attention::host(mx, self.spec, &queries, spans),
            Kernels::Device => attention::device(mx, self.spec, &queries, spans),
        }
    }

    fn append(&mut self, mx: &Mlx, layer: usize, key: &Array, value: &Array) -> Result<()> {
        let (spec, tokens) = (self.spec, self.step.tokens());
        let by_head = |x: &Array| x.transpose_axes(&[0, 2, 1, 3]);
        let mut encoded = spec.setting.keys.encode(mx, &by_head(key)?)?;
        encoded.extend(spec.setting.values.encode(mx, &by_head(value)?)?);
        for (number, (row, &start)) in self.rows.iter_mut().zip(self.step.starts()).enumerate() {
            let state = &mut row.layers[layer];
            state.reserve(mx, spec, start, tokens)?;
            let own = encoded.iter().zip(spec.planes()).map(|(array, plane)| {
                let row = mlx_rs::ops::indexing::TryIndexOp::try_index(array, number as i32)?;
                Ok(row.reshape(&dims([spec.kv_heads, tokens, plane.width]))?)
            });
            let own = own.collect::<Result<Vec<_>>>()?;
            state.write(mx, start, tokens, &own)?;
        }
        Ok(())
    }

    /// The last token's vector of each row: `[rows * tokens, width]` to `[rows, width]`.
    pub fn last(&self, _: &Mlx, x: &Array) -> Result<Array> {
        let (rows, tokens) = (self.step.rows() as i32, self.step.tokens() as i32);
        if tokens == 1 {
            return Ok(x.clone());
        }
        let ends: Vec<i32> = (1..=rows).map(|row| row * tokens - 1).collect();
        Ok(mlx_rs::ops::indexing::take_axis(x, Array::from_slice(&ends, &[rows]), 0)?)
    }
}
