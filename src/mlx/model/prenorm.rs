//! Pre-norm layers: `x + part(norm x)`, part by part. In most families a layer has two parts, a mixer, mostly attention, and then
//! an MLP or experts: Llama's form. What differs between them is in their configuration.

use mlx_rs::Array;

use super::Model;
use crate::mlx::array::Result;
use crate::mlx::config::LayerPart;
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

/// Its parts, each behind a norm.
struct Layer(Vec<(RmsNorm, Part)>);

enum Part {
    Mixer(Box<Mixer>),
    Feed(Feed),
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
        // What the last part adds to `x`: added where the next norm is taken.
        let mut more: Option<Array> = None;
        for Layer(parts) in &self.layers {
            for (norm, part) in parts {
                let normed;
                [x, normed] = norm.forward_after(mx, x, more)?;
                more = Some(match part {
                    Part::Mixer(mixer) => mixer.forward(mx, &normed, &rope, pass)?,
                    Part::Feed(feed) => feed.forward(mx, &normed)?,
                });
            }
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
        let (config, path) = (source.config, format!("model.layers.{layer}"));
        let mixer = |mx: &Mlx, source: &mut Source<'_>| -> std::result::Result<Part, LoadError> {
            Ok(Part::Mixer(Box::new(Mixer::load(mx, source, layer)?)))
        };
        let feed = |mx: &Mlx, source: &mut Source<'_>| Feed::load(mx, source, layer).map(Part::Feed);
        let parts = match config.parts.get(layer) {
            None => vec![mixer(mx, source)?, feed(mx, source)?],
            Some(LayerPart::Attention | LayerPart::Recurrent) => vec![mixer(mx, source)?],
            Some(LayerPart::Dense | LayerPart::Experts) => vec![feed(mx, source)?],
        };
        let norms = ["input_layernorm", "post_attention_layernorm"].iter();
        let parts = norms.zip(parts).map(|(norm, part)| {
            let norm = RmsNorm::load(mx, source, &format!("{path}.{norm}"), config.hidden, Offset::Zero)?;
            Ok((norm, part))
        });
        parts.collect::<std::result::Result<_, LoadError>>().map(Self)
    }

    fn arrays(&self) -> Vec<&Array> {
        let parts = self.0.iter().flat_map(|(norm, part)| {
            let own = match part {
                Part::Mixer(mixer) => mixer.arrays(),
                Part::Feed(feed) => feed.arrays(),
            };
            own.into_iter().chain(norm.arrays())
        });
        parts.collect()
    }
}
