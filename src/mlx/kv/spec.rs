//! What all rows of a model share: shapes and formats of the stored keys and values.

use prefixd_cache::{Memory, Part};

use super::format::{KvSetting, Plane, Vectors};
use super::state::StatesSpec;
use crate::mlx::backend::Kernels;
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

/// One tensor of a block: one plane of one layer.
#[derive(Debug)]
pub struct Stored {
    /// `layer.side[.plane]`, `003.k.packed` say.
    pub name: String,
    /// The part that the layer belongs to.
    pub part: Part,
    /// The layer.
    pub layer: usize,
    /// Shape and types.
    pub plane: Plane,
    /// Bytes that a token takes in the part's tensors before this one: `n` tokens' tensors lie one behind the other, so this
    /// one begins at `n` times as many.
    pub before: usize,
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
    /// One mask for each layer that keeps keys and values. Layers are counted among these.
    pub masks: Vec<Mask>,
    /// What recurrent layers keep, where the model has some.
    pub states: Option<StatesSpec>,
    /// Tokens of a block, and of a page. An export may reach a block behind the block that a row's end is in.
    pub block_tokens: usize,
    /// Who computes attention, which decides where rows keep their tokens.
    pub kernels: Kernels,
    /// What rows take their memory from.
    pub memory: Memory,
    planes: Vec<Plane>,
    key_planes: usize,
    tensors: Vec<Stored>,
}

impl KvSpec {
    /// The layout of attention over heads, in a setting that was checked.
    pub fn new(
        kernels: Kernels,
        setting: KvSetting,
        kv_heads: usize,
        head_dim: usize,
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let vectors = Vectors { heads: kv_heads, width: head_dim };
        Self::with_sides(kernels, setting, [vectors, vectors], masks, block_tokens)
    }

    /// A layout whose keys and values need not be alike.
    pub fn with_sides(
        kernels: Kernels,
        setting: KvSetting,
        [keys, values]: [Vectors; 2],
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let mut planes = setting.keys.planes(keys);
        let key_planes = planes.len();
        planes.extend(setting.values.planes(values));
        let tensors = tensors(&masks, &planes, key_planes);
        let memory = Memory::default();
        let states = None;
        Self {
            setting,
            keys,
            values,
            masks,
            states,
            block_tokens,
            kernels,
            memory,
            planes,
            key_planes,
            tensors,
        }
    }

    /// The same beside recurrent layers.
    #[must_use]
    pub fn with_states(self, states: Option<StatesSpec>) -> Self {
        Self { states, ..self }
    }

    /// Planes of keys, then those of values.
    pub fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// How many of the planes are keys.
    pub fn key_planes(&self) -> usize {
        self.key_planes
    }

    /// The tensors of a block, in its order: layer by layer, plane by plane.
    pub fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    /// A layer's planes among them.
    pub fn tensors_of(&self, layer: usize) -> &[Stored] {
        &self.tensors[layer * self.planes.len()..][..self.planes.len()]
    }

    /// Those of one part.
    pub fn tensors_in(&self, part: Part) -> impl Iterator<Item = &Stored> {
        self.tensors.iter().filter(move |stored| stored.part == part)
    }

    /// Bytes that a token takes in a part; 0 when the model has no such layers.
    pub fn token_bytes(&self, part: Part) -> usize {
        self.tensors_in(part).last().map_or(0, |last| last.before + last.plane.token_bytes())
    }

    /// Tokens that a layer keeps behind a row's end: those the next query sees, and those of a block that ends up to
    /// one block before the row does. `None`: all.
    pub fn retained(&self, mask: Mask) -> Option<usize> {
        mask.reach().map(|reach| reach.max(2 * self.block_tokens))
    }
}

fn tensors(masks: &[Mask], planes: &[Plane], key_planes: usize) -> Vec<Stored> {
    let mut used = [0, 0];
    let mut tensors = Vec::with_capacity(masks.len() * planes.len());
    for (layer, mask) in masks.iter().enumerate() {
        let part = mask.part();
        for (i, plane) in planes.iter().enumerate() {
            let side = if i < key_planes { Side::Keys } else { Side::Values };
            let before = used[part as usize];
            used[part as usize] += plane.token_bytes();
            let name = format!("{layer:03}.{}{}", side.letter(), plane.suffix);
            tensors.push(Stored { name, part, layer, plane: *plane, before });
        }
    }
    tensors
}
