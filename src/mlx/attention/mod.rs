//! Attention over stored keys and values: one meaning, three ways to compute it.
//!
//! [`host`] reads the packed pages in memory ([`super::cpu::attention`]). [`paged`] reads pages on NVIDIA GPUs by kernels of our own.
//! [`device`] hands decoded planes to MLX's fused operation. Quantized products over KV shapes are not used: MLX's CUDA
//! backend has none for most lengths.

mod device;
mod host;
mod paged;
#[cfg(test)]
mod tests;

pub use device::device;
pub use host::host;
pub use paged::{PagedAttention, PagedStep, Projected, Proof, STEP};

use mlx_rs::Array;

/// Queries `[tokens, heads, head_dim]` of all rows of a step, rotated, what scores are multiplied by, and
/// what else takes weight.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// The vectors.
    pub array: &'a Array,
    /// Factor of the scores.
    pub scale: f32,
    /// `[heads]`: of each head, the score of a key whose value is 0.
    pub sinks: Option<&'a Array>,
}
