//! Experts beside an MLP: both see the layer's stream, each behind norms of its own, and are added. Gemma 4's.

use mlx_rs::Array;

use super::experts::ExpertMlp;
use super::norm::{Offset, RmsNorm};
use super::source::Source;
use crate::mlx::array::Result;
use crate::mlx::config::Experts;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// The experts, and the norms of both.
#[derive(Debug)]
pub struct ExpertsBeside {
    experts: ExpertMlp,
    router_norm: RmsNorm,
    input_norm: RmsNorm,
    norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl ExpertsBeside {
    /// Those of the layer at `path`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        experts: &Experts,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = source.config.hidden;
        let experts = ExpertMlp::load(mx, source, path, experts)?;
        let (scale, root) = (format!("{path}.router.scale"), (hidden as f32).powf(-0.5));
        let router_norm = RmsNorm::scaled(mx, source, &scale, hidden, root)?;
        let mut norm = |name| RmsNorm::load(mx, source, &format!("{path}.{name}"), hidden, Offset::Zero);
        Ok(Self {
            experts,
            router_norm,
            input_norm: norm("pre_feedforward_layernorm_2")?,
            norm: norm("post_feedforward_layernorm_2")?,
            mlp_norm: norm("post_feedforward_layernorm_1")?,
        })
    }

    /// What the MLP gave, and what the experts make of the stream `x`: `[n, hidden]` all.
    pub fn add(&self, mx: &Mlx, fed: &Array, x: &Array) -> Result<Array> {
        let (seen, input) = (self.router_norm.forward(mx, x)?, self.input_norm.forward(mx, x)?);
        let routed = self.norm.forward(mx, &self.experts.forward_by(mx, &seen, &input)?)?;
        self.mlp_norm.forward_add(mx, fed, &routed)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let norms = [&self.router_norm, &self.input_norm, &self.norm, &self.mlp_norm];
        self.experts.arrays().into_iter().chain(norms.into_iter().flat_map(RmsNorm::arrays))
    }
}
