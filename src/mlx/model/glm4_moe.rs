//! GLM 4.5 and 4.6: Llama's attention with half of each head turned, a few dense layers, then experts chosen by groups beside
//! one that every token goes to.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{
    AttentionBias, Defaults, Head, ModelConfig, RoutedExperts, Router, Windows, masks, rotation,
};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["glm4_moe"], states: &[State::Full], config, load: PreNorm::load_with_experts };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    config.head = Head::Separate;
    config.head_norms = fields.flag("use_qk_norm")?.unwrap_or(false);
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::Inputs;
    }
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 10_000.0, config.context_tokens, None)?;
    for key in ["n_routed_experts", "first_k_dense_replace"] {
        fields.need(key)?;
    }
    let (layers, router) = (config.masks.len(), Router { normalized: false, factor: 1.0 });
    config.experts = RoutedExperts::default().read(fields, layers, |sizes| router.read(fields, sizes))?;
    Ok(config)
}
