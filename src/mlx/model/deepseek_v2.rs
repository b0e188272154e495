//! DeepSeek V2 Lite and Coder V2 Lite: attention over latents, which are what is cached, a dense layer, then experts beside one that
//! every token goes to. mlx-lm caches the keys and values that the latents stand for.

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{
    AttentionBias, Defaults, Experts, Head, Latent, ModelConfig, Routing, Windows, masks, rotation,
};
use crate::mlx::cpu::rotate::Pairs;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::rope::Scaling;

/// Its entry in the registry.
pub const FAMILY: Family = Family { model_types: &["deepseek_v2"], states: &[State::Latent], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let turned = fields.count("qk_rope_head_dim")?.unwrap_or(64);
    let mut config = Defaults::default().read(fields)?;
    // One latent and one turned key a token, for all heads.
    (config.kv_heads, config.head_dim) = (1, turned);
    config.head = Head::Separate;
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::All;
    }
    let latent = Latent {
        // Absent is not null, which says that there is none.
        query_rank: if fields.0.get("q_lora_rank").is_some() {
            fields.count("q_lora_rank")?
        } else {
            Some(1536)
        },
        rank: fields.count("kv_lora_rank")?.unwrap_or(512),
        key_dim: fields.count("qk_nope_head_dim")?.unwrap_or(128),
        value_dim: fields.count("v_head_dim")?.unwrap_or(128),
    };
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    config.rope = rotation(fields, turned, 10_000.0, config.context_tokens, None)?;
    config.rope.pairs = Pairs::Neighbours;
    let louder = match &config.rope.scaling {
        Scaling::Yarn(yarn) => yarn.strength(yarn.mscale_all_dim),
        _ => 1.0,
    };
    config.attention_scale = (((latent.key_dim + turned) as f64).powf(-0.5) * louder * louder) as f32;
    config.latent = Some(latent);
    let Some(count) = fields.count("n_routed_experts")? else { return Ok(config) };
    let greedy = |found: &str| matches!(found, "greedy" | "gready");
    if let Some(found) = fields.text("topk_method")?.filter(|found| !greedy(found)) {
        let (key, found) = ("topk_method", found.to_owned());
        return Err(LoadError::Unsupported { key, found, expected: "greedy, as the Lite models have it" });
    }
    let factor = fields.number("routed_scaling_factor")?.unwrap_or(1.0);
    if (factor - 1.0).abs() > f64::EPSILON {
        let (key, found) = ("routed_scaling_factor", factor.to_string());
        return Err(LoadError::Unsupported { key, found, expected: "1" });
    }
    fields.refuse_true("norm_topk_prob", "false")?;
    let dense = fields.count("first_k_dense_replace")?.unwrap_or(0);
    let every = fields.count("moe_layer_freq")?.unwrap_or(1);
    if every == 0 {
        return Err(LoadError::Config("moe_layer_freq is 0, expected at least 1".into()));
    }
    let width = fields.need("moe_intermediate_size")?;
    let sparse = |layer: usize| layer >= dense && layer.is_multiple_of(every);
    config.experts = Some(Experts {
        count,
        chosen: fields.need("num_experts_per_tok")?,
        width,
        routing: Routing::SoftmaxThenTop { normalized: false },
        layers: (0..config.masks.len()).map(sparse).collect(),
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
    let count = source.config.experts.as_ref().map_or(0, |experts| experts.count);
    source.weights.stack_experts(mx, source.config.masks.len(), count)?;
    PreNorm::load(mx, source)
}
