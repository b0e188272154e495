//! Llama 2 and 3, and what is built like them: pre-norm layers, rotary positions stretched by any rule but dynamic NTK,
//! biases and window layers where configured.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{AttentionBias, Defaults, ModelConfig, Windows, masks, rotation};
use crate::mlx::cpu::rotate::Pairs;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["llama"], states: &[State::Full, State::Window], config, load: PreNorm::load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::All;
    }
    config.mlp_bias = fields.flag("mlp_bias")?.unwrap_or(false);
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 10_000.0, config.context_tokens, None)?;
    if fields.flag("rope_traditional")?.unwrap_or(false) {
        config.rope.pairs = Pairs::Neighbours;
    }
    Ok(config)
}
