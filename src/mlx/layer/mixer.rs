//! What lets tokens know of each other: attention, or a state that passes from one to the next.

use mlx_rs::Array;

use super::attention::SelfAttention;
use super::conv::GatedConv;
use super::delta::GatedDelta;
use super::latent::LatentAttention;
use super::mamba::Mamba2;
use super::norm::Offset;
use super::source::Source;
use crate::mlx::array::Result;
use crate::mlx::config::{LayerPart, Rule};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;
use crate::mlx::rope::RopeAt;

/// The part of a layer that sees other tokens, and its number among those of its kind.
#[derive(Debug)]
pub enum Mixer {
    /// Over keys and values.
    Attention(SelfAttention, usize),
    /// Over latents.
    Latent(Box<LatentAttention>, usize),
    /// The gated delta rule.
    Delta(GatedDelta, usize),
    /// Mamba 2's rule.
    Mamba(Box<Mamba2>, usize),
    /// A short convolution.
    Conv(GatedConv, usize),
}

impl Mixer {
    /// That of layer `layer`, as the configuration has it.
    pub fn load(mx: &Mlx, source: &mut Source<'_>, layer: usize) -> std::result::Result<Self, LoadError> {
        let (config, path) = (source.config, format!("model.layers.{layer}"));
        let kinds: &[bool] = config.recurrent.as_ref().map_or(&[], |recurrent| &recurrent.layers);
        let before = kinds.iter().take(layer).filter(|recurrent| **recurrent).count();
        if let Some(recurrent) = config.recurrent.as_ref().filter(|_| kinds[layer]) {
            return Ok(match recurrent.rule {
                Rule::Gate => {
                    Self::Conv(GatedConv::load(mx, source, &format!("{path}.conv"), recurrent)?, before)
                }
                Rule::Delta(shape) => {
                    let path = format!("{path}.linear_attn");
                    Self::Delta(GatedDelta::load(mx, source, &path, recurrent, shape)?, before)
                }
                Rule::Mamba(mamba) => {
                    let path = format!("{path}.linear_attn");
                    Self::Mamba(Box::new(Mamba2::load(mx, source, &path, recurrent, mamba)?), before)
                }
            });
        }
        let number = match &config.parts[..] {
            [] => layer - before,
            parts => parts[..layer].iter().filter(|part| **part == LayerPart::Attention).count(),
        };
        if let Some(latent) = config.latent {
            let attention = LatentAttention::load(mx, source, &format!("{path}.self_attn"), latent)?;
            return Ok(Self::Latent(Box::new(attention), number));
        }
        let norms = config.head_norms.then_some(Offset::Zero);
        let attention = SelfAttention::load(mx, source, &format!("{path}.self_attn"), norms)?;
        Ok(Self::Attention(attention, number))
    }

    /// `[tokens, hidden]` to the same, with what the rows of the step keep.
    pub fn forward(&self, mx: &Mlx, x: &Array, rope: &RopeAt<'_>, pass: &mut Pass<'_>) -> Result<Array> {
        match self {
            Self::Attention(attention, number) => attention.forward(mx, x, rope, pass, *number),
            Self::Latent(attention, number) => attention.forward(mx, x, rope, pass, *number),
            Self::Delta(delta, number) => delta.forward(mx, x, pass, *number),
            Self::Mamba(mamba, number) => mamba.forward(mx, x, pass, *number),
            Self::Conv(conv, number) => conv.forward(mx, x, pass, *number),
        }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Attention(attention, _) => attention.arrays(),
            Self::Latent(attention, _) => attention.arrays(),
            Self::Delta(delta, _) => delta.arrays(),
            Self::Mamba(mamba, _) => mamba.arrays(),
            Self::Conv(conv, _) => conv.arrays(),
        }
    }
}
