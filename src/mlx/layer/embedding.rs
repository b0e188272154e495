//! Tokens to vectors, and vectors to logits.

use mlx_rs::Array;
use mlx_rs::ops::indexing::take_axis;

use super::linear::{Linear, Weight};
use super::source::{Source, Stored};
use crate::mlx::array::Result;
use crate::mlx::config::Head;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// A table `[vocab, hidden]`.
#[derive(Debug)]
pub struct Embedding {
    table: Table,
}

#[derive(Debug)]
enum Table {
    Dense(Array),
    Packed { codes: Array, scales: Array, biases: Array, group: i32, bits: i32 },
}

impl Embedding {
    /// Module `path`.
    pub fn load(mx: &Mlx, source: &mut Source<'_>, path: &str) -> std::result::Result<Self, LoadError> {
        let (vocab, hidden) = (source.config.vocab, source.config.hidden);
        let table = match source.matrix(mx, path, vocab, hidden)? {
            Stored::Dense(table) => Table::Dense(table),
            Stored::Packed { codes, scales, biases, group, bits } => {
                Table::Packed { codes, scales, biases, group, bits }
            }
        };
        Ok(Self { table })
    }

    /// `[n]` tokens to `[n, hidden]`.
    pub fn forward(&self, _: &Mlx, tokens: &Array) -> Result<Array> {
        Ok(match &self.table {
            Table::Dense(table) => take_axis(table, tokens, 0)?,
            Table::Packed { codes, scales, biases, group, bits } => mlx_rs::ops::dequantize(
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
        match &self.table {
            Table::Dense(table) => vec![table],
            Table::Packed { codes, scales, biases, .. } => vec![codes, scales, biases],
        }
    }

    /// The same table as a product (it shares the memory).
    fn transposed(&self, mx: &Mlx) -> Result<Weight> {
        Weight::new(
            mx,
            match &self.table {
                Table::Dense(table) => Stored::Dense(table.clone()),
                Table::Packed { codes, scales, biases, group, bits } => Stored::Packed {
                    codes: codes.clone(),
                    scales: scales.clone(),
                    biases: biases.clone(),
                    group: *group,
                    bits: *bits,
                },
            },
        )
    }
}

/// The output projection: a matrix of its own or the embedding's.
#[derive(Debug)]
pub struct Unembedding {
    weight: UnembeddingWeight,
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
            Head::AsStored => !source.weights.contains(&source.name("lm_head.weight")),
        };
        let weight = if tied {
            for part in ["weight", "scales", "biases"] {
                let name = source.name(&format!("lm_head.{part}"));
                source.weights.discard(&name);
            }
            UnembeddingWeight::Tied(embedding.transposed(mx)?)
        } else {
            let shape = [source.config.vocab, source.config.hidden];
            UnembeddingWeight::Own(Linear::load(mx, source, "lm_head", shape, false)?)
        };
        Ok(Self { weight })
    }

    /// `[n, hidden]` to logits `[n, vocab]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        match &self.weight {
            UnembeddingWeight::Own(linear) => linear.forward(mx, x),
            UnembeddingWeight::Tied(weight) => weight.product(mx, x),
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
