//! LFM2 and 2.5: in most layers a gated convolution of three tokens, in the others attention with norms on heads. Its names
//! are brought into those of other families.

use super::prenorm::PreNorm;
use super::qwen3_5::{flatten_kernel, layers};
use super::{Family, Model, State};
use crate::mlx::config::{Defaults, Head, ModelConfig, Recurrent, Rule, base_of, layer_count, rotation};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::mask::Mask;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["lfm2"], states: &[State::Full, State::Recurrent], config, load };

/// What modules of a layer are called here and elsewhere.
const NAMES: [(&str, &str); 8] = [
    ("operator_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("feed_forward.w1", "mlp.gate_proj"),
    ("feed_forward.w3", "mlp.up_proj"),
    ("feed_forward.w2", "mlp.down_proj"),
    ("self_attn.out_proj", "self_attn.o_proj"),
    ("self_attn.q_layernorm", "self_attn.q_norm"),
    ("self_attn.k_layernorm", "self_attn.k_norm"),
];

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let inner = intermediate(fields)?;
    let mut config =
        Defaults { intermediate: Some(inner), context: 128_000, ..Defaults::default() }.read(fields)?;
    // `intermediate_size` may be there as well, before it is adjusted.
    config.intermediate = inner;
    fields.refuse_true("conv_bias", "false")?;
    config.norm_eps = fields.number("norm_eps")?.unwrap_or(1e-5) as f32;
    config.head = Head::Tied;
    config.head_norms = true;
    let base = base_of(fields)?.unwrap_or(1_000_000.0);
    config.rope = rotation(fields, config.head_dim, base, config.context_tokens, None)?;
    let layers = match fields.counts("full_attn_idxs")? {
        Some(full) => (0..layer_count(fields, None)?).map(|layer| !full.contains(&layer)).collect(),
        None => layers(fields, "conv")?,
    };
    config.masks = layers.iter().filter(|recurrent| !**recurrent).map(|_| Mask::Causal).collect();
    let taps = fields.need("conv_L_cache")?;
    config.recurrent = Some(Recurrent { layers, taps, width: config.hidden, rule: Rule::Gate });
    Ok(config)
}

/// Width inside the MLP: two thirds of what the file says, times a factor, in whole multiples, where it is to be adjusted.
fn intermediate(fields: Fields<'_>) -> Result<usize, LoadError> {
    let given = fields.count("block_ff_dim")?.or(fields.count("intermediate_size")?);
    let given = given.ok_or_else(|| LoadError::Config("block_ff_dim is missing".into()))?;
    if !fields.flag("block_auto_adjust_ff_dim")?.unwrap_or(true) {
        return Ok(given);
    }
    let factor = fields.number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    let multiple = fields.count("block_multiple_of")?.unwrap_or(256);
    if multiple == 0 || factor <= 0.0 {
        return Err(LoadError::Config(format!(
            "block_multiple_of is {multiple} and block_ffn_dim_multiplier {factor}, expected more than 0"
        )));
    }
    let adjusted = (2 * given) as f64 / 3.0;
    Ok(((factor * adjusted.floor()) as usize).next_multiple_of(multiple))
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    weights.rename("model.embedding_norm", "model.norm");
    for layer in 0..config.layers() {
        for (own, usual) in NAMES {
            let name = |module| format!("model.layers.{layer}.{module}");
            weights.rename(&name(own), &name(usual));
        }
    }
    if let Some(recurrent) = &config.recurrent {
        for layer in recurrent.numbers() {
            flatten_kernel(weights, format!("model.layers.{layer}.conv.conv.weight"), recurrent)?;
        }
    }
    PreNorm::load(mx, source)
}
