//! GLM 4.7 Flash: DeepSeek V3's attention over latents and its experts, with GLM's sizes where a file does not say.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{Defaults, Head, Latents, ModelConfig, RoutedExperts, Router, Windows, masks};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family = Family {
    model_types: &["glm4_moe_lite"],
    states: &[State::Latent],
    config,
    load: PreNorm::load_with_experts,
};

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let defaults = Defaults {
        hidden: Some(2048),
        intermediate: Some(10_240),
        heads: Some(20),
        vocab: Some(154_880),
        context: 202_752,
        ..Defaults::default()
    };
    let mut config = defaults.read(fields)?;
    config.norm_eps = fields.number("rms_norm_eps")?.unwrap_or(1e-5) as f32;
    config.head = Head::Separate;
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    let latents = Latents {
        query_rank: 768,
        key_dim: 192,
        value_dim: 256,
        base: 1_000_000.0,
        norm_eps: None,
        ..Latents::default()
    };
    latents.read(fields, &mut config)?;
    let router = Router { normalized: true, factor: 1.8 };
    let experts =
        RoutedExperts { count: Some(64), chosen: Some(4), width: Some(1536), shared: Some(1), dense: 1 };
    config.experts = experts.read(fields, config.masks.len(), |sizes| router.read(fields, sizes))?;
    Ok(config)
}
