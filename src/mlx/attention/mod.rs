//! Attention over stored keys and values: one meaning, two ways to compute it.
//!
//! [`host`] reads the packed planes in memory ([`super::cpu::attention`]). [`device`] hands decoded planes to MLX's fused
//! operation, but for rows with one query on CUDA, which [`packed`] serves over the codes as they are. Quantized products
//! over KV shapes are not used: MLX's CUDA backend has none for most lengths.

mod device;
mod host;
mod packed;
#[cfg(test)]
mod tests;

pub use device::device;
pub use host::host;
pub use packed::{PackedAttention, PackedStep};

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
