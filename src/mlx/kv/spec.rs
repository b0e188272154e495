//! What all rows of a model share: shapes and formats of the stored keys and values.

use super::format::{KvSetting, Plane, Vectors};
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
///
/// Rows, batches and blocks know planes only: how many vectors a token leaves on each side, and how long they are. For
/// attention over heads both sides are alike. Latent attention (MLA) leaves one latent and one rotated key for all heads, of
/// different lengths: here they are the values and the keys of a layer with one head a side. What differs is the arithmetic.
#[derive(Debug)]
pub struct KvSpec {
    /// Formats of keys and values.
    pub setting: KvSetting,
    /// Keys of a token and layer.
    pub keys: Vectors,
    /// Values of a token and layer.
    pub values: Vectors,
    /// One mask a layer.
    pub masks: Vec<Mask>,
    /// Tokens of a block: how far behind a row's end an export may reach.
    pub block_tokens: usize,
    planes: Vec<Plane>,
    key_planes: usize,
}

impl KvSpec {
    /// The layout of attention over heads, in a setting that was checked.
    pub fn new(
        setting: KvSetting,
        kv_heads: usize,
        head_dim: usize,
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let vectors = Vectors { heads: kv_heads, width: head_dim };
        Self::with_sides(setting, [vectors, vectors], masks, block_tokens)
    }

    /// A layout whose keys and values need not be alike.
    pub fn with_sides(
        setting: KvSetting,
        [keys, values]: [Vectors; 2],
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let mut planes = setting.keys.planes(keys);
        let key_planes = planes.len();
        planes.extend(setting.values.planes(values));
        Self { setting, keys, values, masks, block_tokens, planes, key_planes }
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
        let KvSetting { keys, values } = self.setting;
        (full * (keys.token_bytes(self.keys) + values.token_bytes(self.values))) as u64
    }
}
