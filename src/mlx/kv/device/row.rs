//! One row: its length and the planes of each layer.

use prefixd_cache::Part;

use super::layer::LayerKv;
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::spec::KvSpec;
use crate::mlx::kv::state::{DeviceState, RowStates, device_zero};

/// A row in arrays.
#[derive(Debug)]
pub struct DeviceRow {
    /// Tokens held.
    pub length: usize,
    /// In layer order.
    pub layers: Vec<LayerKv>,
    /// What recurrent layers keep.
    pub(in crate::mlx) states: RowStates<DeviceState>,
}

impl DeviceRow {
    /// A row without tokens.
    pub fn empty(spec: &KvSpec) -> Self {
        let layers = spec.masks.iter().map(|mask| LayerKv::empty(*mask)).collect();
        Self { length: 0, layers, states: RowStates::default() }
    }

    /// Makes room for `more` tokens behind the row's end.
    pub fn reserve(&mut self, mx: &Mlx, spec: &KvSpec, more: usize) -> Result<()> {
        let length = self.length;
        if let Some(states) = &spec.states {
            self.states.begin(states.layers.len(), || device_zero(mx, spec))?;
        }
        let mut layers = self.layers.iter_mut().enumerate();
        layers.try_for_each(|(number, layer)| layer.reserve(mx, spec, number, length, more))
    }

    /// A copy with memory of its own.
    pub fn copied(&self, mx: &Mlx, spec: &KvSpec) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.copied(mx, spec)).collect::<Result<_>>()?;
        Ok(Self { length: self.length, layers, states: self.states.clone() })
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
