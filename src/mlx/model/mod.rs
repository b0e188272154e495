//! The model families, one file for each way to put layers together, built from [`super::layer`].

mod gemma3;
mod prenorm;

use mlx_rs::Array;

use super::array::Result;
use super::config::Family;
use super::error::LoadError;
use super::gate::Mlx;
use super::layer::Source;
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

/// Builds the family's model out of `source`.
pub fn load(mx: &Mlx, source: &mut Source<'_>) -> std::result::Result<Box<dyn Model>, LoadError> {
    Ok(match source.config.family {
        Family::Llama | Family::Qwen3 => Box::new(prenorm::PreNorm::load(mx, source)?),
        Family::Gemma3 => Box::new(gemma3::Gemma3::load(mx, source)?),
    })
}
