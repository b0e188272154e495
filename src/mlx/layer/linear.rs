//! A matrix product, with a bias where the model has one.

use mlx_rs::Array;

use super::source::Source;
use crate::mlx::array::Result;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// `x W^T + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Array>,
}

/// A weight matrix, ready to multiply.
#[derive(Debug)]
pub enum Weight {
    /// `[in, out]`.
    Dense(Array),
    /// `[out, in]` as codes.
    Packed { codes: Array, scales: Array, biases: Array, group: i32, bits: i32 },
}

impl Weight {
    /// `[n, in]` to `[n, out]`.
    pub fn product(&self, _: &Mlx, x: &Array) -> Result<Array> {
        Ok(match self {
            Self::Dense(weight) => x.matmul(weight)?,
            Self::Packed { codes, scales, biases, group, bits } => {
                mlx_rs::ops::quantized_matmul(x, codes, scales, biases, true, *group, *bits)?
            }
        })
    }

    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Dense(weight) => vec![weight],
            Self::Packed { codes, scales, biases, .. } => vec![codes, scales, biases],
        }
    }
}

impl Linear {
    /// Module `path` with `out` outputs over `inner` inputs.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        [out, inner]: [usize; 2],
        bias: bool,
    ) -> std::result::Result<Self, LoadError> {
        let stored = source.matrix(mx, path, out, inner)?;
        let weight = source.weight(mx, stored)?;
        let bias = if bias { Some(source.tensor(mx, &format!("{path}.bias"), &[out])?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        let product = self.weight.product(mx, x)?;
        Ok(match &self.bias {
            Some(bias) => product.add(bias)?,
            None => product,
        })
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        self.weight.arrays().into_iter().chain(&self.bias).collect()
    }
}
