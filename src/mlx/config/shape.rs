//! Sizes that every family has, under the names that Hugging Face gives them.

use super::{AttentionBias, Head, ModelConfig};
use crate::mlx::cpu::activation::Activation;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::rope::RopeConfig;

/// What a family's configurations may leave out, and what then holds. `None`: it must be there.
pub struct Defaults {
    /// `hidden_size`.
    pub hidden: Option<usize>,
    /// `intermediate_size`.
    pub intermediate: Option<usize>,
    /// `num_attention_heads`.
    pub heads: Option<usize>,
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `head_dim`; `None`: the hidden size over the heads.
    pub head_dim: Option<usize>,
    /// `vocab_size`.
    pub vocab: Option<usize>,
    /// `max_position_embeddings`.
    pub context: usize,
    /// The MLP's nonlinearity, and what `hidden_act` or `hidden_activation` call it. No other is accepted.
    pub activation: (Activation, &'static str),
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            hidden: None,
            intermediate: None,
            heads: None,
            kv_heads: None,
            head_dim: None,
            vocab: None,
            context: 2048,
            activation: (Activation::Silu, "silu"),
        }
    }
}

impl Defaults {
    /// The sizes in `fields`; no layers yet, plain rotation of whole heads.
    pub fn read(&self, fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
        let or = |key, default: Option<usize>| -> Result<usize, LoadError> {
            fields.count(key)?.or(default).ok_or_else(|| LoadError::Config(format!("{key} is missing")))
        };
        let hidden = or("hidden_size", self.hidden)?;
        let heads = or("num_attention_heads", self.heads)?;
        let head_dim = or("head_dim", self.head_dim.or(hidden.checked_div(heads)))?;
        let (activation, expected) = self.activation;
        fields.refuse_other("hidden_act", expected)?;
        fields.refuse_other("hidden_activation", expected)?;
        Ok(ModelConfig {
            hidden,
            intermediate: or("intermediate_size", self.intermediate)?,
            heads,
            kv_heads: or("num_key_value_heads", self.kv_heads.or(Some(heads)))?,
            head_dim,
            full_vectors: None,
            vocab: or("vocab_size", self.vocab)?,
            latent: None,
            per_layer: None,
            context_tokens: or("max_position_embeddings", Some(self.context))?,
            norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            activation,
            attention_scale: (head_dim as f64).powf(-0.5) as f32,
            attention_bias: AttentionBias::Never,
            head_norms: false,
            values_of_keys: false,
            wide_shared: false,
            attention_gate: false,
            sinks: false,
            mlp_bias: false,
            mlp_squares: false,
            head: match fields.flag("tie_word_embeddings")? {
                Some(true) => Head::Tied,
                Some(false) => Head::Separate,
                None => Head::AsStored,
            },
            logit_cap: None,
            experts: None,
            masks: Vec::new(),
            shared: Vec::new(),
            recurrent: None,
            parts: Vec::new(),
            rope: RopeConfig::plain(head_dim, 10_000.0),
            window_rope: RopeConfig::plain(head_dim, 10_000.0),
            quantization: None,
        })
    }
}
