//! What all rows of a model share: shapes and formats of the stored keys and values.

use prefixd_cache::{Memory, Part};

use super::format::{Format, KvSetting, Plane, Vectors};
use super::paged::DevicePool;
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
    /// One mask for each layer that keeps keys and values. Layers are counted among these.
    pub masks: Vec<Mask>,
    /// What recurrent layers keep, where the model has some.
    pub states: Option<StatesSpec>,
    /// Tokens of a block, and of a page. An export may reach a block behind the block that a row's end is in.
    pub block_tokens: usize,
    /// Who computes attention, which decides where rows keep their tokens.
    pub kernels: Kernels,
    /// What rows on the host take their memory from, and where those of a device count.
    pub memory: Memory,
    /// Where pages lie, if not on the host.
    pub pool: Option<DevicePool>,
    /// Formats of the two sides.
    pub formats: [Format; 2],
    /// Values are latents, and a key is the latent followed by what lies on the side of keys.
    pub latent: bool,
    sides: Vec<[Vectors; 2]>,
    tensors: Vec<Stored>,
}

impl KvSpec {
    /// The layout of attention over heads that are alike in all layers, in a setting that was checked.
    pub fn new(
        kernels: Kernels,
        setting: KvSetting,
        kv_heads: usize,
        head_dim: usize,
        masks: Vec<Mask>,
        block_tokens: usize,
    ) -> Self {
        let vectors = Vectors { heads: kv_heads, width: head_dim };
        let layers = masks.into_iter().map(|mask| (mask, [vectors; 2]));
        Self::with_layers(kernels, setting, layers, block_tokens)
    }

    /// A layout of layers, each with its mask, and its keys and values, which need not be alike.
    pub fn with_layers(
        kernels: Kernels,
        setting: KvSetting,
        layers: impl IntoIterator<Item = (Mask, [Vectors; 2])>,
        block_tokens: usize,
    ) -> Self {
        let formats = [setting.keys, setting.values];
        Self::with_formats(kernels, setting, formats, layers, block_tokens)
    }

    /// A layout of layers with attention over latents: these have the format of keys, since keys are made of them, and what tells
    /// positions is not quantized.
    pub fn of_latents(
        kernels: Kernels,
        setting: KvSetting,
        layers: impl IntoIterator<Item = (Mask, [Vectors; 2])>,
        block_tokens: usize,
    ) -> Self {
        let turned = if setting.keys == Format::F32 { Format::F32 } else { Format::F16 };
        let spec = Self::with_formats(kernels, setting, [turned, setting.keys], layers, block_tokens);
        Self { latent: true, ..spec }
    }

    fn with_formats(
        kernels: Kernels,
        setting: KvSetting,
        formats: [Format; 2],
        layers: impl IntoIterator<Item = (Mask, [Vectors; 2])>,
        block_tokens: usize,
    ) -> Self {
        let (masks, sides): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
        let tensors = tensors(formats, &masks, &sides);
        let (memory, states, latent) = (Memory::default(), None, false);
        let pool = None;
        Self { setting, masks, states, block_tokens, kernels, memory, pool, formats, latent, sides, tensors }
    }

    /// The same beside recurrent layers.
    #[must_use]
    pub fn with_states(self, states: Option<StatesSpec>) -> Self {
        Self { states, ..self }
    }

    /// The same with pages on a device.
    #[must_use]
    pub fn with_pool(self, pool: DevicePool) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// What a token leaves in a layer: keys, and values.
    pub fn sides_of(&self, layer: usize) -> [Vectors; 2] {
        self.sides[layer]
    }

    /// How many of a layer's planes are keys: the first.
    pub fn key_planes(&self) -> usize {
        self.formats[0].plane_count()
    }

    /// The tensors of a block, in its order: layer by layer, plane by plane.
    pub fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    /// A layer's planes among them: those of keys, then those of values.
    pub fn tensors_of(&self, layer: usize) -> &[Stored] {
        let count = self.key_planes() + self.formats[1].plane_count();
        &self.tensors[layer * count..][..count]
    }

    /// Bytes that a token takes in a layer.
    pub fn layer_bytes(&self, layer: usize) -> usize {
        self.tensors_of(layer).iter().map(|stored| stored.plane.token_bytes()).sum()
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

fn tensors(formats: [Format; 2], masks: &[Mask], sides: &[[Vectors; 2]]) -> Vec<Stored> {
    let mut used = [0, 0];
    let mut tensors = Vec::new();
    for (layer, (mask, [keys, values])) in masks.iter().zip(sides).enumerate() {
        let part = mask.part();
        let keys = formats[0].planes(*keys).into_iter().map(|plane| (Side::Keys, plane));
        let values = formats[1].planes(*values).into_iter().map(|plane| (Side::Values, plane));
        for (side, plane) in keys.chain(values) {
            let before = used[part as usize];
            used[part as usize] += plane.token_bytes();
            let name = format!("{layer:03}.{}{}", side.letter(), plane.suffix);
            tensors.push(Stored { name, part, layer, plane, before });
        }
    }
    tensors
}
