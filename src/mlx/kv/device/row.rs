//! One row: its length and the planes of each layer.

use prefixd_cache::Part;

use super::layer::LayerKv;
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::spec::KvSpec;

/// A row in arrays.
#[derive(Debug)]
pub struct DeviceRow {
    /// Tokens held.
    pub length: usize,
    /// In layer order.
    pub layers: Vec<LayerKv>,
}

impl DeviceRow {
    /// A row without tokens.
    pub fn empty(spec: &KvSpec) -> Self {
        Self { length: 0, layers: spec.masks.iter().map(|mask| LayerKv::empty(*mask)).collect() }
    }

    /// Makes room for `more` tokens behind the row's end.
    pub fn reserve(&mut self, mx: &Mlx, spec: &KvSpec, more: usize) -> Result<()> {
        let length = self.length;
        self.layers.iter_mut().try_for_each(|layer| layer.reserve(mx, spec, length, more))
    }

    /// A copy with memory of its own.
    pub fn copied(&self, mx: &Mlx, spec: &KvSpec) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.copied(mx, spec)).collect::<Result<_>>()?;
        Ok(Self { length: self.length, layers })
    }

    /// Forgets the tokens from `length` on. Window layers must still hold what the next query sees.
    pub fn trim(&mut self, length: usize) -> Result<()> {
        for layer in self.layers.iter().filter(|layer| layer.mask().part() == Part::Window) {
            let (origin, needed) = (layer.origin(), layer.mask().visible_from(length));
            if origin > needed {
                return Err(MlxError::input(format!(
                    "cannot trim to {length} tokens: a window layer holds positions from {origin}, {needed} is needed"
                )));
            }
        }
        self.length = length;
        Ok(())
    }
}
