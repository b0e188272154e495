//! A model's config.json, read and checked: what the model files need, nothing else.
//!
//! What changes the computation and is not implemented is refused, with what was found and what would do.

use std::path::Path;

use serde_json::Value;

use super::cpu::activation::Activation;
use super::cpu::rotate::Pairs;
use super::error::LoadError;
use super::fields::Fields;
use super::mask::Mask;
use super::quantization::Quantization;
use super::rope::{RopeConfig, Scaling};

/// More layers than any model has: a broken file should not cost memory.
const MOST_LAYERS: usize = 1000;

/// A model family: which model of `model/` computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3.
    Llama,
    /// Qwen3, dense.
    Qwen3,
    /// Gemma 3, text.
    Gemma3,
}

/// Where the logits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The embedding, transposed.
    Tied,
    /// `lm_head`.
    Separate,
    /// `lm_head` where the weights have it, else the embedding.
    AsStored,
}

/// Everything that decides shapes and arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which model.
    pub family: Family,
    /// What tensor names begin with.
    pub prefix: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocab: usize,
    /// Longest sequence.
    pub context_tokens: usize,
    /// Added to the mean square before the root.
    pub norm_eps: f32,
    /// The MLP's nonlinearity.
    pub activation: Activation,
    /// Scores are multiplied by this.
    pub attention_scale: f32,
    /// Projections of the attention have a bias.
    pub attention_bias: bool,
    /// Projections of the MLP have a bias.
    pub mlp_bias: bool,
    /// Where the logits come from.
    pub head: Head,
    /// One mask a layer.
    pub masks: Vec<Mask>,
    /// Rotation of layers that see everything.
    pub rope: RopeConfig,
    /// Rotation of window layers.
    pub window_rope: RopeConfig,
    /// How weights are quantized, where they are.
    pub quantization: Option<Quantization>,
}

impl ModelConfig {
    /// Reads `config.json` of a model directory.
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let text = std::fs::read(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let json = serde_json::from_slice(&text)
            .map_err(|error| {
                crate::lfs::pointer(&text).map_or_else(|| format!("not JSON: {error}"), str::to_owned)
            })
            .map_err(|reason| LoadError::Malformed { path, reason })?;
        Self::parse(&json)
    }

    /// Checks a configuration.
    pub fn parse(json: &Value) -> Result<Self, LoadError> {
        let root = Fields(json);
        let architecture = root.text("model_type")?.unwrap_or("absent");
        let mut config = match architecture {
            "llama" => llama(root)?,
            "qwen3" => qwen3(root)?,
            "gemma3_text" => gemma3(root, None)?,
            "gemma3" => {
                let Some(text) = json.get("text_config").filter(|text| text.is_object()) else {
                    return Err(LoadError::Config("model_type gemma3 without an object text_config".into()));
                };
                gemma3(Fields(text), root.count("vocab_size")?.or(Some(262_208)))?
            }
            other => {
                return Err(LoadError::Unsupported {
                    key: "model_type",
                    found: other.to_owned(),
                    expected: "llama, qwen3, gemma3_text, gemma3",
                });
            }
        };
        if architecture == "gemma3" {
            config.prefix = "language_model.";
        }
        config.quantization = Quantization::parse(json)?;
        config.check()
    }

    fn check(self) -> Result<Self, LoadError> {
        let Self { heads, kv_heads, head_dim, hidden, vocab, context_tokens, intermediate, .. } = self;
        if [heads, kv_heads, head_dim, hidden, vocab, context_tokens, intermediate].contains(&0) {
            return Err(LoadError::Config(format!(
                "a size is 0: hidden {hidden}, intermediate {intermediate}, heads {heads}, kv heads {kv_heads}, \
                 head_dim {head_dim}, vocabulary {vocab}, context {context_tokens}"
            )));
        }
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return Err(LoadError::Config(format!(
                "{heads} heads over {kv_heads} kv heads of {head_dim}: expected whole groups and an even head size"
            )));
        }
        if self.masks.is_empty() || self.masks.iter().any(|mask| mask.window() == Some(0)) {
            return Err(LoadError::Config(
                "expected at least one layer, and windows of at least one token".into(),
            ));
        }
        Ok(self)
    }

    /// The widest window, when a layer has one.
    pub fn window_tokens(&self) -> Option<usize> {
        self.masks.iter().filter_map(|mask| mask.window()).max()
    }
}

fn llama(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = common(fields, Family::Llama, "silu")?;
    config.attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    config.mlp_bias = fields.flag("mlp_bias")?.unwrap_or(false);
    config.masks = masks(fields, None)?;
    let base = fields.number("rope_theta")?.unwrap_or(10_000.0);
    config.rope = rope(fields, config.head_dim, base, None)?;
    if fields.flag("rope_traditional")?.unwrap_or(false) {
        config.rope.pairs = Pairs::Neighbours;
    }
    config.window_rope = config.rope.clone();
    Ok(config)
}

fn qwen3(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = common(fields, Family::Qwen3, "silu")?;
    fields.refuse_true("use_sliding_window", "false")?;
    config.attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    config.masks = masks(fields, None)?;
    let nested = fields.0.pointer("/rope_parameters/rope_theta").and_then(Value::as_f64);
    let base = fields.number("rope_theta")?.or(nested);
    let base = base.ok_or_else(|| LoadError::Config("rope_theta is missing".into()))?;
    config.rope = rope(fields, config.head_dim, base, None)?;
    config.window_rope = config.rope.clone();
    Ok(config)
}

fn gemma3(fields: Fields<'_>, vocab: Option<usize>) -> Result<ModelConfig, LoadError> {
    let defaults = Defaults { hidden: Some(1152), heads: 8, kv_heads: 4, head_dim: Some(256) };
    let defaults = if vocab.is_some() { defaults } else { Defaults { heads: 4, kv_heads: 1, ..defaults } };
    let mut config = common_or(fields, Family::Gemma3, "gelu_pytorch_tanh", &defaults, vocab)?;
    fields.refuse_set("attn_logit_softcapping")?;
    fields.refuse_set("final_logit_softcapping")?;
    fields.refuse_true("use_bidirectional_attention", "false")?;
    let scalar = fields.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    config.attention_scale = scalar.powf(-0.5) as f32;
    let pattern =
        fields.count("sliding_window_pattern")?.or(fields.count("_sliding_window_pattern")?).unwrap_or(6);
    config.masks = masks(fields, Some(pattern))?;
    let global = fields.number("rope_theta")?.unwrap_or(1_000_000.0);
    let local = fields.number("rope_local_base_freq")?.unwrap_or(10_000.0);
    config.rope = rope(fields, config.head_dim, global, Some("full_attention"))?;
    // Window layers keep unscaled positions, whatever the global layers do.
    config.window_rope = RopeConfig::plain(config.head_dim, local);
    if let Some(parameters) = fields.0.pointer("/rope_parameters/sliding_attention") {
        let base = Fields(parameters).number("rope_theta")?.unwrap_or(local);
        config.window_rope = rope(Fields(&Value::Null), config.head_dim, base, None)?;
        config.window_rope.scaling = parse_scaling("rope_parameters", parameters)?;
    }
    Ok(config)
}

/// Sizes that a family's older configurations leave out.
struct Defaults {
    hidden: Option<usize>,
    heads: usize,
    kv_heads: usize,
    head_dim: Option<usize>,
}

fn common(fields: Fields<'_>, family: Family, activation: &'static str) -> Result<ModelConfig, LoadError> {
    let heads = fields.need("num_attention_heads")?;
    let defaults = Defaults { hidden: None, heads, kv_heads: heads, head_dim: None };
    common_or(fields, family, activation, &defaults, None)
}

fn common_or(
    fields: Fields<'_>,
    family: Family,
    activation: &'static str,
    defaults: &Defaults,
    vocab: Option<usize>,
) -> Result<ModelConfig, LoadError> {
    let or = |key, default: Option<usize>| -> Result<usize, LoadError> {
        fields.count(key)?.or(default).ok_or_else(|| LoadError::Config(format!("{key} is missing")))
    };
    let hidden = or("hidden_size", defaults.hidden)?;
    let heads = or("num_attention_heads", Some(defaults.heads))?;
    let head_dim = or("head_dim", defaults.head_dim.or(hidden.checked_div(heads)))?;
    for key in ["hidden_act", "hidden_activation"] {
        let found = fields.text(key)?.unwrap_or(activation);
        if found != activation {
            return Err(LoadError::Unsupported { key, found: found.to_owned(), expected: activation });
        }
    }
    let gemma = family == Family::Gemma3;
    Ok(ModelConfig {
        family,
        prefix: "",
        hidden,
        intermediate: or("intermediate_size", gemma.then_some(6912))?,
        heads,
        kv_heads: or("num_key_value_heads", Some(defaults.kv_heads))?,
        head_dim,
        vocab: or("vocab_size", vocab.or(gemma.then_some(262_144)))?,
        context_tokens: or("max_position_embeddings", Some(if gemma { 32_768 } else { 2048 }))?,
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        attention_scale: (head_dim as f64).powf(-0.5) as f32,
        attention_bias: false,
        mlp_bias: false,
        head: match fields.flag("tie_word_embeddings")? {
            Some(true) if !gemma => Head::Tied,
            Some(false) if !gemma => Head::Separate,
            _ => Head::AsStored,
        },
        masks: Vec::new(),
        rope: RopeConfig::plain(head_dim, 10_000.0),
        window_rope: RopeConfig::plain(head_dim, 10_000.0),
        quantization: None,
    })
}

/// One mask a layer: from `layer_types` where given, else from the pattern (every `pattern`-th layer sees everything).
fn masks(fields: Fields<'_>, pattern: Option<usize>) -> Result<Vec<Mask>, LoadError> {
    let window = fields.count("sliding_window")?.or(pattern.map(|_| 512));
    let windowed = || {
        let missing = || LoadError::Config("a sliding_attention layer without sliding_window".into());
        window.map(|tokens| Mask::Window { tokens }).ok_or_else(missing)
    };
    let layers = match (fields.count("num_hidden_layers")?, pattern) {
        (Some(layers), _) if layers <= MOST_LAYERS => layers,
        (None, Some(_)) => 26,
        (Some(layers), _) => {
            return Err(LoadError::Config(format!(
                "num_hidden_layers is {layers}, expected at most {MOST_LAYERS}"
            )));
        }
        (None, None) => return Err(LoadError::Config("num_hidden_layers is missing".into())),
    };
    if let Some(kinds) = fields.0.get("layer_types").and_then(Value::as_array) {
        if kinds.len() != layers {
            return Err(LoadError::Config(format!("{} layer_types for {layers} layers", kinds.len())));
        }
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(Mask::Causal),
                Some("sliding_attention") => windowed(),
                _ => Err(LoadError::Unsupported {
                    key: "layer_types",
                    found: kind.to_string(),
                    expected: "full_attention, sliding_attention",
                }),
            })
            .collect();
    }
    match pattern {
        None => Ok(vec![Mask::Causal; layers]),
        Some(0) => Err(LoadError::Config("sliding_window_pattern is 0".into())),
        Some(pattern) => (1..=layers)
            .map(|layer| if layer.is_multiple_of(pattern) { Ok(Mask::Causal) } else { windowed() })
            .collect(),
    }
}

/// Rotation from `rope_scaling`, or from `rope_parameters` of newer files (nested by `kind` where layers differ).
fn rope(fields: Fields<'_>, dims: usize, base: f64, kind: Option<&str>) -> Result<RopeConfig, LoadError> {
    let parameters = fields.0.get("rope_parameters").filter(|value| value.is_object());
    let parameters = parameters.and_then(|value| kind.and_then(|kind| value.get(kind)).or(Some(value)));
    let own = fields.0.get("rope_scaling").filter(|value| !value.is_null());
    let scaling = own.map(|own| ("rope_scaling", own)).or(parameters.map(|all| ("rope_parameters", all)));
    let mut rope = RopeConfig::plain(dims, base);
    let nested = parameters.map(|parameters| Fields(parameters).number("rope_theta")).transpose()?.flatten();
    if fields.0.get("rope_theta").is_none() {
        rope.base = nested.unwrap_or(base);
    }
    if let Some((key, scaling)) = scaling {
        rope.scaling = parse_scaling(key, scaling)?;
    }
    if fields.number("partial_rotary_factor")?.is_some_and(|factor| (factor - 1.0).abs() > f64::EPSILON) {
        return Err(LoadError::Unsupported {
            key: "partial_rotary_factor",
            found: fields.0["partial_rotary_factor"].to_string(),
            expected: "1",
        });
    }
    Ok(rope)
}

fn parse_scaling(key: &str, scaling: &Value) -> Result<Scaling, LoadError> {
    let fields = Fields(scaling);
    let kind = fields.text("type")?.or(fields.text("rope_type")?);
    let keys = scaling.as_object().map(|object| object.keys().map(String::as_str));
    let typeless =
        keys.is_none_or(|mut keys| keys.any(|key| !matches!(key, "rope_theta" | "partial_rotary_factor")));
    if kind.is_none() && typeless {
        return Err(LoadError::Config(format!(
            "{key} is {scaling}; expected an object with a rope_type: default, linear or llama3"
        )));
    }
    let factor = || {
        let missing = || LoadError::Config("rope_scaling without a positive factor".into());
        fields.number("factor")?.filter(|factor| *factor > 0.0).ok_or_else(missing)
    };
    match kind.unwrap_or("default") {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: factor()? }),
        "llama3" => Ok(Scaling::Llama3 {
            factor: factor()?,
            low: fields.number("low_freq_factor")?.unwrap_or(1.0),
            high: fields.number("high_freq_factor")?.unwrap_or(4.0),
            original_tokens: fields.number("original_max_position_embeddings")?.unwrap_or(8192.0),
        }),
        other => Err(LoadError::Unsupported {
            key: "rope_scaling",
            found: other.to_owned(),
            expected: "default, linear, llama3",
        }),
    }
}
