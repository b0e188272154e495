//! What a layer does after its attention: one MLP, or a choice of many.

use mlx_rs::Array;

use super::experts::ExpertMlp;
use super::mlp::Mlp;
use super::source::Source;
use crate::mlx::array::Result;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// The feed-forward part of a layer.
#[derive(Debug)]
pub enum Feed {
    /// One MLP.
    Dense(Mlp),
    /// Some of many, chosen token by token.
    Sparse(Box<ExpertMlp>),
}

impl Feed {
    /// That of layer `layer`, as the configuration has it.
    pub fn load(mx: &Mlx, source: &mut Source<'_>, layer: usize) -> std::result::Result<Self, LoadError> {
        let (config, path) = (source.config, format!("model.layers.{layer}"));
        Ok(match &config.experts {
            Some(experts) if experts.layers[layer] => {
                Self::Sparse(Box::new(ExpertMlp::load(mx, source, &path, experts)?))
            }
            _ => Self::Dense(Mlp::load(mx, source, &format!("{path}.mlp"), config.intermediate)?),
        })
    }

    /// `[n, hidden]` to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(mlp) => mlp.forward(mx, x),
            Self::Sparse(experts) => experts.forward(mx, x),
        }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Dense(mlp) => mlp.arrays(),
            Self::Sparse(experts) => experts.arrays(),
        }
    }
}
