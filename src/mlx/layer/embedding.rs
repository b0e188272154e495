//! Tokens to vectors, and vectors to logits.

use mlx_rs::ops::indexing::take_axis;
use mlx_rs::{Array, Dtype};

use super::linear::{Linear, Weight};
use super::source::{Codes, Source, Stored};
use crate::mlx::array::{Result, from_vec, host};
use crate::mlx::backend::Kernels;
use crate::mlx::config::Head;
use crate::mlx::cpu::activation::capped;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::microfloat::MicroFloats;

/// A table `[vocab, hidden]`, as stored: only the rows of a step's tokens are ever decoded.
#[derive(Debug)]
pub struct Embedding {
    table: Stored,
    float: Dtype,
}

impl Embedding {
    /// Module `path`.
    pub fn load(mx: &Mlx, source: &mut Source<'_>, path: &str) -> std::result::Result<Self, LoadError> {
        let (vocab, hidden) = (source.config.vocab, source.config.hidden);
        Ok(Self { table: source.matrix(mx, path, vocab, hidden)?, float: source.float() })
    }

    /// Module `path`, of so many rows and elements, whose transpose is not the output projection.
    pub fn table(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        [rows, width]: [usize; 2],
    ) -> std::result::Result<Self, LoadError> {
        let elements = source.elements;
        let table = source.matrix(mx, path, rows, width)?;
        // Nothing is multiplied by it.
        source.elements = elements;
        Ok(Self { table, float: source.float() })
    }

    /// `[n]` tokens to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, tokens: &Array) -> Result<Array> {
        Ok(match &self.table {
            Stored::Host(table) => table.rows(mx, tokens)?,
            Stored::Dense(table) => take_axis(table, tokens, 0)?,
            Stored::Micro(table) => {
                let rows = |array: &Array| take_axis(array, tokens, 0);
                let [codes, scales] = [rows(&table.codes)?, rows(&table.scales)?];
                let rows = MicroFloats { codes, scales, format: table.format };
                rows.decode(mx)?.as_dtype(self.float)?
            }
            Stored::Codes(Codes { codes, scales, biases, group, bits, .. }) => mlx_rs::ops::dequantize(
                take_axis(codes, tokens, 0)?,
                take_axis(scales, tokens, 0)?,
                &take_axis(biases, tokens, 0)?,
                *group,
                *bits,
            )?,
        })
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        self.table.arrays()
    }
}

/// The output projection: a matrix of its own or the embedding's.
#[derive(Debug)]
pub struct Unembedding {
    weight: UnembeddingWeight,
    cap: Option<f32>,
    kernels: Kernels,
}

#[derive(Debug)]
enum UnembeddingWeight {
    Own(Linear),
    Tied(Weight),
}

impl Unembedding {
    /// `lm_head`, or `embedding` transposed, as the model says.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        embedding: &Embedding,
    ) -> std::result::Result<Self, LoadError> {
        let tied = match source.config.head {
            Head::Tied => true,
            Head::Separate => false,
            Head::AsStored => !source.weights.contains("lm_head.weight"),
        };
        let weight = if tied {
            for part in ["weight", "scales", "biases"] {
                source.weights.discard(&format!("lm_head.{part}"));
            }
            UnembeddingWeight::Tied(embedding.table.clone().into_weight(mx)?)
        } else {
            let shape = [source.config.vocab, source.config.hidden];
            UnembeddingWeight::Own(Linear::load(mx, source, "lm_head", shape, false)?)
        };
        Ok(Self { weight, cap: source.config.logit_cap, kernels: source.kernels() })
    }

    /// `[n, hidden]` to logits `[n, vocab]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        let logits = match &self.weight {
            UnembeddingWeight::Own(linear) => linear.forward(mx, x)?,
            UnembeddingWeight::Tied(weight) => weight.product(mx, x)?,
        };
        match (self.cap, self.kernels) {
            (None, _) => Ok(logits),
            (Some(cap), Kernels::Host) => {
                let mut out = vec![0.0; logits.size()];
                capped(cap, host(mx, &logits)?, &mut out);
                from_vec(mx, out, logits.shape())
            }
            (Some(cap), Kernels::Device) => {
                let cap = Array::from_f32(cap).as_dtype(logits.dtype())?;
                Ok(mlx_rs::ops::tanh(logits.divide(&cap)?)?.multiply(&cap)?)
            }
        }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        match &self.weight {
            UnembeddingWeight::Own(linear) => linear.arrays(),
            UnembeddingWeight::Tied(weight) => weight.arrays(),
        }
    }
}
