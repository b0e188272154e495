//! The pre-norm families: Llama 2 and 3 (rotary positions, stretched by the rule of Llama 3.1 where configured), and
//! Qwen3, which is the same with norms on query and key heads.

use mlx_rs::Array;

use super::Model;
use crate::mlx::array::Result;
use crate::mlx::config::Family;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::{Embedding, Mlp, Offset, RmsNorm, SelfAttention, Source, Unembedding};
use crate::mlx::pass::Pass;
use crate::mlx::rope::{Rope, RopeAt};

/// The whole model.
pub struct PreNorm {
    embed: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Unembedding,
    rope: Rope,
}

struct Layer {
    attention: SelfAttention,
    mlp: Mlp,
    input_norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl PreNorm {
    /// Takes the model's tensors.
    pub fn load(mx: &Mlx, source: &mut Source<'_>) -> std::result::Result<Self, LoadError> {
        let config = source.config;
        let embed = Embedding::load(mx, source, "model.embed_tokens")?;
        let layers = (0..config.masks.len()).map(|i| Layer::load(mx, source, &format!("model.layers.{i}")));
        Ok(Self {
            layers: layers.collect::<std::result::Result<_, _>>()?,
            norm: RmsNorm::load(mx, source, "model.norm", config.hidden, Offset::Zero)?,
            head: Unembedding::load(mx, source, &embed)?,
            rope: Rope::new(mx, &config.rope, source.kernels())?,
            embed,
        })
    }
}

impl Model for PreNorm {
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array> {
        let rope = self.rope.at(mx, pass.step());
        let mut x = self.embed.forward(mx, tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(mx, &x, &rope, pass, i)?;
        }
        self.norm.forward(mx, &x)
    }

    fn logits(&self, mx: &Mlx, hidden: &Array) -> Result<Array> {
        self.head.forward(mx, hidden)
    }

    fn arrays(&self) -> Vec<&Array> {
        let layers = self.layers.iter().flat_map(Layer::arrays);
        let ends = self.embed.arrays().into_iter().chain(self.head.arrays());
        ends.chain(layers).chain(self.norm.arrays()).chain(self.rope.arrays()).collect()
    }
}

impl Layer {
    fn load(mx: &Mlx, source: &mut Source<'_>, path: &str) -> std::result::Result<Self, LoadError> {
        let hidden = source.config.hidden;
        let head_norms = (source.config.family == Family::Qwen3).then_some(Offset::Zero);
        Ok(Self {
            attention: SelfAttention::load(mx, source, &format!("{path}.self_attn"), head_norms)?,
            mlp: Mlp::load(mx, source, &format!("{path}.mlp"))?,
            input_norm: RmsNorm::load(mx, source, &format!("{path}.input_layernorm"), hidden, Offset::Zero)?,
            mlp_norm: RmsNorm::load(
                mx,
                source,
                &format!("{path}.post_attention_layernorm"),
                hidden,
                Offset::Zero,
            )?,
        })
    }

    fn forward(
        &self,
        mx: &Mlx,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let x = x.add(self.attention.forward(mx, &self.input_norm.forward(mx, x)?, rope, pass, layer)?)?;
        Ok(x.add(self.mlp.forward(mx, &self.mlp_norm.forward(mx, &x)?)?)?)
    }

    fn arrays(&self) -> Vec<&Array> {
        let norms = self.input_norm.arrays().chain(self.mlp_norm.arrays());
        self.attention.arrays().into_iter().chain(self.mlp.arrays()).chain(norms).collect()
    }
}
