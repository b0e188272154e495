//! Vectors that each layer has of each token, beside the embedding that goes through all layers: Gemma 4's small models.
//!
//! A layer's vector is `(e + norm(P x / sqrt(hidden))) / sqrt(2)`, with `e` out of a table of its own and `x` the embedding
//! that enters the first layer. The layer opens a gate for it: `x + norm(W (act(G x) * vector))`.

use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;

use super::embedding::Embedding;
use super::linear::Linear;
use super::mlp::gated;
use super::norm::{Offset, RmsNorm};
use super::source::Source;
use crate::mlx::array::{Result, dims};
use crate::mlx::backend::Kernels;
use crate::mlx::config::PerLayer;
use crate::mlx::cpu::activation::Activation;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// Makes the vectors of all layers.
#[derive(Debug)]
pub struct PerLayerEmbedding {
    table: Embedding,
    projection: Linear,
    norm: RmsNorm,
    /// Of the table's rows, of what is projected, and of their sum.
    factors: [f32; 3],
    layers: usize,
    width: usize,
    kernels: Kernels,
}

/// A layer's use of its vectors.
#[derive(Debug)]
pub struct PerLayerInput {
    gate: Linear,
    projection: Linear,
    norm: RmsNorm,
    activation: Activation,
    kernels: Kernels,
}

impl PerLayerEmbedding {
    /// Its three modules within `path`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        PerLayer { vocab, width }: PerLayer,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, layers) = (source.config.hidden, source.config.layers());
        let all = layers * width;
        let projection = format!("{path}.per_layer_model_projection");
        let norm = format!("{path}.per_layer_projection_norm");
        Ok(Self {
            table: Embedding::table(mx, source, &format!("{path}.embed_tokens_per_layer"), [vocab, all])?,
            projection: Linear::load(mx, source, &projection, [all, hidden], false)?,
            norm: RmsNorm::load(mx, source, &norm, width, Offset::Zero)?,
            factors: [(width as f32).sqrt(), (hidden as f32).powf(-0.5), std::f32::consts::FRAC_1_SQRT_2],
            layers,
            width,
            kernels: source.kernels(),
        })
    }

    /// Tokens `[n]` and what enters the first layer, `[n, hidden]`, to vectors, `[n, width]` for each layer.
    pub fn forward(&self, mx: &Mlx, tokens: &Array, x: &Array) -> Result<Vec<Array>> {
        let [of_table, of_projection, of_sum] = self.factors.map(Array::from_f32);
        let shape = dims([x.dim(0) as usize, self.layers, self.width]);
        let table = self.table.forward(mx, tokens)?;
        let table = table.multiply(of_table.as_dtype(table.dtype())?)?.reshape(&shape)?;
        let projected = self.projection.forward(mx, x)?;
        let projected = projected.multiply(of_projection.as_dtype(projected.dtype())?)?.reshape(&shape)?;
        let sum = self.norm.forward_add(mx, &projected, &table)?;
        let sum = sum.multiply(of_sum.as_dtype(sum.dtype())?)?;
        let own = (0..self.layers as i32).map(|layer| {
            let own = sum.try_index((.., layer))?;
            Ok(if self.kernels == Kernels::Host { own.contiguous()? } else { own })
        });
        own.collect()
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let matrices = self.table.arrays().into_iter().chain(self.projection.arrays());
        matrices.chain(self.norm.arrays())
    }
}

impl PerLayerInput {
    /// That of the layer at `path`, for vectors of `width` elements.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        width: usize,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = source.config.hidden;
        let gate = format!("{path}.per_layer_input_gate");
        let projection = format!("{path}.per_layer_projection");
        let norm = format!("{path}.post_per_layer_input_norm");
        Ok(Self {
            gate: Linear::load(mx, source, &gate, [width, hidden], false)?,
            projection: Linear::load(mx, source, &projection, [hidden, width], false)?,
            norm: RmsNorm::load(mx, source, &norm, hidden, Offset::Zero)?,
            activation: source.config.activation,
            kernels: source.kernels(),
        })
    }

    /// `[n, hidden]` and the layer's vectors, `[n, width]`, to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, x: &Array, own: &Array) -> Result<Array> {
        let gate = self.gate.forward(mx, x)?;
        let inner = gated(mx, self.kernels, self.activation, &gate, own)?;
        self.norm.forward_add(mx, &self.projection.forward(mx, &inner)?, x)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.gate.arrays().into_iter().chain(self.projection.arrays()).chain(self.norm.arrays())
    }
}
