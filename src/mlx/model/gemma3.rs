//! Gemma 3, text: window and full layers with a rotation each, norms before and after both blocks, and norm weights
//! stored as their distance from 1.

use mlx_rs::{Array, Dtype};

use super::{Family, Model, State};
use crate::mlx::array::{Result, settle};
use crate::mlx::config::{Defaults, Head, ModelConfig, Windows, masks, parse_scaling, rotation};
use crate::mlx::cpu::activation::Activation;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::{Embedding, Mlp, Offset, RmsNorm, SelfAttention, Source, Unembedding};
use crate::mlx::mask::Mask;
use crate::mlx::pass::Pass;
use crate::mlx::rope::{Rope, RopeAt, RopeConfig};

/// Its entry in the registry. `gemma3` has a vision tower, which is left out.
pub const FAMILY: Family = Family {
    model_types: &["gemma3_text", "gemma3"],
    states: &[State::Full, State::Window],
    config,
    load: Gemma3::load,
};

fn config(fields: Fields<'_>) -> std::result::Result<ModelConfig, LoadError> {
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

fn text_config(fields: Fields<'_>, defaults: &Defaults) -> std::result::Result<ModelConfig, LoadError> {
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
    config.masks = masks(fields, windows, config.context_tokens)?;
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

/// The whole model.
struct Gemma3 {
    embed: Embedding,
    embed_scale: Array,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Unembedding,
    rope: Rope,
    window_rope: Rope,
}

struct Layer {
    mask: Mask,
    attention: SelfAttention,
    mlp: Mlp,
    input_norm: RmsNorm,
    attention_norm: RmsNorm,
    mlp_input_norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl Gemma3 {
    fn load(mx: &Mlx, source: &mut Source<'_>) -> std::result::Result<Box<dyn Model>, LoadError> {
        let config = source.config;
        let embed = Embedding::load(mx, source, "model.embed_tokens")?;
        let layers = config.masks.iter().enumerate();
        let layers = layers.map(|(i, mask)| Layer::load(mx, source, &format!("model.layers.{i}"), *mask));
        let layers = layers.collect::<std::result::Result<_, _>>()?;
        // The scale is rounded to bf16 whatever the activations are: the models were trained with it.
        let scale = Array::from_f32((config.hidden as f32).sqrt()).as_dtype(Dtype::Bfloat16)?;
        let embed_scale = scale.as_dtype(source.float())?;
        settle(mx, [&embed_scale])?;
        Ok(Box::new(Self {
            embed_scale,
            layers,
            norm: RmsNorm::load(mx, source, "model.norm", config.hidden, Offset::One)?,
            head: Unembedding::load(mx, source, &embed)?,
            rope: Rope::new(mx, &config.rope, source.kernels())?,
            window_rope: Rope::new(mx, &config.window_rope, source.kernels())?,
            embed,
        }))
    }
}

impl Model for Gemma3 {
    fn forward(&self, mx: &Mlx, tokens: &Array, pass: &mut Pass<'_>) -> Result<Array> {
        let (full, window) = (self.rope.at(mx, pass.step()), self.window_rope.at(mx, pass.step()));
        let mut x = self.embed.forward(mx, tokens)?.multiply(&self.embed_scale)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let rope = match layer.mask {
                Mask::Causal => &full,
                Mask::Window { .. } => &window,
            };
            x = layer.forward(mx, &x, rope, pass, i)?;
        }
        self.norm.forward(mx, &x)
    }

    fn logits(&self, mx: &Mlx, hidden: &Array) -> Result<Array> {
        self.head.forward(mx, hidden)
    }

    fn arrays(&self) -> Vec<&Array> {
        let layers = self.layers.iter().flat_map(Layer::arrays);
        let ends = self.embed.arrays().into_iter().chain(self.head.arrays()).chain([&self.embed_scale]);
        let ropes = self.rope.arrays().chain(self.window_rope.arrays());
        ends.chain(layers).chain(self.norm.arrays()).chain(ropes).collect()
    }
}

impl Layer {
    fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        mask: Mask,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = source.config.hidden;
        let attention = SelfAttention::load(mx, source, &format!("{path}.self_attn"), Some(Offset::One))?;
        let mlp = Mlp::load(mx, source, &format!("{path}.mlp"), source.config.intermediate)?;
        let mut norm = |name| RmsNorm::load(mx, source, &format!("{path}.{name}"), hidden, Offset::One);
        Ok(Self {
            mask,
            attention,
            mlp,
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
        layer: usize,
    ) -> Result<Array> {
        let attended = self.attention.forward(mx, &self.input_norm.forward(mx, x)?, rope, pass, layer)?;
        let x = self.attention_norm.forward_add(mx, &attended, x)?;
        let fed = self.mlp.forward(mx, &self.mlp_input_norm.forward(mx, &x)?)?;
        self.mlp_norm.forward_add(mx, &fed, &x)
    }

    fn arrays(&self) -> Vec<&Array> {
        let norms = [&self.input_norm, &self.attention_norm, &self.mlp_input_norm, &self.mlp_norm];
        let norms = norms.into_iter().flat_map(RmsNorm::arrays);
        self.attention.arrays().into_iter().chain(self.mlp.arrays()).chain(norms).collect()
    }
}
