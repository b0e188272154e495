//! GLM 4.5 and 4.6: Llama's attention with half of each head turned, a few dense layers, then experts chosen by groups beside
//! one that every token goes to.

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{
    AttentionBias, Defaults, Experts, Groups, Head, ModelConfig, Routing, Windows, masks, rotation,
};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;

/// Its entry in the registry.
pub const FAMILY: Family = Family { model_types: &["glm4_moe"], states: &[State::Full], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    for (key, expected) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        let found = fields.text(key)?.unwrap_or(expected);
        if found != expected {
            return Err(LoadError::Unsupported { key, found: found.to_owned(), expected });
        }
    }
    config.head = Head::Separate;
    config.head_norms = fields.flag("use_qk_norm")?.unwrap_or(false);
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::Inputs;
    }
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 10_000.0, config.context_tokens, None)?;
    let count = fields.need("n_routed_experts")?;
    let dense = fields.need("first_k_dense_replace")?;
    let width = fields.need("moe_intermediate_size")?;
    let groups = Groups { count: fields.need("n_group")?, chosen: fields.need("topk_group")? };
    config.experts = Some(Experts {
        count,
        chosen: fields.need("num_experts_per_tok")?,
        width,
        routing: Routing::Sigmoid {
            groups: groups.check(count)?,
            normalized: fields.flag("norm_topk_prob")?.unwrap_or(false),
            factor: fields.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
        },
        layers: (0..config.masks.len()).map(|layer| layer >= dense).collect(),
        module: "mlp.switch_mlp",
        router: "mlp.gate",
        bias: false,
        scales: None,
        shared: fields.count("n_shared_experts")?.map(|shared| ("mlp.shared_experts", shared * width)),
        shared_gate: None,
    });
    Ok(config)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let layers = source.config.masks.len();
    source.weights.stack_experts(
        mx,
        layers,
        source.config.experts.as_ref().map_or(0, |experts| experts.count),
    )?;
    // A layer that guesses further tokens, behind the others.
    source.weights.discard_all(&format!("model.layers.{layers}."));
    PreNorm::load(mx, source)
}
