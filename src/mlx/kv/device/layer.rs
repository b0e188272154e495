//! Stored keys and values of one row and one layer.
//!
//! 1. Slot `s` holds absolute position `origin + s`. Slots from the row's length on hold nothing anyone may read.
//! 2. Tokens are encoded once, when they enter; from then on only whole planes move.
//! 3. A full layer grows by half; a window layer drops what no query and no export can ask for, and only when it runs
//!    out of room, so that dropping costs a copy once in many steps.
//! 4. Nobody else holds a plane's handle, or a view of it, while it is written: so MLX writes in place.

use mlx_rs::Array;
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};

use prefixd_cache::Counted;

use crate::mlx::array::{Result, dims, settle, zeros_of};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::spec::{KvSpec, Stored};
use crate::mlx::mask::Mask;

/// Slots are added in multiples of this.
const SLOTS: usize = 256;
/// Slots that a full layer grows by at most beyond what it needs: what a long row may waste.
pub const MOST_SPARE: usize = 4096;

/// The planes of keys, then those of values: `[heads, capacity, width]` each; none before the first token.
#[derive(Debug)]
pub struct LayerKv {
    mask: Mask,
    origin: usize,
    capacity: usize,
    planes: Vec<Array>,
    /// The planes' memory.
    _counted: Option<Counted>,
}

impl LayerKv {
    /// A layer without tokens.
    pub fn empty(mask: Mask) -> Self {
        Self { mask, origin: 0, capacity: 0, planes: Vec::new(), _counted: None }
    }

    /// A layer that holds the positions from `origin` on in planes of `capacity` slots.
    pub fn with_planes(
        spec: &KvSpec,
        mask: Mask,
        origin: usize,
        capacity: usize,
        planes: Vec<Array>,
    ) -> Self {
        let counted = Some(counted(spec, &planes));
        Self { mask, origin, capacity, planes, _counted: counted }
    }

    /// What its queries see.
    pub fn mask(&self) -> Mask {
        self.mask
    }

    /// Absolute position of the first token held.
    pub fn origin(&self) -> usize {
        self.origin
    }

    /// Slots per head.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The planes, to be read.
    pub fn planes(&self) -> &[Array] {
        &self.planes
    }

    /// Slots that `tokens` tokens get when they are stored for the first time.
    pub fn roomy(tokens: usize) -> usize {
        (tokens + 1).next_multiple_of(SLOTS)
    }

    /// Makes room for `more` tokens behind the row's first `length`. It is layer `number`.
    pub fn reserve(
        &mut self,
        mx: &Mlx,
        spec: &KvSpec,
        number: usize,
        length: usize,
        more: usize,
    ) -> Result<()> {
        let held = length.checked_sub(self.origin).ok_or_else(|| {
            let origin = self.origin;
            MlxError::backend(format!("a row of {length} tokens begins at {origin}"))
        })?;
        if held + more <= self.capacity {
            return Ok(());
        }
        let keep = spec.retained(self.mask).map_or(held, |retained| retained.min(held));
        let capacity = match self.mask {
            Mask::Causal => (keep + more).max(held + (held / 2).min(MOST_SPARE)),
            Mask::Window { .. } => keep + more.max(SLOTS),
        };
        let capacity = capacity.next_multiple_of(SLOTS);
        let (from, to) = ((held - keep) as i32, held as i32);
        let stored = spec.tensors_of(number);
        let mut planes = Vec::with_capacity(stored.len());
        for (i, Stored { plane, .. }) in stored.iter().enumerate() {
            let mut grown = zeros_of(mx, &dims([plane.heads, capacity, plane.width]), plane.dtype)?;
            if keep > 0 {
                let kept = self.planes[i].try_index((.., from..to, ..))?;
                grown.try_index_mut((.., 0..keep as i32, ..), &kept)?;
            }
            planes.push(grown);
        }
        settle(mx, &planes)?;
        *self = Self::with_planes(spec, self.mask, length - keep, capacity, planes);
        Ok(())
    }

    /// Writes encoded tokens `[heads, tokens, width]`, one array a plane, to the slots from `position` on. Lazy.
    pub fn write(&mut self, _: &Mlx, position: usize, tokens: usize, encoded: &[Array]) -> Result<()> {
        let slot = position - self.origin;
        for (plane, new) in self.planes.iter_mut().zip(encoded) {
            plane.try_index_mut((.., slot as i32..(slot + tokens) as i32, ..), new)?;
        }
        Ok(())
    }

    /// The stored tokens of absolute positions `from..to`, plane by plane. Lazy views.
    pub fn read(&self, _: &Mlx, from: usize, to: usize) -> Result<Vec<Array>> {
        let slots = (from - self.origin) as i32..(to - self.origin) as i32;
        self.planes.iter().map(|plane| Ok(plane.try_index((.., slots.clone(), ..))?)).collect()
    }

    /// A copy with memory of its own.
    pub fn copied(&self, mx: &Mlx, spec: &KvSpec) -> Result<Self> {
        settle(mx, &self.planes)?;
        let planes = self.planes.iter().map(Array::deep_clone).collect();
        Ok(Self::with_planes(spec, self.mask, self.origin, self.capacity, planes))
    }
}

fn counted(spec: &KvSpec, planes: &[Array]) -> Counted {
    spec.memory.count(planes.iter().map(Array::nbytes).sum())
}
