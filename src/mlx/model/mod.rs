//! The model families: one file for each, with how its configuration is read and what is its own, and [`registry`], which
//! lists them. What layers are made of is in [`super::layer`]; how families put them together in [`prenorm`], and
//! in [`sandwich`] for Gemma's.

mod deepseek_v2;
mod deepseek_v3;
mod gemma3;
mod gemma4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod lfm2;
mod llama;
mod mistral;
mod mistral4;
mod nemotron_h;
mod phi3;
mod prenorm;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod registry;
mod sandwich;

pub use registry::{FAMILIES, Family, State, open};

use mlx_rs::Array;

use super::array::Result;
use super::gate::Mlx;
use super::pass::Pass;

/// A decoder-only model.
pub trait Model {
    /// New tokens `[tokens]` (u32) of all rows, row by row, to normalized hidden states `[tokens, hidden]`.
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array>;

    /// Hidden states `[n, hidden]` to logits `[n, vocab]`.
    fn logits(&self, mx: &Mlx, hidden: &Array) -> Result<Array>;

    /// Every array the model holds.
    fn arrays(&self) -> Vec<&Array>;
}
