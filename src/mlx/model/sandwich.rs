//! Gemma's layers: norms before and after both blocks, and a rotation for window layers beside that of the others. What Gemma 4
//! adds stands in the configuration.

use mlx_rs::{Array, Dtype};

use super::Model;
use crate::mlx::array::{Result, settle};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::{
    Embedding, ExpertsBeside, KeyValues, Mlp, Offset, PerLayerEmbedding, PerLayerInput, RmsNorm,
    SelfAttention, Source, Unembedding,
};
use crate::mlx::mask::Mask;
use crate::mlx::pass::Pass;
use crate::mlx::rope::{Rope, RopeAt};

/// What layers consist of besides.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// What is added to stored norm weights.
    pub offset: Offset,
    /// Heads of values are normalized.
    pub value_norms: bool,
    /// A layer's result is multiplied by a number of its own.
    pub scalars: bool,
}

/// The whole model.
pub struct Sandwich {
    embed: Embedding,
    embed_scale: Array,
    per_layer: Option<PerLayerEmbedding>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Unembedding,
    rope: Rope,
    window_rope: Rope,
}

struct Layer {
    mask: Mask,
    /// The layer that keeps its keys and values: itself, or an earlier one.
    kept: usize,
    attention: SelfAttention,
    mlp: Mlp,
    beside: Option<ExpertsBeside>,
    /// Takes the layer's own vectors in.
    own: Option<PerLayerInput>,
    /// `[1]`: what the layer's result is multiplied by.
    scalar: Option<Array>,
    input_norm: RmsNorm,
    attention_norm: RmsNorm,
    mlp_input_norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl Sandwich {
    /// Takes the model's tensors.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        parts: Parts,
    ) -> std::result::Result<Box<dyn Model>, LoadError> {
        let config = source.config;
        let embed = Embedding::load(mx, source, "model.embed_tokens")?;
        let per_layer = config.per_layer.map(|of| PerLayerEmbedding::load(mx, source, "model", of));
        let per_layer = per_layer.transpose()?;
        let layers = (0..config.masks.len()).map(|i| Layer::load(mx, source, parts, i));
        let layers = layers.collect::<std::result::Result<_, _>>()?;
        // The scale is rounded to bf16 whatever the activations are: the models were trained with it.
        let scale = Array::from_f32((config.hidden as f32).sqrt()).as_dtype(Dtype::Bfloat16)?;
        let embed_scale = scale.as_dtype(source.float())?;
        settle(mx, [&embed_scale])?;
        Ok(Box::new(Self {
            embed_scale,
            per_layer,
            layers,
            norm: RmsNorm::load(mx, source, "model.norm", config.hidden, parts.offset)?,
            head: Unembedding::load(mx, source, &embed)?,
            rope: Rope::new(mx, &config.rope, source.kernels())?,
            window_rope: Rope::new(mx, &config.window_rope, source.kernels())?,
            embed,
        }))
    }
}

impl Model for Sandwich {
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array> {
        let (full, window) = (self.rope.at(mx, pass.step()), self.window_rope.at(mx, pass.step()));
        let mut x = self.embed.forward(mx, tokens)?.multiply(&self.embed_scale)?;
        let vectors = self.per_layer.as_ref().map(|all| all.forward(mx, tokens, &x)).transpose()?;
        for (i, layer) in self.layers.iter().enumerate() {
            let rope = if layer.mask.window().is_some() { &window } else { &full };
            x = layer.forward(mx, &x, rope, pass, vectors.as_ref().map(|all| &all[i]))?;
            pass.begin(mx, [&x])?;
        }
        self.norm.forward(mx, &x)
    }

    fn logits(&self, mx: &Mlx, hidden: &Array) -> Result<Array> {
        self.head.forward(mx, hidden)
    }

    fn arrays(&self) -> Vec<&Array> {
        let layers = self.layers.iter().flat_map(Layer::arrays);
        let ends = self.embed.arrays().into_iter().chain(self.head.arrays()).chain([&self.embed_scale]);
        let ends = ends.chain(self.per_layer.iter().flat_map(PerLayerEmbedding::arrays));
        let ropes = self.rope.arrays().chain(self.window_rope.arrays());
        ends.chain(layers).chain(self.norm.arrays()).chain(ropes).collect()
    }
}

impl Layer {
    fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        parts: Parts,
        layer: usize,
    ) -> std::result::Result<Self, LoadError> {
        let (config, path) = (source.config, format!("model.layers.{layer}"));
        let (hidden, mask) = (config.hidden, config.masks[layer]);
        let shares = layer.checked_sub(config.own_masks().len()).map(|behind| config.shared[behind]);
        let key_values = match (shares, mask) {
            (Some(_), _) => KeyValues::Shared,
            (None, Mask::Causal) if config.values_of_keys => KeyValues::Alike,
            (None, _) if parts.value_norms => KeyValues::Normalized,
            (None, _) => KeyValues::Projected,
        };
        let (attention, norms, vectors) =
            (format!("{path}.self_attn"), Some(parts.offset), config.vectors(mask));
        let attention = SelfAttention::load_as(mx, source, &attention, norms, vectors, key_values)?;
        let wide = if shares.is_some() && config.wide_shared { 2 } else { 1 };
        let mlp = Mlp::load(mx, source, &format!("{path}.mlp"), wide * config.intermediate)?;
        let beside = config.experts.as_ref().map(|of| ExpertsBeside::load(mx, source, &path, of));
        let beside = beside.transpose()?;
        let own = config.per_layer.map(|of| PerLayerInput::load(mx, source, &path, of.width));
        let own = own.transpose()?;
        let scalar = parts.scalars.then(|| source.tensor(mx, &format!("{path}.layer_scalar"), &[1]));
        let scalar = scalar.transpose()?;
        let mut norm = |name| RmsNorm::load(mx, source, &format!("{path}.{name}"), hidden, parts.offset);
        Ok(Self {
            mask,
            kept: shares.unwrap_or(layer),
            attention,
            mlp,
            beside,
            own,
            scalar,
            input_norm: norm("input_layernorm")?,
            attention_norm: norm("post_attention_layernorm")?,
            mlp_input_norm: norm("pre_feedforward_layernorm")?,
            mlp_norm: norm("post_feedforward_layernorm")?,
        })
    }

    fn forward(
        &self,
        mx: &Mlx,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        vectors: Option<&Array>,
    ) -> Result<Array> {
        let attended = self.attention.forward(mx, &self.input_norm.forward(mx, x)?, rope, pass, self.kept)?;
        let x = self.attention_norm.forward_add(mx, &attended, x)?;
        let mut fed = self.mlp.forward(mx, &self.mlp_input_norm.forward(mx, &x)?)?;
        if let Some(beside) = &self.beside {
            fed = beside.add(mx, &fed, &x)?;
        }
        let mut x = self.mlp_norm.forward_add(mx, &fed, &x)?;
        if let (Some(own), Some(vectors)) = (&self.own, vectors) {
            x = own.forward(mx, &x, vectors)?;
        }
        if let Some(scalar) = &self.scalar {
            x = x.multiply(scalar)?;
        }
        Ok(x)
    }

    fn arrays(&self) -> Vec<&Array> {
        let norms = [&self.input_norm, &self.attention_norm, &self.mlp_input_norm, &self.mlp_norm];
        let norms = norms.into_iter().flat_map(RmsNorm::arrays).chain(&self.scalar);
        let blocks = self.attention.arrays().into_iter().chain(self.mlp.arrays());
        let beside = self.beside.iter().flat_map(ExpertsBeside::arrays);
        let own = self.own.iter().flat_map(PerLayerInput::arrays);
        blocks.chain(beside).chain(own).chain(norms).collect()
    }
}
