//! What all rows of a model share: shapes and formats of the stored keys and values.

use super::format::{KvSetting, Plane};
use crate::mlx::mask::Mask;

/// Which side of the attention a plane belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Keys.
    Keys,
    /// Values.
    Values,
}

impl Side {
    /// As tensors of a block are named.
    pub fn letter(self) -> char {
        match self {
            Self::Keys => 'k',
            Self::Values => 'v',
        }
    }
}

/// Shapes and formats.
#[derive(Debug)]
pub struct KvSpec {
    /// Formats of keys and values.
    pub setting: KvSetting,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// One mask a layer.
    pub masks: Vec<Mask>,
    /// Tokens of a block: how far behind a row's end an export may reach.
    pub block_tokens: usize,
    planes: Vec<Plane>,
    key_planes: usize,
}

impl KvSpec {
    /// A model's KV layout in a setting that was checked.
    pub fn new(
        setting: KvSetting,
        kv_heads: usize,
        head_dim: usize,
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let mut planes = setting.keys.planes(head_dim);
        let key_planes = planes.len();
        planes.extend(setting.values.planes(head_dim));
        Self { setting, kv_heads, head_dim, masks, block_tokens, planes, key_planes }
    }

    /// Planes of keys, then those of values.
    pub fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// How many of the planes are keys.
    pub fn key_planes(&self) -> usize {
        self.key_planes
    }

    /// The planes and the sides they belong to.
    pub fn sides(&self) -> impl Iterator<Item = (Side, &Plane)> {
        let side = |i| if i < self.key_planes { Side::Keys } else { Side::Values };
        self.planes.iter().enumerate().map(move |(i, plane)| (side(i), plane))
    }

    /// Tokens that a layer keeps behind a row's end: those the next query sees, and those of a block that ends up to
    /// one block before the row does. `None`: all.
    pub fn retained(&self, mask: Mask) -> Option<usize> {
        mask.reach().map(|reach| reach.max(2 * self.block_tokens))
    }

    /// Bytes that a token costs in the layers that keep all tokens.
    pub fn bytes_per_token(&self) -> u64 {
        let full = self.masks.iter().filter(|mask| mask.reach().is_none()).count();
        let vector = self.setting.keys.vector_bytes(self.head_dim) + self.setting.values.vector_bytes(self.head_dim);
        (full * self.kv_heads * vector) as u64
    }
}
