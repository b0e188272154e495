//! Gemma 3, text: window and full layers with a rotation each, norms before and after both blocks, and norm weights
//! stored as their distance from 1.

use super::sandwich::{Parts, Sandwich};
use super::{Family, Model, State};
use crate::mlx::config::{Defaults, Head, ModelConfig, Windows, masks, parse_scaling, rotation};
use crate::mlx::cpu::activation::Activation;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::{Offset, Source};
use crate::mlx::rope::RopeConfig;

/// Its entry in the registry. `gemma3` has a vision tower, which is left out.
pub const FAMILY: Family =
    Family { model_types: &["gemma3_text", "gemma3"], states: &[State::Full, State::Window], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let base = Defaults {
        hidden: Some(1152),
        intermediate: Some(6912),
        heads: Some(4),
        kv_heads: Some(1),
        head_dim: Some(256),
        vocab: Some(262_144),
        context: 32_768,
        activation: (Activation::GeluTanh, "gelu_pytorch_tanh"),
    };
    if fields.text("model_type")? == Some("gemma3_text") {
        return text_config(fields, &base);
    }
    let Some(text) = fields.0.get("text_config").filter(|text| text.is_object()) else {
        return Err(LoadError::Config("model_type gemma3 without an object text_config".into()));
    };
    let vocab = fields.count("vocab_size")?.or(Some(262_208));
    text_config(Fields(text), &Defaults { heads: Some(8), kv_heads: Some(4), vocab, ..base })
}

fn text_config(fields: Fields<'_>, defaults: &Defaults) -> Result<ModelConfig, LoadError> {
    let mut config = defaults.read(fields)?;
    fields.refuse_set("attn_logit_softcapping")?;
    fields.refuse_set("final_logit_softcapping")?;
    fields.refuse_true("use_bidirectional_attention", "false")?;
    config.head = Head::AsStored;
    let scalar = fields.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    config.attention_scale = scalar.powf(-0.5) as f32;
    let period =
        fields.count("sliding_window_pattern")?.or(fields.count("_sliding_window_pattern")?).unwrap_or(6);
    let windows = Windows::Period { period, window: 512, layers: Some(26) };
    // Layers of the two kinds differ in more than their mask: one whose window is never full stays what it is.
    config.masks = masks(fields, windows, usize::MAX)?;
    let (width, context) = (config.head_dim, config.context_tokens);
    config.rope = rotation(fields, width, 1_000_000.0, context, Some("full_attention"))?;
    // Window layers keep unscaled positions, whatever the global layers do.
    let local = fields.number("rope_local_base_freq")?.unwrap_or(10_000.0);
    config.window_rope = RopeConfig::plain(width, local);
    if let Some(parameters) = fields.0.pointer("/rope_parameters/sliding_attention") {
        let base = Fields(parameters).number("rope_theta")?.unwrap_or(local);
        config.window_rope = RopeConfig::plain(width, base);
        config.window_rope.scaling = parse_scaling("rope_parameters", parameters, fields, context)?;
    }
    Ok(config)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    Sandwich::load(mx, source, Parts { offset: Offset::One, value_norms: false, scalars: false })
}
