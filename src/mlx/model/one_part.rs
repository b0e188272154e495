//! Layers of one part each: `x + part(norm x)`, where the part mixes tokens or feeds each of them forward, as the configuration says.

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
pub struct OnePart {
    embed: Embedding,
    layers: Vec<(RmsNorm, Part)>,
    norm: RmsNorm,
    head: Unembedding,
    rope: Rope,
}

enum Part {
    Mixer(Box<Mixer>),
    Feed(Feed),
}

impl OnePart {
    /// Takes the model's tensors.
    pub fn load(mx: &Mlx, source: &mut Source<'_>) -> std::result::Result<Box<dyn Model>, LoadError> {
        let config = source.config;
        let embed = Embedding::load(mx, source, "model.embed_tokens")?;
        let layers = config.parts.iter().enumerate().map(|(layer, part)| {
            let norm = format!("model.layers.{layer}.input_layernorm");
            let norm = RmsNorm::load(mx, source, &norm, config.hidden, Offset::Zero)?;
            let part = match part {
                LayerPart::Attention | LayerPart::Recurrent => {
                    Part::Mixer(Box::new(Mixer::load(mx, source, layer)?))
                }
                LayerPart::Dense | LayerPart::Experts => Part::Feed(Feed::load(mx, source, layer)?),
            };
            Ok((norm, part))
        });
        let layers = layers.collect::<std::result::Result<_, LoadError>>()?;
        Ok(Box::new(Self {
            layers,
            norm: RmsNorm::load(mx, source, "model.norm", config.hidden, Offset::Zero)?,
            head: Unembedding::load(mx, source, &embed)?,
            rope: Rope::new(mx, &config.rope, source.kernels())?,
            embed,
        }))
    }
}

impl Model for OnePart {
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array> {
        let rope = self.rope.at(mx, pass.step());
        let mut x = self.embed.forward(mx, tokens)?;
        // What the last layer adds to `x`: added where the next norm is taken.
        let mut more: Option<Array> = None;
        for (norm, part) in &self.layers {
            let normed;
            [x, normed] = norm.forward_after(mx, x, more)?;
            more = Some(match part {
                Part::Mixer(mixer) => mixer.forward(mx, &normed, &rope, pass)?,
                Part::Feed(feed) => feed.forward(mx, &normed)?,
            });
            pass.begin(mx, &more)?;
        }
        let [_, normed] = self.norm.forward_after(mx, x, more)?;
        Ok(normed)
    }

    fn logits(&self, mx: &Mlx, hidden: &Array) -> Result<Array> {
        self.head.forward(mx, hidden)
    }

    fn arrays(&self) -> Vec<&Array> {
        let layers = self.layers.iter().flat_map(|(norm, part)| {
            let own = match part {
                Part::Mixer(mixer) => mixer.arrays(),
                Part::Feed(feed) => feed.arrays(),
            };
            own.into_iter().chain(norm.arrays())
        });
        let ends = self.embed.arrays().into_iter().chain(self.head.arrays());
        ends.chain(layers).chain(self.norm.arrays()).chain(self.rope.arrays()).collect()
    }
}
