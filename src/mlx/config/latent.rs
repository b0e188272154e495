//! Attention over latents: sizes, rotation and scale, under the names that DeepSeek gave them.

use super::{AttentionBias, Latent, ModelConfig, rotation};
use crate::mlx::cpu::rotate::Pairs;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::rope::Scaling;

/// What a family's configurations may leave out, and what then holds.
pub struct Latents {
    /// `q_lora_rank`. In a file, null says that there is none.
    pub query_rank: usize,
    /// `kv_lora_rank`.
    pub rank: usize,
    /// `qk_rope_head_dim`.
    pub turned: usize,
    /// `qk_nope_head_dim`.
    pub key_dim: usize,
    /// `v_head_dim`.
    pub value_dim: usize,
    /// `rope_theta`.
    pub base: f64,
    /// What norms of latents add to the mean square, where that is not what the model's other norms add.
    pub norm_eps: Option<f32>,
}

impl Default for Latents {
    /// DeepSeek's.
    fn default() -> Self {
        Self {
            query_rank: 1536,
            rank: 512,
            turned: 64,
            key_dim: 128,
            value_dim: 128,
            base: 10_000.0,
            norm_eps: Some(1e-6),
        }
    }
}

impl Latents {
    /// Makes the attention of `config` one over latents. Scores are louder where YaRN says so, by the square of its
    /// `mscale_all_dim`'s strength.
    pub fn read(&self, fields: Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
        let turned = fields.count("qk_rope_head_dim")?.unwrap_or(self.turned);
        // One latent and one turned key a token, for all heads.
        (config.kv_heads, config.head_dim) = (1, turned);
        if fields.flag("attention_bias")?.unwrap_or(false) {
            config.attention_bias = AttentionBias::All;
        }
        let latent = Latent {
            query_rank: match fields.0.get("q_lora_rank") {
                Some(_) => fields.count("q_lora_rank")?,
                None => Some(self.query_rank),
            },
            rank: fields.count("kv_lora_rank")?.unwrap_or(self.rank),
            key_dim: fields.count("qk_nope_head_dim")?.unwrap_or(self.key_dim),
            value_dim: fields.count("v_head_dim")?.unwrap_or(self.value_dim),
            norm_eps: self.norm_eps.unwrap_or(config.norm_eps),
        };
        config.rope = rotation(fields, turned, self.base, config.context_tokens, None)?;
        // Some files say which part of a whole head, both parts together, this is.
        let turns = config.rope.dims;
        if turns != turned && turns * (latent.key_dim + turned) != turned * turned {
            let (key, found) = ("partial_rotary_factor", format!("one that turns {turns} of {turned}"));
            return Err(LoadError::Unsupported {
                key,
                found,
                expected: "1: qk_rope_head_dim says what turns",
            });
        }
        config.rope.dims = turned;
        config.rope.pairs = Pairs::Neighbours;
        let louder = match &config.rope.scaling {
            Scaling::Yarn(yarn) => yarn.strength(yarn.mscale_all_dim),
            _ => 1.0,
        };
        config.attention_scale = (((latent.key_dim + turned) as f64).powf(-0.5) * louder * louder) as f32;
        config.latent = Some(latent);
        Ok(())
    }
}
