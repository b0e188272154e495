//! Phi 3 and 4: Llama's layers whose projections are stored as one matrix, partial rotation, and LongRoPE. A
//! `sliding_window` within the context is every layer's, as in transformers (mlx-lm computes full attention there).

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{Defaults, ModelConfig, Windows, masks, rotation};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::rope::Scaling;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["phi3"], states: &[State::Full, State::Window], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults { context: 131_072, ..Defaults::default() }.read(fields)?;
    config.masks = masks(fields, Windows::AllIfSet, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 10_000.0, config.context_tokens, None)?;
    match config.rope.scaling {
        Scaling::None | Scaling::Linear { .. } | Scaling::LongRope(_) => Ok(config),
        _ => Err(LoadError::Unsupported {
            key: "rope_scaling",
            found: fields.0["rope_scaling"].to_string(),
            expected: "types linear, longrope, su in this family",
        }),
    }
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let config = source.config;
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    for i in 0..config.masks.len() {
        let attention = format!("model.layers.{i}.self_attn");
        let parts = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        source.weights.split(mx, &attention, "qkv_proj", &parts)?;
        let mlp = format!("model.layers.{i}.mlp");
        let parts = [("gate_proj", config.intermediate), ("up_proj", config.intermediate)];
        source.weights.split(mx, &mlp, "gate_up_proj", &parts)?;
    }
    PreNorm::load(mx, source)
}
