//! Nemotron-H, Nano 2 and Nemotron 3: layers of one part each, `x + part(norm x)`: Mamba 2, attention that knows no positions, MLPs of
//! squared ReLU, or experts.

use serde_json::Value;

use super::prenorm::PreNorm;
use super::qwen3_5::flatten_kernel;
use super::{Family, Model, State};
use crate::mlx::config::{
    AttentionBias, Defaults, Experts, Head, LayerPart, Mamba, ModelConfig, Recurrent, RoutedExperts, Router,
    Rule,
};
use crate::mlx::cpu::activation::Activation;
use crate::mlx::cpu::scan::StateShape;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::mask::Mask;
use crate::mlx::rope::RopeConfig;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["nemotron_h"], states: &[State::Full, State::Recurrent], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let activation = (Activation::Relu, "relu2");
    let mut config = Defaults { activation, context: 4096, ..Defaults::default() }.read(fields)?;
    fields.refuse_other("mlp_hidden_act", "relu2")?;
    fields.refuse_other("mamba_hidden_act", "silu")?;
    config.norm_eps = fields.number("layer_norm_epsilon")?.unwrap_or(1e-5) as f32;
    config.head = Head::Separate;
    config.rope = RopeConfig::still(config.head_dim);
    config.mlp_squares = true;
    config.mlp_bias = fields.flag("mlp_bias")?.unwrap_or(false);
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention_bias = AttentionBias::All;
    }
    config.parts = parts(fields)?;
    let is = |part| config.parts.iter().map(move |own| *own == part);
    config.masks = is(LayerPart::Attention).filter(|own| *own).map(|_| Mask::Causal).collect();
    let layers: Vec<bool> = is(LayerPart::Recurrent).collect();
    if !layers.contains(&true) {
        return Err(LoadError::Config("no layer of Mamba, expected at least one".into()));
    }
    let shape = StateShape {
        key_heads: fields.need("n_groups")?,
        value_heads: fields.need("mamba_num_heads")?,
        key_dim: fields.need("ssm_state_size")?,
        value_dim: fields.need("mamba_head_dim")?,
    };
    let mamba = Mamba {
        shape,
        bounds: bounds(fields)?,
        conv_bias: fields.flag("use_conv_bias")?.unwrap_or(true),
        bias: fields.flag("mamba_proj_bias")?.unwrap_or(false),
    };
    let (taps, rule) = (fields.need("conv_kernel")?, Rule::Mamba(mamba));
    config.recurrent = Some(Recurrent { layers, taps, width: shape.width(), rule });
    let sparse: Vec<bool> = is(LayerPart::Experts).collect();
    if sparse.contains(&true) {
        let router = Router { normalized: true, factor: 1.0 };
        let experts = RoutedExperts::default()
            .read(fields, sparse.len(), |sizes| router.read(fields, sizes))?
            .ok_or_else(|| LoadError::Config("n_routed_experts is missing".into()))?;
        let shared = fields.count("moe_shared_expert_intermediate_size")?;
        config.experts = Some(Experts {
            layers: sparse,
            shared: experts.shared.map(|(module, width)| (module, shared.unwrap_or(width))),
            narrow: fields
                .count("moe_latent_size")?
                .map(|width| (["mlp.fc1_latent_proj", "mlp.fc2_latent_proj"], width)),
            ..experts
        });
    }
    Ok(config)
}

/// Layer by layer, by a letter each or by words.
fn parts(fields: Fields<'_>) -> Result<Vec<LayerPart>, LoadError> {
    let keys = ["hybrid_override_pattern", "layers_block_type", "layer_types"];
    let found = keys
        .into_iter()
        .find_map(|key| fields.0.get(key).filter(|value| !value.is_null()).map(|value| (key, value)));
    let (key, found) = found.ok_or_else(|| LoadError::Config("hybrid_override_pattern is missing".into()))?;
    let names: Vec<String> = match found {
        Value::String(letters) => letters.chars().map(String::from).collect(),
        _ => found
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap_or_default().into())
            .collect(),
    };
    let part = |name: &String| match name.as_str() {
        "M" | "mamba" | "linear_attention" => Ok(LayerPart::Recurrent),
        "*" | "attention" | "full_attention" => Ok(LayerPart::Attention),
        "-" | "mlp" => Ok(LayerPart::Dense),
        "E" | "moe" => Ok(LayerPart::Experts),
        other => Err(LoadError::Unsupported { key, found: other.to_owned(), expected: "M, *, - and E" }),
    };
    names.iter().map(part).collect()
}

/// The least and the longest step; none where the file does not say.
fn bounds(fields: Fields<'_>) -> Result<[f32; 2], LoadError> {
    let Some(limits) = fields.0.get("time_step_limit").filter(|limits| !limits.is_null()) else {
        return Ok([0.0, f32::INFINITY]);
    };
    // What JSON has no number for is a text, in newer files within an object.
    let word =
        |value: &Value| value.get("__float__").unwrap_or(value).as_str().and_then(|word| word.parse().ok());
    let number = |value: &Value| value.as_f64().or_else(|| word(value)).map(|number| number as f32);
    match limits.as_array().map(Vec::as_slice) {
        Some([least, longest]) => {
            number(least).zip(number(longest)).filter(|(least, longest)| least <= longest)
        }
        _ => None,
    }
    .map(|(least, longest)| [least, longest])
    .ok_or_else(|| {
        LoadError::Config(format!("time_step_limit is {limits}, expected two numbers, the lesser first"))
    })
}

/// Brings the tensors into the names of other families and takes them.
fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    weights.discard_all("mtp.");
    weights.rename("backbone.embeddings", "model.embed_tokens");
    weights.rename("backbone.norm_f", "model.norm");
    for (layer, part) in config.parts.iter().enumerate() {
        let (own, usual) = (format!("backbone.layers.{layer}"), format!("model.layers.{layer}"));
        let module = match part {
            LayerPart::Attention => "self_attn",
            LayerPart::Recurrent => "linear_attn",
            LayerPart::Dense | LayerPart::Experts => "mlp",
        };
        weights.rename(&format!("{own}.norm"), &format!("{usual}.input_layernorm"));
        let mixer = format!("{usual}.{module}");
        weights.rename(&format!("{own}.mixer"), &mixer);
        if let (LayerPart::Recurrent, Some(recurrent)) = (part, &config.recurrent) {
            flatten_kernel(weights, format!("{mixer}.conv1d.weight"), recurrent)?;
        }
        if let (LayerPart::Experts, Some(experts)) = (part, &config.experts) {
            weights.stack_experts_of(mx, &mixer, experts.count)?;
            for (own, usual) in [("fc1", "up_proj"), ("fc2", "down_proj")] {
                let name = |matrix| format!("{mixer}.switch_mlp.{matrix}");
                weights.rename(&name(own), &name(usual));
            }
        }
    }
    PreNorm::load(mx, source)
}
