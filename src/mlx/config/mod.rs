//! What decides a model's shapes and arithmetic, and the readers that families share.
//!
//! A family's own file in [`super::model`] turns config.json into a [`ModelConfig`]. What changes the computation and is
//! not implemented is refused, with what was found and what would do.

mod experts;
mod latent;
mod layers;
mod rotation;
mod shape;

pub use experts::{RoutedExperts, Router, groups};
pub use latent::Latents;
pub use layers::{Windows, layer_count, masks, shared};
pub use rotation::{base_of, parse_scaling, rotation};
pub use shape::Defaults;

use super::cpu::activation::Activation;
use super::cpu::scan::StateShape;
use super::error::LoadError;
use super::kv::Vectors;
use super::mask::Mask;
use super::quantization::Quantization;
use super::rope::RopeConfig;

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

/// Which projections of the attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// None.
    Never,
    /// Those of queries, keys and values.
    Inputs,
    /// Those and the output's.
    All,
}

/// Small MLPs in place of one, some of which are chosen for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Number of experts.
    pub count: usize,
    /// How many a token goes to.
    pub chosen: usize,
    /// Width inside an expert.
    pub width: usize,
    /// How they are chosen.
    pub routing: Routing,
    /// Layer by layer: whether it has experts.
    pub layers: Vec<bool>,
    /// The experts' module within a layer.
    pub module: &'static str,
    /// The router's module within a layer.
    pub router: &'static str,
    /// Router and experts have biases.
    pub bias: bool,
    /// A tensor within a layer: what the weight of each chosen expert is multiplied by.
    pub scales: Option<&'static str>,
    /// An MLP that every token goes to beside them: its module within a layer, and its width.
    pub shared: Option<(&'static str, usize)>,
    /// A module that decides, token by token, how much that MLP counts.
    pub shared_gate: Option<&'static str>,
    /// The modules that take tokens to the experts and back, where these work on shorter vectors, and the elements of those.
    pub narrow: Option<([&'static str; 2], usize)>,
}

/// What the chosen experts weigh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Routing {
    /// Softmax over all, then the best of the best groups.
    SoftmaxThenTop {
        /// Groups that are chosen first.
        groups: Groups,
        /// The weights of the chosen are divided by their sum.
        normalized: bool,
        /// Then multiplied by this.
        factor: f32,
    },
    /// The best, then softmax over these.
    TopThenSoftmax,
    /// Scores between 0 and 1, each by itself. The best of the best groups, where a learned number is added to each score
    /// for the choice alone.
    Sigmoid {
        /// Groups that are chosen first.
        groups: Groups,
        /// The weights of the chosen are divided by their sum.
        normalized: bool,
        /// Then multiplied by this.
        factor: f32,
    },
}

/// Neighbouring experts that are chosen together, by the sum of their best scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups.
    pub count: usize,
    /// How many a token may go to.
    pub chosen: usize,
    /// How many of its best scores a group is judged by.
    pub judged_by: usize,
}

impl Groups {
    /// All experts are one group.
    pub const ONE: Self = Self { count: 1, chosen: 1, judged_by: 1 };

    /// Refuses groups that `experts` do not fall into, or out of which `each` cannot be chosen for a token.
    pub fn check(self, experts: usize, each: usize) -> Result<Self, LoadError> {
        let Self { count, chosen, judged_by } = self;
        if count == 0 || chosen == 0 || chosen > count || !experts.is_multiple_of(count) {
            return Err(LoadError::Config(format!(
                "{chosen} of {count} groups of {experts} experts: expected whole groups, and no more chosen than there are"
            )));
        }
        let size = experts / count;
        if count > 1 && (each > chosen * size || judged_by > size) {
            return Err(LoadError::Config(format!(
                "{each} experts out of {chosen} groups of {size}: expected groups of at least {judged_by}, and as many \
                 experts in them as a token goes to"
            )));
        }
        Ok(self)
    }
}

/// Layers that keep a state in place of keys and values.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Layer by layer: whether it is one of them.
    pub layers: Vec<bool>,
    /// Tokens that their convolution sees.
    pub taps: usize,
    /// Elements of the vectors that it goes over.
    pub width: usize,
    /// What follows it.
    pub rule: Rule,
}

/// What a recurrent layer does behind its convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// A gate, and no state beside the convolution's.
    Gate,
    /// The gated delta rule, over states of this shape.
    Delta(StateShape),
    /// Mamba 2's.
    Mamba(Mamba),
}

/// A layer by Mamba 2's rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mamba {
    /// Its states. Key heads are what it calls groups; they divide its norm, too.
    pub shape: StateShape,
    /// The least and the longest step.
    pub bounds: [f32; 2],
    /// The convolution has a bias.
    pub conv_bias: bool,
    /// The projections have one.
    pub bias: bool,
}

impl Rule {
    /// The matrices that a layer keeps: what they are called in snapshots, and their shape.
    pub fn state(&self) -> Option<(&'static str, StateShape)> {
        match self {
            Self::Gate => None,
            Self::Delta(shape) => Some(("delta", *shape)),
            Self::Mamba(mamba) => Some(("mamba", mamba.shape)),
        }
    }
}

/// The one part of a layer, in families whose layers have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerPart {
    /// Attention.
    Attention,
    /// A recurrent layer.
    Recurrent,
    /// An MLP.
    Dense,
    /// Experts.
    Experts,
}

impl Recurrent {
    /// Numbers of the layers.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().enumerate().filter_map(|(layer, recurrent)| recurrent.then_some(layer))
    }
}

/// Attention over one latent vector of each token, out of which every head makes its key and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latent {
    /// Elements of a latent that queries are made of, where they are.
    pub query_rank: Option<usize>,
    /// Elements of a latent.
    pub rank: usize,
    /// Elements of a head's key that it makes of the latent.
    pub key_dim: usize,
    /// Elements of a head's value.
    pub value_dim: usize,
    /// Added to the mean square before the root, in the norms of latents.
    pub norm_eps: f32,
}

/// Layer by layer, the vectors of an embedding of their own that layers add to what passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayer {
    /// Number of tokens that have such vectors.
    pub vocab: usize,
    /// Elements of a vector.
    pub width: usize,
}

/// Everything that decides shapes and arithmetic.
#[allow(clippy::struct_excessive_bools, reason = "each says whether layers have one part")]
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
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
    /// Key and value heads of layers that see everything, where window layers have others.
    pub full_vectors: Option<Vectors>,
    /// Number of tokens.
    pub vocab: usize,
    /// Attention over latents; `head_dim` then counts the elements of the key that is turned, one for all heads.
    pub latent: Option<Latent>,
    /// Vectors that each layer has of each token, where the family has them.
    pub per_layer: Option<PerLayer>,
    /// Longest sequence.
    pub context_tokens: usize,
    /// Added to the mean square before the root.
    pub norm_eps: f32,
    /// The MLP's nonlinearity.
    pub activation: Activation,
    /// Scores are multiplied by this.
    pub attention_scale: f32,
    /// Which projections of the attention have a bias.
    pub attention_bias: AttentionBias,
    /// Query and key heads are normalized before they are rotated.
    pub head_norms: bool,
    /// Layers that see everything have one projection for keys and values, which differ in what follows it.
    pub values_of_keys: bool,
    /// MLPs of layers that share are twice as wide.
    pub wide_shared: bool,
    /// What attention gives is multiplied by a gate of its own, element by element.
    pub attention_gate: bool,
    /// Each head has a score of its own that takes weight and gives nothing.
    pub sinks: bool,
    /// Projections of the MLP have a bias.
    pub mlp_bias: bool,
    /// MLPs and experts have no gate of their own: they compute `act(up) * up`, the square of `up` behind ReLU.
    pub mlp_squares: bool,
    /// Where the logits come from.
    pub head: Head,
    /// Logits come no further from 0 than this: `cap * tanh(logit / cap)`.
    pub logit_cap: Option<f32>,
    /// Experts, where the family has them.
    pub experts: Option<Experts>,
    /// One mask for each layer with attention.
    pub masks: Vec<Mask>,
    /// The last of these that read the keys and values of an earlier one and keep none: its number.
    pub shared: Vec<usize>,
    /// The other layers, where the family has some.
    pub recurrent: Option<Recurrent>,
    /// Layer by layer, its one part; empty in families whose layers have several.
    pub parts: Vec<LayerPart>,
    /// Rotation of layers that see everything.
    pub rope: RopeConfig,
    /// Rotation of window layers.
    pub window_rope: RopeConfig,
    /// How weights are quantized, where they are.
    pub quantization: Option<Quantization>,
}

impl ModelConfig {
    /// Refuses sizes that contradict each other.
    pub fn check(self) -> Result<Self, LoadError> {
        let Self { heads, kv_heads, head_dim, hidden, vocab, context_tokens, intermediate, .. } = self;
        let full = self.full_vectors.unwrap_or(Vectors { heads: kv_heads, width: head_dim });
        if [heads, kv_heads, head_dim, hidden, vocab, context_tokens, intermediate, full.heads, full.width]
            .contains(&0)
        {
            return Err(LoadError::Config(format!(
                "a size is 0: hidden {hidden}, intermediate {intermediate}, heads {heads}, kv heads {kv_heads}, \
                 head_dim {head_dim}, vocabulary {vocab}, context {context_tokens}"
            )));
        }
        for Vectors { heads: kv_heads, width } in [Vectors { heads: kv_heads, width: head_dim }, full] {
            if !heads.is_multiple_of(kv_heads) || !width.is_multiple_of(2) {
                return Err(LoadError::Config(format!(
                    "{heads} heads over {kv_heads} kv heads of {width}: expected whole groups and an even head size"
                )));
            }
        }
        if self.masks.is_empty() || self.masks.iter().any(|mask| mask.window() == Some(0)) {
            return Err(LoadError::Config(
                "expected at least one layer, and windows of at least one token".into(),
            ));
        }
        if let Some(Experts { count, chosen, width, .. }) = self.experts
            && (chosen == 0 || chosen > count || width == 0)
        {
            return Err(LoadError::Config(format!(
                "{chosen} of {count} experts of width {width}: expected at least one of each, and no more chosen than there are"
            )));
        }
        if let Some(Latent { rank, key_dim, value_dim, query_rank, .. }) = self.latent
            && [rank, key_dim, value_dim, query_rank.unwrap_or(1)].contains(&0)
        {
            return Err(LoadError::Config(format!(
                "latents of {rank}, keys of {key_dim}, values of {value_dim}: expected nothing that is 0"
            )));
        }
        if let Some(PerLayer { vocab: own, .. }) = self.per_layer.filter(|own| own.vocab < vocab) {
            return Err(LoadError::Config(format!(
                "each layer has vectors of {own} tokens, expected at least the vocabulary of {vocab}"
            )));
        }
        if let Some(cap) = self.logit_cap.filter(|cap| *cap <= 0.0) {
            return Err(LoadError::Config(format!("logits capped at {cap}, expected more than 0")));
        }
        if let Some(Recurrent { taps: 0, .. }) = self.recurrent {
            return Err(LoadError::Config("a convolution of 0 tokens, expected at least 1".into()));
        }
        if let Some((_, shape)) = self.recurrent.as_ref().and_then(|recurrent| recurrent.rule.state()) {
            let StateShape { key_heads, value_heads, key_dim, value_dim } = shape;
            if [key_heads, value_heads, key_dim, value_dim].contains(&0)
                || !value_heads.is_multiple_of(key_heads)
            {
                return Err(LoadError::Config(format!(
                    "{value_heads} value heads of {value_dim} over {key_heads} key heads of {key_dim}: \
                     expected whole groups, and nothing that is 0"
                )));
            }
        }
        Ok(self)
    }

    /// Key and value heads of layers with this mask.
    pub fn vectors(&self, mask: Mask) -> Vectors {
        let own = Vectors { heads: self.kv_heads, width: self.head_dim };
        self.full_vectors.filter(|_| mask.window().is_none()).unwrap_or(own)
    }

    /// What a token leaves in layers with this mask: keys, and values.
    pub fn sides(&self, mask: Mask) -> [Vectors; 2] {
        let own = self.vectors(mask);
        [own, self.latent.map_or(own, |latent| Vectors { heads: 1, width: latent.rank })]
    }

    /// The masks of layers that keep keys and values.
    pub fn own_masks(&self) -> &[Mask] {
        &self.masks[..self.masks.len() - self.shared.len()]
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.recurrent.as_ref().map_or(self.masks.len(), |recurrent| recurrent.layers.len())
    }

    /// The widest window, when a layer has one.
    pub fn window_tokens(&self) -> Option<usize> {
        self.masks.iter().filter_map(|mask| mask.window()).max()
    }
}
