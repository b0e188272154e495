//! Self-attention: projections, norms and rotation around [`crate::mlx::attention`].

use mlx_rs::Array;

use super::linear::Linear;
use super::norm::{Offset, RmsNorm};
use super::source::Source;
use crate::mlx::array::{Result, dims, from_f32, host, settle};
use crate::mlx::attention::Queries;
use crate::mlx::backend::Kernels;
use crate::mlx::config::AttentionBias;
use crate::mlx::cpu::activation::opened;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;
use crate::mlx::rope::RopeAt;

/// Query, key, value and output projections, and norms of query and key heads where the family has them.
#[derive(Debug)]
pub struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    gate: Option<Linear>,
    norms: Option<[RmsNorm; 2]>,
    /// `[heads]`.
    sinks: Option<Array>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f32,
    kernels: Kernels,
}

impl SelfAttention {
    /// Module `path`; `norms` says whether query and key heads are normalized, and how their weights are stored.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        norms: Option<Offset>,
    ) -> std::result::Result<Self, LoadError> {
        let config = source.config;
        let (hidden, heads, kv_heads, head_dim) =
            (config.hidden, config.heads, config.kv_heads, config.head_dim);
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
        Ok(Self {
            gate,
            query: Linear::load(mx, source, &format!("{path}.q_proj"), [heads * head_dim, hidden], bias)?,
            key: Linear::load(mx, source, &format!("{path}.k_proj"), [kv_heads * head_dim, hidden], bias)?,
            value: Linear::load(mx, source, &format!("{path}.v_proj"), [kv_heads * head_dim, hidden], bias)?,
            output: Linear::load(
                mx,
                source,
                &format!("{path}.o_proj"),
                [hidden, heads * head_dim],
                output_bias,
            )?,
            norms: match norms {
                None => None,
                Some(offset) => Some([
                    RmsNorm::load(mx, source, &format!("{path}.q_norm"), head_dim, offset)?,
                    RmsNorm::load(mx, source, &format!("{path}.k_norm"), head_dim, offset)?,
                ]),
            },
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

    /// `[tokens, hidden]` to the same, appending to layer `layer` of every row, counted among those with attention.
    pub fn forward(
        &self,
        mx: &Mlx,
        x: &Array,
        rope: &RopeAt<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let tokens = pass.step().tokens();
        let split = |x: Array, heads| x.reshape(&dims([tokens, heads, self.head_dim]));
        let (query, key, value, gate) = match &self.gate {
            None => {
                let [query, key, value] = Linear::forward_all(mx, x, [&self.query, &self.key, &self.value])?;
                (query, key, value, None)
            }
            Some(gate) => {
                let all = [&self.query, &self.key, &self.value, gate];
                let [query, key, value, gate] = Linear::forward_all(mx, x, all)?;
                (query, key, value, Some(gate))
            }
        };
        let mut query = split(query, self.heads)?;
        let mut key = split(key, self.kv_heads)?;
        let value = split(value, self.kv_heads)?;
        if self.kernels == Kernels::Host {
            // One wait for all three, instead of one for each that the host reads.
            settle(mx, [&query, &key, &value])?;
        }
        if let Some([query_norm, key_norm]) = &self.norms {
            (query, key) = (query_norm.forward(mx, &query)?, key_norm.forward(mx, &key)?);
        }
        (query, key) = (rope.queries(mx, &query)?, rope.keys(mx, &key)?);
        let queries = Queries { array: &query, scale: self.scale, sinks: self.sinks.as_ref() };
        let mut attended = pass.attend(mx, layer, queries, [&key, &value])?;
        if let Some(gate) = gate {
            attended = match self.kernels {
                Kernels::Host => {
                    let mut out = vec![0.0; attended.size()];
                    opened(host(mx, &gate)?, host(mx, &attended)?, &mut out);
                    from_f32(mx, &out, attended.shape())?
                }
                Kernels::Device => attended.multiply(mlx_rs::ops::sigmoid(gate)?)?,
            };
        }
        self.output.forward(mx, &attended)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let linears = [&self.query, &self.key, &self.value, &self.output].into_iter().chain(&self.gate);
        let norms = self.norms.iter().flatten().flat_map(RmsNorm::arrays);
        linears.flat_map(Linear::arrays).chain(norms).chain(&self.sinks).collect()
    }
}
