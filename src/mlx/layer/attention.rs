//! Self-attention: projections, norms and rotation around [`crate::mlx::attention`].

use mlx_rs::Array;

use super::linear::Linear;
use super::norm::{Offset, RmsNorm};
use super::source::Source;
use crate::mlx::array::{Result, dims, from_vec, host, reshaped};
use crate::mlx::attention::{Projected, Queries};
use crate::mlx::backend::Kernels;
use crate::mlx::config::AttentionBias;
use crate::mlx::cpu::activation::opened;
use crate::mlx::error::{LoadError, MlxError};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::Vectors;
use crate::mlx::pass::Pass;
use crate::mlx::rope::RopeAt;

/// Where a layer's keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValues {
    /// A projection each.
    Projected,
    /// A projection each; heads of values are normalized, without weights.
    Normalized,
    /// One projection: values are what keys are before their norm and rotation, normalized without weights.
    Alike,
    /// Another layer's.
    Shared,
}

/// Query, key, value and output projections, and norms of heads where the family has them.
#[derive(Debug)]
pub struct SelfAttention {
    inputs: Inputs,
    output: Linear,
    gate: Option<Linear>,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    value_norm: Option<RmsNorm>,
    /// `[heads]`.
    sinks: Option<Array>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f32,
    kernels: Kernels,
}

/// The projections of what goes in.
#[derive(Debug)]
enum Inputs {
    /// A product each.
    Apart { query: Linear, key: Option<Linear>, value: Option<Linear> },
    /// Queries, keys and values out of one product, for kernels that take them so.
    Joined(Linear),
}

impl SelfAttention {
    /// Module `path`; `norms` says whether query and key heads are normalized, and how their weights are stored.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        norms: Option<Offset>,
    ) -> std::result::Result<Self, LoadError> {
        let heads = Vectors { heads: source.config.kv_heads, width: source.config.head_dim };
        Self::load_as(mx, source, path, norms, heads, KeyValues::Projected)
    }

    /// The same with key and value heads of this shape, which come from `key_values`.
    pub fn load_as(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        norms: Option<Offset>,
        Vectors { heads: kv_heads, width: head_dim }: Vectors,
        key_values: KeyValues,
    ) -> std::result::Result<Self, LoadError> {
        let config = source.config;
        let (hidden, heads) = (config.hidden, config.heads);
        let (bias, output_bias) = match config.attention_bias {
            AttentionBias::Never => (false, false),
            AttentionBias::Inputs => (true, false),
            AttentionBias::All => (true, true),
        };
        let gate = if config.attention_gate {
            let parts = [("q_proj", head_dim), ("gate_proj", head_dim)];
            source.weights.split_heads(mx, path, "q_proj", heads, &parts)?;
            Some(Linear::load(mx, source, &format!("{path}.gate_proj"), [heads * head_dim, hidden], bias)?)
        } else {
            None
        };
        let (own, projected) = match key_values {
            KeyValues::Projected | KeyValues::Normalized => (true, true),
            KeyValues::Alike => (true, false),
            KeyValues::Shared => (false, false),
        };
        let query = Linear::load(mx, source, &format!("{path}.q_proj"), [heads * head_dim, hidden], bias)?;
        let output =
            Linear::load(mx, source, &format!("{path}.o_proj"), [hidden, heads * head_dim], output_bias)?;
        let mut linear = |there: bool, name: &str, shape| {
            there.then(|| Linear::load(mx, source, &format!("{path}.{name}"), shape, bias)).transpose()
        };
        let key = linear(own, "k_proj", [kv_heads * head_dim, hidden])?;
        let value = linear(projected, "v_proj", [kv_heads * head_dim, hidden])?;
        let mut norm = |there: bool, name: &str| {
            let norm = norms.filter(|_| there);
            norm.map(|offset| RmsNorm::load(mx, source, &format!("{path}.{name}"), head_dim, offset))
                .transpose()
        };
        let (query_norm, key_norm) = (norm(true, "q_norm")?, norm(own, "k_norm")?);
        let value_norm = match key_values {
            KeyValues::Projected | KeyValues::Shared => None,
            KeyValues::Normalized | KeyValues::Alike => Some(RmsNorm::plain(mx, source, head_dim)?),
        };
        let joined = match (&key, &value, key_values) {
            (Some(key), Some(value), KeyValues::Projected) if source.joined => {
                Linear::side_by_side(mx, &[&query, key, value])?
            }
            _ => None,
        };
        Ok(Self {
            inputs: joined.map_or(Inputs::Apart { query, key, value }, Inputs::Joined),
            output,
            gate,
            query_norm,
            key_norm,
            value_norm,
            sinks: if config.sinks {
                Some(source.tensor(mx, &format!("{path}.sinks"), &[heads])?)
            } else {
                None
            },
            heads,
            kv_heads,
            head_dim,
            scale: config.attention_scale,
            kernels: source.kernels(),
        })
    }

    /// `[tokens, hidden]` to the same, appending to layer `layer` of every row, counted among those with keys and values; one
    /// that reads another's names that.
    pub fn forward(
        &self,
        mx: &Mlx,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let (query, key, value) = match &self.inputs {
            Inputs::Apart { query, key, value } => (query, key.as_ref(), value.as_ref()),
            Inputs::Joined(joined) => return self.forward_joined(mx, joined, x, rope, pass, layer),
        };
        let tokens = pass.step().tokens();
        let split = |x: Array, heads| -> Result<Array> {
            let shape = dims([tokens, heads, self.head_dim]);
            match self.kernels {
                Kernels::Host => reshaped(mx, &x, &shape),
                Kernels::Device => Ok(x.reshape(&shape)?),
            }
        };
        let all = [Some(query), key, value, self.gate.as_ref()];
        let there: Vec<&Linear> = all.into_iter().flatten().collect();
        let mut products = Linear::forward_each(mx, x, &there)?.into_iter();
        let [query, key, value, gate] = all.map(|linear| linear.and_then(|_| products.next()));
        let query = query.ok_or_else(|| MlxError::backend("a product was lost".into()))?;
        let mut query = split(query, self.heads)?;
        let key = key.map(|key| split(key, self.kv_heads)).transpose()?;
        let value = value.map(|value| split(value, self.kv_heads)).transpose()?;
        if let Some(norm) = &self.query_norm {
            query = norm.forward(mx, &query)?;
        }
        let query = rope.queries(mx, &query)?;
        let new = key.map(|key| self.prepared(mx, &key, value.as_ref(), rope)).transpose()?;
        let new = new.as_ref().map(|[key, value]| [key, value]);
        let queries = Queries { array: &query, scale: self.scale, sinks: self.sinks.as_ref() };
        let mut attended = pass.attend(mx, layer, queries, new)?;
        if let Some(gate) = gate {
            attended = match self.kernels {
                Kernels::Host => {
                    let mut out = vec![0.0; attended.size()];
                    opened(host(mx, &gate)?, host(mx, &attended)?, &mut out);
                    from_vec(mx, out, attended.shape())?
                }
                Kernels::Device => attended.multiply(mlx_rs::ops::sigmoid(gate)?)?,
            };
        }
        self.output.forward(mx, &attended)
    }

    /// The same where one product makes queries, keys and values.
    fn forward_joined(
        &self,
        mx: &Mlx,
        joined: &Linear,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let turn =
            rope.turn().ok_or_else(|| MlxError::backend("queries that turn otherwise than keys".into()))?;
        let vectors = joined.forward(mx, x)?;
        let norms = self.query_norm.as_ref().zip(self.key_norm.as_ref()).map(|(query, key)| [query, key]);
        let (heads, scale, sinks) = (self.heads, self.scale, self.sinks.as_ref());
        let mut attended = pass.attend_projected(
            mx,
            layer,
            Projected { vectors: &vectors, heads, norms, turn, scale, sinks },
        )?;
        if let Some(gate) = &self.gate {
            attended = attended.multiply(mlx_rs::ops::sigmoid(gate.forward(mx, x)?)?)?;
        }
        self.output.forward(mx, &attended)
    }

    /// Keys and values of the new tokens, as they are stored, out of what was projected.
    fn prepared(
        &self,
        mx: &Mlx,
        key: &Array,
        value: Option<&Array>,
        rope: &RopeAt<'_>,
    ) -> Result<[Array; 2]> {
        let normed = |norm: &Option<RmsNorm>, x: &Array| match norm {
            Some(norm) => norm.forward(mx, x),
            None => Ok(x.clone()),
        };
        let value = normed(&self.value_norm, value.unwrap_or(key))?;
        Ok([rope.keys(mx, &normed(&self.key_norm, key)?)?, value])
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let inputs = match &self.inputs {
            Inputs::Apart { query, key, value } => [Some(query), key.as_ref(), value.as_ref()],
            Inputs::Joined(joined) => [Some(joined), None, None],
        };
        let linears = inputs.into_iter().flatten().chain([&self.output]).chain(&self.gate);
        let norms = [&self.query_norm, &self.key_norm, &self.value_norm];
        let norms = norms.into_iter().flatten().flat_map(RmsNorm::arrays);
        linears.flat_map(Linear::arrays).chain(norms).chain(&self.sinks).collect()
    }
}
