//! Qwen3-Next and Qwen3-Coder-Next: Qwen3.5's layers with experts, whose projections lie together by key heads.

use super::{Family, Model, State, qwen3_5, qwen3_5_moe};
use crate::mlx::config::{ModelConfig, Recurrent, Rule};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["qwen3_next"], states: &[State::Full, State::Recurrent], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = qwen3_5::config(fields, None)?;
    let (count, step) = (fields.need("num_experts")?, fields.count("decoder_sparse_step")?.unwrap_or(1));
    if step == 0 {
        return Err(LoadError::Config("decoder_sparse_step is 0, expected at least 1".into()));
    }
    let dense = fields.counts("mlp_only_layers")?.unwrap_or_default();
    let sparse = |layer: usize| !dense.contains(&layer) && (layer + 1).is_multiple_of(step);
    if count > 0 {
        let layers = (0..config.layers()).map(sparse).collect();
        config.experts = Some(qwen3_5_moe::experts(fields, layers, false)?);
    }
    Ok(config)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    let count = config.experts.as_ref().map_or(0, |experts| experts.count);
    weights.stack_experts(mx, config.layers(), count)?;
    let Some(Recurrent { rule: Rule::Delta(delta), .. }) = &config.recurrent else {
        return qwen3_5::load(mx, source);
    };
    for layer in config.recurrent.iter().flat_map(Recurrent::numbers) {
        let (heads, path) = (delta.key_heads, format!("model.layers.{layer}.linear_attn"));
        let each = delta.value_heads / heads;
        let values = each * delta.value_dim;
        let parts = [
            ("in_proj_q", delta.key_dim),
            ("in_proj_k", delta.key_dim),
            ("in_proj_v", values),
            ("in_proj_z", values),
        ];
        weights.split_heads(mx, &path, "in_proj_qkvz", heads, &parts)?;
        weights.join(mx, &path, &["in_proj_q", "in_proj_k", "in_proj_v"], "in_proj_qkv")?;
        weights.split_heads(mx, &path, "in_proj_ba", heads, &[("in_proj_b", each), ("in_proj_a", each)])?;
    }
    qwen3_5::load(mx, source)
}
