//! Qwen 2 and 2.5, dense: Llama's layers with biases on queries, keys and values.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{AttentionBias, Defaults, ModelConfig, Windows, masks, rotation};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["qwen2"], states: &[State::Full], config, load: PreNorm::load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults { context: 32_768, ..Defaults::default() }.read(fields)?;
    fields.refuse_true("use_sliding_window", "false")?;
    config.attention_bias = AttentionBias::Inputs;
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 1_000_000.0, config.context_tokens, None)?;
    Ok(config)
}
