//! Pre-norm layers: `x + mixer(norm x)`, where the mixer is attention in most families, then `x + mlp(norm x)`. Llama's
//! form, which most families share; what differs between them is in their configuration.

use mlx_rs::Array;

use super::Model;
use crate::mlx::array::Result;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::{Embedding, Feed, Mixer, Offset, RmsNorm, Source, Unembedding};
use crate::mlx::pass::Pass;
use crate::mlx::rope::Rope;

/// The whole model.
pub struct PreNorm {
    embed: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Unembedding,
    rope: Rope,
}

struct Layer {
    mixer: Mixer,
    feed: Feed,
    input_norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl PreNorm {
    /// Takes the model's tensors.
    pub fn load(mx: &Mlx, source: &mut Source<'_>) -> std::result::Result<Box<dyn Model>, LoadError> {
        let config = source.config;
        let embed = Embedding::load(mx, source, "model.embed_tokens")?;
        let layers = (0..config.layers()).map(|i| Layer::load(mx, source, i));
        Ok(Box::new(Self {
            layers: layers.collect::<std::result::Result<_, _>>()?,
            norm: RmsNorm::load(mx, source, "model.norm", config.hidden, Offset::Zero)?,
            head: Unembedding::load(mx, source, &embed)?,
            rope: Rope::new(mx, &config.rope, source.kernels())?,
            embed,
        }))
    }

    /// The same, where experts may lie apart, and layers that guess further tokens, which are left out, behind the others.
    pub fn load_with_experts(
        mx: &Mlx,
        source: &mut Source<'_>,
    ) -> std::result::Result<Box<dyn Model>, LoadError> {
        let layers = source.config.layers();
        let count = source.config.experts.as_ref().map_or(0, |experts| experts.count);
        source.weights.discard_layers(layers);
        source.weights.stack_experts(mx, layers, count)?;
        Self::load(mx, source)
    }
}

impl Model for PreNorm {
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array> {
        let rope = self.rope.at(mx, pass.step());
        let mut x = self.embed.forward(mx, tokens)?;
        // What the last layer adds to `x`: added where the next norm is taken.
        let mut more: Option<Array> = None;
        for layer in &self.layers {
            let normed;
            [x, normed] = layer.input_norm.forward_after(mx, x, more)?;
            let mixed = layer.mixer.forward(mx, &normed, &rope, pass)?;
            let [sum, normed] = layer.mlp_norm.forward_sum(mx, &x, &mixed)?;
            (x, more) = (sum, Some(layer.feed.forward(mx, &normed)?));
            pass.begin(mx, &more)?;
        }
        let [_, normed] = self.norm.forward_after(mx, x, more)?;
        Ok(normed)
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
    fn load(mx: &Mlx, source: &mut Source<'_>, layer: usize) -> std::result::Result<Self, LoadError> {
        let (hidden, path) = (source.config.hidden, format!("model.layers.{layer}"));
        let mixer = Mixer::load(mx, source, layer)?;
        let feed = Feed::load(mx, source, layer)?;
        let mut norm = |name| RmsNorm::load(mx, source, &format!("{path}.{name}"), hidden, Offset::Zero);
        Ok(Self {
            mixer,
            feed,
            input_norm: norm("input_layernorm")?,
            mlp_norm: norm("post_attention_layernorm")?,
        })
    }

    fn arrays(&self) -> Vec<&Array> {
        let norms = self.input_norm.arrays().chain(self.mlp_norm.arrays());
        self.mixer.arrays().into_iter().chain(self.feed.arrays()).chain(norms).collect()
    }
}
