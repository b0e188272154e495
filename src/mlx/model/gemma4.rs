//! Gemma 4, text: window and full layers with heads and a rotation each, norms before and after both blocks, values normalized.
//! Small models have vectors of each token for each layer, and last layers that read the keys and values of earlier ones; in
//! large ones full layers derive values and keys from one projection, and some have experts beside the MLP.
//!
//! The embedding's scale is rounded to bf16, as in training. mlx-lm does so with activations in bf16, not in f32.

use serde_json::json;

use super::sandwich::{Parts, Sandwich};
use super::{Family, Model, State};
use crate::mlx::config::{
    Defaults, Experts, ModelConfig, PerLayer, Routing, Windows, masks, rotation, shared,
};
use crate::mlx::cpu::activation::Activation;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::Vectors;
use crate::mlx::layer::{Offset, Source};
use crate::mlx::mask::Mask;
use crate::mlx::rope::RopeConfig;

/// Its entry in the registry. All but the last have towers for images and sound, which are left out.
pub const FAMILY: Family = Family {
    model_types: &["gemma4", "gemma4_unified", "gemma4_text"],
    states: &[State::Full, State::Window],
    config,
    load,
};

const EXPERTS: &str = "experts.switch_glu";

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let vocab = fields.count("vocab_size")?.or(Some(262_144));
    let text = match fields.text("model_type")? {
        Some("gemma4_text") => Some(fields.0),
        _ => fields.0.get("text_config").filter(|text| text.is_object()),
    };
    let text = text.ok_or_else(|| LoadError::Config("text_config is missing, expected an object".into()))?;
    text_config(Fields(text), vocab)
}

fn text_config(fields: Fields<'_>, vocab: Option<usize>) -> Result<ModelConfig, LoadError> {
    let defaults = Defaults {
        hidden: Some(1536),
        intermediate: Some(6144),
        heads: Some(8),
        kv_heads: Some(1),
        head_dim: Some(256),
        vocab,
        context: 131_072,
        activation: (Activation::GeluTanh, "gelu_pytorch_tanh"),
    };
    let mut config = defaults.read(fields)?;
    fields.refuse_true("attention_bias", "false")?;
    if let Some(found) = fields.text("use_bidirectional_attention")?.filter(|found| *found != "vision") {
        let (key, found) = ("use_bidirectional_attention", found.to_owned());
        return Err(LoadError::Unsupported { key, found, expected: "null, vision" });
    }
    config.attention_scale = 1.0;
    config.logit_cap = match fields.0.get("final_logit_softcapping") {
        None => Some(30.0),
        Some(_) => fields.number("final_logit_softcapping")?.map(|cap| cap as f32),
    };
    let period = fields.count("sliding_window_pattern")?.unwrap_or(5);
    // Layers of the two kinds differ in more than their mask: one whose window is never full stays what it is.
    config.masks = masks(fields, Windows::Period { period, window: 512, layers: Some(35) }, usize::MAX)?;
    config.values_of_keys = fields.flag("attention_k_eq_v")?.unwrap_or(false);
    let full_heads = fields.count("num_global_key_value_heads")?.filter(|_| config.values_of_keys);
    config.full_vectors = Some(Vectors {
        heads: full_heads.unwrap_or(config.kv_heads),
        width: fields.count("global_head_dim")?.filter(|width| *width > 0).unwrap_or(512),
    });
    config.shared = shared(&config.masks, fields.count("num_kv_shared_layers")?.unwrap_or(20))?;
    config.wide_shared = fields.flag("use_double_wide_mlp")?.unwrap_or(true);
    config.rope = rope(fields, &config, "full_attention")?;
    config.window_rope = rope(fields, &config, "sliding_attention")?;
    let width = fields.count("hidden_size_per_layer_input")?.unwrap_or(256);
    let vocab = fields.count("vocab_size_per_layer_input")?.unwrap_or(262_144);
    config.per_layer = (width > 0).then_some(PerLayer { vocab, width });
    if fields.flag("enable_moe_block")?.unwrap_or(false) {
        config.experts = Some(Experts {
            count: fields.need("num_experts")?,
            chosen: fields.need("top_k_experts")?,
            width: fields.need("moe_intermediate_size")?,
            routing: Routing::TopThenSoftmax,
            layers: vec![true; config.masks.len()],
            module: EXPERTS,
            router: "router.proj",
            bias: false,
            scales: Some("router.per_expert_scale"),
            shared: None,
            shared_gate: None,
            narrow: None,
        });
    }
    Ok(config)
}

/// The rotation of layers of one kind, as `rope_parameters` has it for these alone.
fn rope(fields: Fields<'_>, config: &ModelConfig, kind: &str) -> Result<RopeConfig, LoadError> {
    let (width, own) = match kind {
        "full_attention" => (
            config.vectors(Mask::Causal).width,
            json!({"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}),
        ),
        _ => (config.head_dim, json!({"rope_type": "default"})),
    };
    let given = fields.0.get("rope_parameters").filter(|given| !given.is_null());
    let given = given.map_or(own, |given| given.get(kind).cloned().unwrap_or_default());
    rotation(Fields(&json!({"rope_parameters": given})), width, 10_000.0, config.context_tokens, None)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    let width = config.experts.as_ref().map_or(0, |experts| experts.width);
    for layer in 0..config.masks.len() {
        let path = format!("model.layers.{layer}");
        weights.split_experts(mx, &format!("{path}.experts"), &format!("{path}.{EXPERTS}"), width)?;
    }
    for layer in config.own_masks().len()..config.masks.len() {
        // Files have projections of layers that share as well, which nobody uses.
        for unused in ["k_proj.", "v_proj.", "k_norm."] {
            weights.discard_all(&format!("model.layers.{layer}.self_attn.{unused}"));
        }
    }
    Sandwich::load(mx, source, Parts { offset: Offset::Zero, value_norms: true, scalars: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_leaves_out_is_that_of_e2b() {
        let config =
            config(Fields(&json!({"model_type": "gemma4", "text_config": {}}))).unwrap().check().unwrap();
        assert_eq!((config.masks.len(), config.own_masks().len(), config.vocab), (35, 15, 262_144));
        let full = |layer: usize| (layer + 1).is_multiple_of(5);
        for (layer, mask) in config.masks.iter().enumerate() {
            assert_eq!(mask.window(), if full(layer) { None } else { Some(512) }, "layer {layer}");
        }
        for (behind, kept) in config.shared.iter().enumerate() {
            assert_eq!(*kept, if full(15 + behind) { 14 } else { 13 });
        }
        assert_eq!((config.logit_cap, config.per_layer.map(|own| own.width)), (Some(30.0), Some(256)));
        // Pairs of elements that lie half a head apart, of which a quarter turns.
        let waves = config.rope.wavelengths();
        assert_eq!((config.rope.dims, waves.len()), (512, 256));
        assert!(
            (waves[63] - 1e6_f32.powf(126.0 / 512.0)).abs() < 1e-3
                && waves[64..].iter().all(|w| w.is_infinite())
        );
        assert_eq!((config.window_rope.dims, config.window_rope.base), (256, 10_000.0));
    }

    #[test]
    fn full_layers_of_large_models_have_heads_of_their_own() {
        let text = json!({
            "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2, "num_hidden_layers": 30,
            "num_kv_shared_layers": 0, "attention_k_eq_v": true, "hidden_size_per_layer_input": 0, "sliding_window": 200_000,
        });
        let config =
            config(Fields(&json!({"model_type": "gemma4", "text_config": text}))).unwrap().check().unwrap();
        // The window is longer than the context, and its layers stay what they are.
        let vectors = [0, 4].map(|layer: usize| config.vectors(config.masks[layer]));
        assert_eq!(vectors, [Vectors { heads: 8, width: 256 }, Vectors { heads: 2, width: 512 }]);
    }
}
