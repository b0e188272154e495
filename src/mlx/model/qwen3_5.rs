//! Qwen3.5, 3.6 and 3.8, text: in three of four layers the gated delta rule, in every fourth attention whose result is gated;
//! a quarter of each head turned.
//!
//! Hugging Face stores norm weights as their distance from 1. mlx-lm adds the 1 in the file's type, we in f32 as
//! transformers does. Which form a file has shows in the shape of its convolutions.

use mlx_rs::{Array, Dtype};
use serde_json::Value;

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{AttentionBias, Defaults, ModelConfig, Recurrent, Rule, layer_count, rotation};
use crate::mlx::cpu::scan::StateShape;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::mask::Mask;
use crate::mlx::weights::Weights;

/// Its entry in the registry. `qwen3_5` has a vision tower, which is left out.
pub const FAMILY: Family = Family {
    model_types: &["qwen3_5", "qwen3_5_text"],
    states: &[State::Full, State::Recurrent],
    config: |fields| config(text(fields), None),
    load,
};

/// The text model's part of a configuration.
pub fn text(fields: Fields<'_>) -> Fields<'_> {
    fields.0.get("text_config").filter(|text| text.is_object()).map_or(fields, Fields)
}

/// What all of the kind have in common, MLPs `intermediate` wide where the file does not say. A quarter of each head turns
/// unless it says otherwise.
pub fn config(fields: Fields<'_>, intermediate: Option<usize>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults { intermediate, context: 131_072, ..Defaults::default() }.read(fields)?;
    if fields.flag("attn_output_gate")? == Some(false) {
        let (key, found) = ("attn_output_gate", "false".into());
        return Err(LoadError::Unsupported { key, found, expected: "true" });
    }
    config.head_norms = true;
    config.attention_gate = true;
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::All;
    }
    config.rope = rotation(fields, config.head_dim, 100_000.0, config.context_tokens, None)?;
    let parameters = fields.0.get("rope_parameters").map(Fields);
    let nested = parameters.map(|fields| fields.number("partial_rotary_factor")).transpose()?.flatten();
    if nested.or(fields.number("partial_rotary_factor")?).is_none() {
        config.rope.dims = config.head_dim / 4;
    }
    let delta = StateShape {
        key_heads: fields.need("linear_num_key_heads")?,
        value_heads: fields.need("linear_num_value_heads")?,
        key_dim: fields.need("linear_key_head_dim")?,
        value_dim: fields.need("linear_value_head_dim")?,
    };
    let taps = fields.count("linear_conv_kernel_dim")?.unwrap_or(4);
    let layers = layers(fields, "linear_attention")?;
    config.masks = layers.iter().filter(|recurrent| !**recurrent).map(|_| Mask::Causal).collect();
    config.recurrent = Some(Recurrent { layers, taps, width: delta.width(), rule: Rule::Delta(delta) });
    Ok(config)
}

/// Layer by layer, whether it is recurrent: by `layer_types` where given, which call it so, else all but every so many.
pub fn layers(fields: Fields<'_>, recurrent: &'static str) -> Result<Vec<bool>, LoadError> {
    let count = layer_count(fields, None)?;
    let Some(kinds) = fields.0.get("layer_types").and_then(Value::as_array) else {
        let interval = fields.count("full_attention_interval")?.unwrap_or(4);
        if interval == 0 {
            return Err(LoadError::Config("full_attention_interval is 0, expected at least 1".into()));
        }
        return Ok((1..=count).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    if kinds.len() != count {
        return Err(LoadError::Config(format!("{} layer_types for {count} layers", kinds.len())));
    }
    let kind = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some(kind) if kind == recurrent => Ok(true),
        _ => Err(LoadError::Unsupported {
            key: "layer_types",
            found: kind.to_string(),
            expected: if recurrent == "conv" {
                "conv, full_attention"
            } else {
                "linear_attention, full_attention"
            },
        }),
    };
    kinds.iter().map(kind).collect()
}

/// Makes a convolution's weight `[width, taps]`. True when the taps came last, as Hugging Face stores them.
pub fn flatten_kernel(weights: &mut Weights, name: String, recurrent: &Recurrent) -> Result<bool, LoadError> {
    let Some(kernel) = weights.remove(&name) else { return Ok(false) };
    let flat = [recurrent.width as i32, recurrent.taps as i32];
    let found = kernel.shape();
    if found.len() != 3 || found[0] != flat[0] || found[1] * found[2] != flat[1] {
        let [width, taps] = flat;
        return Err(LoadError::Weights(format!(
            "{name} has shape {found:?}, expected {width} kernels of {taps}"
        )));
    }
    let taps_last = found[2] != 1;
    weights.insert(name, kernel.reshape(&flat)?);
    Ok(taps_last)
}

/// Brings the tensors into MLX's form and takes them.
pub fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    // Layers that guess further tokens.
    weights.discard_all("mtp.");
    weights.discard_all("model.mtp.");
    let Some(recurrent) = &config.recurrent else { return PreNorm::load(mx, source) };
    let mut as_distance = false;
    for layer in recurrent.numbers() {
        let name = format!("model.layers.{layer}.linear_attn.conv1d.weight");
        as_distance |= flatten_kernel(weights, name, recurrent)?;
    }
    if as_distance {
        let norms = ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"];
        let of_layer = |layer| norms.map(|norm| format!("model.layers.{layer}.{norm}.weight"));
        for name in (0..config.layers()).flat_map(of_layer).chain(["model.norm.weight".into()]) {
            if let Some(weight) = weights.remove(&name) {
                weights.insert(name, weight.as_dtype(Dtype::Float32)?.add(Array::from_f32(1.0))?);
            }
        }
    }
    PreNorm::load(mx, source)
}
