//! Qwen3, dense: Llama's layers with norms on query and key heads.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{AttentionBias, Defaults, ModelConfig, Windows, base_of, masks, rotation};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["qwen3"], states: &[State::Full], config, load: PreNorm::load };

/// What dense and sparse models have in common.
pub fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    fields.refuse_true("use_sliding_window", "false")?;
    config.head_norms = true;
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::All;
    }
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    let base = base_of(fields)?.ok_or_else(|| LoadError::Config("rope_theta is missing".into()))?;
    config.rope = rotation(fields, config.head_dim, base, config.context_tokens, None)?;
    Ok(config)
}
