//! Attention over pages on NVIDIA GPUs, by kernels of our own that read tables of pages: a length is a number to them and never a
//! shape, so nothing is compiled or planned while rows grow.
//!
//! 1. New keys and values are encoded and stored for all rows of a step in one launch, with what comes before: norms of heads and
//!    the turn to their positions, where the layer's projections lie side by side.
//! 2. Few new tokens of a row read the codes where they lie, each byte once (`part.cu`), all such rows in one launch. Their keys are
//!    cut into shares, so that one row fills the machine, and the shares are joined as running softmaxes join.
//! 3. A chunk's keys are decoded once for all of its queries (`gather.cu`) and multiplied on the matrix units (`flash.cu`).
//! 4. Heads of other sizes, and latents, are decoded and left to MLX's fused operation.
//!
//! Pages are written in place, behind MLX's back. The order is kept by arrays: what stores a layer's tokens makes one that what
//! reads them takes.

mod kernels;
mod proof;
mod step;
mod words;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::Part;

use self::kernels::Kernels;
use self::words::Words;
use crate::mlx::array::{Result, from_f32, settle};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{DeviceMemory, KvSpec, PoolRow};
use crate::mlx::mask::Mask;
use crate::mlx::step::Step;

pub use kernels::STEP;
pub use proof::Proof;
pub use step::{PagedStep, Projected};

/// New tokens of a row that are few: more cost less when their keys are decoded once for all of them.
const FEW: usize = 8;

/// The kernels of one model.
pub struct PagedAttention {
    kernels: Kernels,
    layers: Vec<LayerPlace>,
    masks: Vec<Mask>,
    words: RefCell<Words>,
    /// By their bits: factors of scores, `[1]`, f32.
    factors: RefCell<HashMap<u32, Array>>,
    /// `[1]`, f32: for inputs that are not read.
    nothing: Array,
}

/// Where a layer's tensors lie in a page.
struct LayerPlace {
    /// `[8]`, i32: as `part.cu` reads it.
    array: Array,
    mask: usize,
}

impl PagedAttention {
    /// The kernels for a model whose rows lie in pages of the device.
    pub fn new(mx: &Mlx, spec: &KvSpec, device: &Rc<dyn DeviceMemory>) -> Result<Self> {
        if !spec.block_tokens.is_multiple_of(16) {
            let found = spec.block_tokens;
            return Err(MlxError::input(format!(
                "blocks of {found} tokens; on this device expected a multiple of 16"
            )));
        }
        let (layers, masks) = places(spec);
        let kernels = Self {
            kernels: Kernels::new(mx)?,
            layers,
            masks,
            words: RefCell::new(Words::new(mx, device)?),
            factors: RefCell::default(),
            nothing: from_f32(mx, &[0.0], &[1])?,
        };
        settle(mx, kernels.layers.iter().map(|layer| &layer.array).chain([&kernels.nothing]))?;
        Ok(kernels)
    }

    /// Begins a step over rows that have room for it.
    pub fn step<'a>(
        &'a self,
        mx: &Mlx,
        spec: &'a KvSpec,
        step: &'a Step,
        rows: &[&mut PoolRow],
    ) -> Result<PagedStep<'a>> {
        let mut words = self.words.borrow_mut();
        let counts = words.tell(mx, step, rows, &self.masks, FEW)?;
        Ok(PagedStep::new(self, spec, step, counts, words.array.clone()))
    }

    fn factor(&self, mx: &Mlx, scale: f32) -> Result<Array> {
        if let Some(factor) = self.factors.borrow().get(&scale.to_bits()) {
            return Ok(factor.clone());
        }
        let factor = from_f32(mx, &[scale], &[1])?;
        settle(mx, [&factor])?;
        self.factors.borrow_mut().insert(scale.to_bits(), factor.clone());
        Ok(factor)
    }
}

/// Where the tensors of each layer lie, and the masks that there are.
fn places(spec: &KvSpec) -> (Vec<LayerPlace>, Vec<Mask>) {
    let mut masks: Vec<Mask> = Vec::new();
    let place = |layer: usize| {
        let mask = spec.masks[layer];
        let number = masks.iter().position(|known| *known == mask).unwrap_or_else(|| {
            masks.push(mask);
            masks.len() - 1
        });
        let (keys, values) = spec.tensors_of(layer).split_at(spec.key_planes());
        let mut at = [0_i32; 8];
        for (side, tensors) in [keys, values].into_iter().enumerate() {
            for (plane, stored) in tensors.iter().enumerate() {
                at[3 * side + plane] = (stored.before * spec.block_tokens) as i32;
            }
        }
        at[6] = i32::from(mask.part() == Part::Window);
        at[7] = number as i32;
        LayerPlace { array: Array::from_slice(&at, &[8]), mask: number }
    };
    let layers = (0..spec.masks.len()).map(place).collect();
    (layers, masks)
}
