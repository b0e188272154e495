//! Attention over latents: a token leaves one short vector for all heads, and one key that tells positions.
//!
//! A head's key is a matrix times the latent, beside the rotated key, and its value another matrix times it. The first is taken
//! to the queries and the second to what attention gives: so each stored vector is read as it lies, for keys and values at
//! once, and prompts and single tokens have the same sums. DeepSeek-AI, "DeepSeek-V2" (2024), section 2.1.

use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;

use super::host::HostMatrix;
use super::linear::{Linear, Weight};
use super::norm::{Offset, RmsNorm};
use super::source::Source;
use crate::mlx::array::{Result, dims, settle};
use crate::mlx::attention::Queries;
use crate::mlx::backend::Kernels;
use crate::mlx::config::{AttentionBias, Latent};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;
use crate::mlx::rope::RopeAt;

/// See the module's documentation.
#[derive(Debug)]
pub struct LatentAttention {
    query: Query,
    /// The latent, and behind it the key that is turned.
    down: Linear,
    norm: RmsNorm,
    /// Of each head, from queries to latents.
    keys: PerHead,
    /// Of each head, from latents to values.
    values: PerHead,
    output: Linear,
    latent: Latent,
    heads: usize,
    /// Elements of the key that is turned.
    turned: usize,
    scale: f32,
    kernels: Kernels,
}

/// Makes queries, directly or by a latent of their own.
#[derive(Debug)]
enum Query {
    Direct(Linear),
    Latent(Linear, RmsNorm, Linear),
}

/// A matrix for each head.
#[derive(Debug)]
enum PerHead {
    /// Apart, for the host.
    Each(Vec<Linear>),
    /// `[heads, in, out]`, for a device.
    Stacked(Array),
}

impl LatentAttention {
    /// Module `path`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        latent: Latent,
    ) -> std::result::Result<Self, LoadError> {
        let config = source.config;
        let (hidden, heads, turned) = (config.hidden, config.heads, config.head_dim);
        let Latent { query_rank, rank, key_dim, value_dim, norm_eps } = latent;
        let bias = config.attention_bias == AttentionBias::All;
        let width = heads * (key_dim + turned);
        let linear = |source: &mut Source<'_>, name: &str, shape, bias| {
            Linear::load(mx, source, &format!("{path}.{name}"), shape, bias)
        };
        let query = match query_rank {
            None => Query::Direct(linear(source, "q_proj", [width, hidden], false)?),
            Some(rank) => Query::Latent(
                linear(source, "q_a_proj", [rank, hidden], bias)?,
                RmsNorm::load(mx, source, &format!("{path}.q_a_layernorm"), rank, Offset::Zero)?
                    .with_eps(mx, norm_eps)?,
                linear(source, "q_b_proj", [width, rank], false)?,
            ),
        };
        let down = linear(source, "kv_a_proj_with_mqa", [rank + turned, hidden], bias)?;
        let norm = RmsNorm::load(mx, source, &format!("{path}.kv_a_layernorm"), rank, Offset::Zero)?;
        // MLX checkpoints have what the two become; where it is quantized, along another axis.
        let apart = source.weights.contains(&format!("{path}.embed_q.weight"));
        let [keys, values] = if apart {
            [
                source.numbers(mx, &format!("{path}.embed_q"), &[heads], [rank, key_dim])?,
                source.numbers(mx, &format!("{path}.unembed_out"), &[heads], [value_dim, rank])?,
            ]
        } else {
            let parts = [("keys", key_dim), ("values", value_dim)];
            source.weights.split_heads(mx, path, "kv_b_proj", heads, &parts)?;
            let keys = source.numbers(mx, &format!("{path}.keys"), &[], [heads * key_dim, rank])?;
            let values = source.numbers(mx, &format!("{path}.values"), &[], [heads * value_dim, rank])?;
            let by_head = |all: Array, out| all.reshape(&dims([heads, out, rank]));
            [by_head(keys, key_dim)?.swap_axes(1, 2)?, by_head(values, value_dim)?]
        };
        Ok(Self {
            query,
            down,
            norm: norm.with_eps(mx, norm_eps)?,
            keys: PerHead::new(mx, source, path, &keys)?,
            values: PerHead::new(mx, source, path, &values)?,
            output: linear(source, "o_proj", [hidden, heads * value_dim], bias)?,
            latent,
            heads,
            turned,
            scale: config.attention_scale,
            kernels: source.kernels(),
        })
    }

    /// `[tokens, hidden]` to the same, appending to layer `layer` of every row.
    pub fn forward(
        &self,
        mx: &Mlx,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let (tokens, Latent { rank, key_dim, value_dim, .. }) = (pass.step().tokens(), self.latent);
        let query = match &self.query {
            Query::Direct(query) => query.forward(mx, x)?,
            Query::Latent(down, norm, up) => up.forward(mx, &norm.forward(mx, &down.forward(mx, x)?)?)?,
        };
        let query = query.reshape(&dims([tokens, self.heads, key_dim + self.turned]))?;
        let [plain, border] = [key_dim as i32, rank as i32];
        let whole = |part: Array| if self.kernels == Kernels::Host { part.contiguous() } else { Ok(part) };
        let turned = rope.keys(mx, &whole(query.try_index((.., .., plain..))?)?)?;
        let absorbed = self.keys.product(mx, &query.try_index((.., .., ..plain))?)?;
        let query = rope.louder(mx, whole(mlx_rs::ops::concatenate(&[absorbed, turned], -1)?)?)?;
        let stored = self.down.forward(mx, x)?;
        let latent = self.norm.forward(mx, &whole(stored.try_index((.., ..border))?)?)?;
        let latent = latent.reshape(&dims([tokens, 1, rank]))?;
        let key = whole(stored.try_index((.., border..))?)?.reshape(&dims([tokens, 1, self.turned]))?;
        let key = rope.keys(mx, &key)?;
        let queries = Queries { array: &query, scale: self.scale, sinks: None };
        let attended = pass.attend(mx, layer, queries, Some([&key, &latent]))?;
        let attended = attended.reshape(&dims([tokens, self.heads, rank]))?;
        let values = self.values.product(mx, &attended)?.reshape(&dims([tokens, self.heads * value_dim]))?;
        self.output.forward(mx, &whole(values)?)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let query = match &self.query {
            Query::Direct(query) => query.arrays(),
            Query::Latent(down, norm, up) => {
                down.arrays().into_iter().chain(norm.arrays()).chain(up.arrays()).collect()
            }
        };
        let linears = [&self.down, &self.output].into_iter().flat_map(Linear::arrays);
        let per_head = self.keys.arrays().into_iter().chain(self.values.arrays());
        query.into_iter().chain(linears).chain(self.norm.arrays()).chain(per_head).collect()
    }
}

impl PerHead {
    /// Of matrices `[heads, out, in]` of module `path`.
    fn new(mx: &Mlx, source: &Source<'_>, path: &str, all: &Array) -> std::result::Result<Self, LoadError> {
        if source.kernels() == Kernels::Device {
            let stacked = all.swap_axes(1, 2)?;
            settle(mx, [&stacked])?;
            return Ok(Self::Stacked(stacked));
        }
        let shape = [all.dim(1) as usize, all.dim(2) as usize];
        let each = (0..all.dim(0)).map(|head| {
            let own = all.try_index(head)?.contiguous()?;
            settle(mx, [&own])?;
            Ok(Linear::new(Weight::Host(HostMatrix::plain(mx, path, shape, &own)?), None))
        });
        Ok(Self::Each(each.collect::<std::result::Result<_, LoadError>>()?))
    }

    /// `[tokens, heads, in]` to `[tokens, heads, out]`.
    fn product(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        match self {
            Self::Each(each) => {
                let own = (0..)
                    .zip(each)
                    .map(|(head, matrix)| matrix.forward(mx, &x.try_index((.., head))?.contiguous()?));
                Ok(mlx_rs::ops::stack(&own.collect::<Result<Vec<_>>>()?, 1)?)
            }
            Self::Stacked(stacked) => Ok(x.swap_axes(0, 1)?.matmul(stacked)?.swap_axes(0, 1)?),
        }
    }

    fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Each(each) => each.iter().flat_map(Linear::arrays).collect(),
            Self::Stacked(stacked) => vec![stacked],
        }
    }
}
