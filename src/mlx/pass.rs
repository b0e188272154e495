//! One forward pass: the step's rows, and attention over what they have stored.

use mlx_rs::Array;
use mlx_rs::ops::indexing::{TryIndexOp, take_axis};

use super::array::{Result, dims, settle};
use super::attention::{self, PackedAttention, PackedStep, Queries};
use super::error::MlxError;
use super::gate::Mlx;
use super::kv::{DeviceRow, HostRow, KvSpec, RowKv};
use super::step::Step;

/// The rows of a batch while they take a step.
pub struct Pass<'a> {
    step: &'a Step,
    spec: &'a KvSpec,
    rows: Rows<'a>,
}

/// They are all of one kind.
enum Rows<'a> {
    Host(Vec<&'a mut HostRow>),
    Device(Vec<&'a mut DeviceRow>, Option<PackedStep<'a>>),
}

impl<'a> Pass<'a> {
    /// `step` over `rows`, in its order: makes room for its tokens.
    pub fn new(
        mx: &Mlx,
        step: &'a Step,
        spec: &'a KvSpec,
        rows: Vec<&'a mut RowKv>,
        packed: Option<&'a PackedAttention>,
    ) -> Result<Self> {
        let (mut host, mut device) = (Vec::new(), Vec::new());
        for (row, at) in rows.into_iter().zip(step.rows()) {
            match row {
                RowKv::Host(row) => {
                    row.reserve(spec, at.tokens);
                    host.push(row);
                }
                RowKv::Device(row) => {
                    row.reserve(mx, spec, at.tokens)?;
                    device.push(row);
                }
            }
        }
        let rows = match (host.len(), device.len()) {
            (_, 0) => Rows::Host(host),
            (0, _) => Rows::Device(device, packed.map(PackedAttention::step)),
            _ => return Err(MlxError::backend("a step over rows in pages and rows in arrays".into())),
        };
        Ok(Self { step, spec, rows })
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
        let (spec, step) = (self.spec, self.step);
        let mut encoded = spec.setting.keys.encode(mx, key)?;
        encoded.extend(spec.setting.values.encode(mx, value)?);
        match &mut self.rows {
            Rows::Host(rows) => {
                let encoded =
                    encoded.iter().map(Array::contiguous).collect::<std::result::Result<Vec<_>, _>>()?;
                settle(mx, encoded.iter().chain([queries.array]))?;
                for (row, at) in rows.iter_mut().zip(step.rows()) {
                    row.write(mx, spec, layer, *at, &encoded)?;
                }
                let rows = rows.iter().zip(step.rows()).map(|(row, at)| (&**row, *at));
                attention::host(mx, spec, layer, queries, rows)
            }
            Rows::Device(rows, packed) => {
                for (row, at) in rows.iter_mut().zip(step.rows()) {
                    let (from, to) = (at.first as i32, at.range().end as i32);
                    let by_head = |plane: &Array| plane.try_index(from..to)?.transpose_axes(&[1, 0, 2]);
                    let own = encoded.iter().map(by_head).collect::<std::result::Result<Vec<_>, _>>()?;
                    row.layers[layer].write(mx, at.position, at.tokens, &own)?;
                }
                let rows = rows.iter().zip(step.rows()).map(|(row, at)| (&row.layers[layer], *at));
                attention::device(mx, spec, queries, rows, packed.as_mut())
            }
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
