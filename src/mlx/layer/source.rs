//! Where layers come from: the tensors, the configuration and the arithmetic of one model being loaded.

use mlx_rs::{Array, Dtype};

use super::host::HostMatrix;
use super::linear::Weight;
use crate::mlx::array::settle;
use crate::mlx::backend::{Arithmetic, Kernels};
use crate::mlx::config::ModelConfig;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::weights::{LoadProgress, Weights};

/// A matrix `[out, in]` out of the files.
#[derive(Clone, Debug)]
pub enum Stored {
    /// On the host, in the file's format.
    Host(HostMatrix),
    /// Numbers, of the activations' type.
    Dense(Array),
    /// Codes.
    Codes(Codes),
}

/// Affine codes as MLX holds them.
#[derive(Clone, Debug)]
pub struct Codes {
    /// `[out, in * bits / 32]`, u32.
    pub codes: Array,
    /// `[out, in / group]`.
    pub scales: Array,
    /// `[out, in / group]`.
    pub biases: Array,
    /// Weights that share a scale.
    pub group: i32,
    /// Bits of a code.
    pub bits: i32,
}

impl Codes {
    /// The arrays it holds.
    pub fn arrays(&self) -> [&Array; 3] {
        [&self.codes, &self.scales, &self.biases]
    }
}

impl Stored {
    /// The same, ready to multiply.
    pub fn into_weight(self, mx: &Mlx) -> Result<Weight, LoadError> {
        Ok(match self {
            Self::Host(matrix) => Weight::Host(matrix),
            Self::Codes(codes) => Weight::Codes(codes),
            Self::Dense(weight) => {
                let transposed = weight.swap_axes(-1, -2)?;
                settle(mx, [&transposed])?;
                Weight::Dense(transposed)
            }
        })
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Host(_) => Vec::new(),
            Self::Dense(numbers) => vec![numbers],
            Self::Codes(codes) => codes.arrays().to_vec(),
        }
    }
}

/// A model being loaded.
pub struct Source<'a> {
    /// Tensors left.
    pub weights: Weights,
    /// The model.
    pub config: &'a ModelConfig,
    /// How it will compute.
    pub arithmetic: Arithmetic,
    /// Weights in the matrices taken so far.
    pub elements: u64,
    /// Told after every tensor.
    pub progress: &'a mut dyn FnMut(LoadProgress),
}

impl Source<'_> {
    /// Who computes.
    pub fn kernels(&self) -> Kernels {
        self.arithmetic.kernels
    }

    /// Type of activations.
    pub fn float(&self) -> Dtype {
        self.arithmetic.float
    }

    /// The full name of a tensor or module.
    pub fn name(&self, path: &str) -> String {
        format!("{}{path}", self.config.prefix)
    }

    /// A float tensor.
    pub fn tensor(&mut self, mx: &Mlx, path: &str, shape: &[usize]) -> Result<Array, LoadError> {
        let (name, float) = (self.name(path), self.float());
        let array = self.weights.take(mx, &name, shape, Some(float))?;
        (self.progress)(self.weights.progress());
        Ok(array)
    }

    /// The matrix of module `path`, `[out, in]`.
    pub fn matrix(&mut self, mx: &Mlx, path: &str, out: usize, inner: usize) -> Result<Stored, LoadError> {
        self.elements += out as u64 * inner as u64;
        let name = self.name(path);
        let host = self.kernels() == Kernels::Host;
        // Our kernels read every type; what MLX multiplies is of the activations' type.
        let float = if host { None } else { Some(self.float()) };
        let quantized = self.weights.contains(&format!("{name}.scales"));
        let mut take = |part: &str, shape: &[usize]| {
            let array = self.weights.take(mx, &format!("{name}.{part}"), shape, float)?;
            (self.progress)(self.weights.progress());
            Ok::<_, LoadError>(array)
        };
        if !quantized {
            let weights = take("weight", &[out, inner])?;
            return Ok(if host {
                Stored::Host(HostMatrix::plain(mx, &name, [out, inner], &weights)?)
            } else {
                Stored::Dense(weights)
            });
        }
        let Some(affine) = self.config.quantization.as_ref().map(|quantization| quantization.of(&name))
        else {
            return Err(LoadError::Weights(format!(
                "{name} is quantized, but config.json names no quantization"
            )));
        };
        let (bits, group) = (affine.bits, affine.group);
        if !inner.is_multiple_of(group) || !(inner * bits).is_multiple_of(32) {
            return Err(LoadError::Weights(format!(
                "{name}: rows of {inner} in groups of {group}, {bits} bits"
            )));
        }
        let groups = [out, inner / group];
        let codes = take("weight", &[out, inner * bits / 32])?;
        let (scales, biases) = (take("scales", &groups)?, take("biases", &groups)?);
        if codes.dtype() != Dtype::Uint32 {
            return Err(LoadError::Weights(format!("{name}.weight is {:?}, expected uint32", codes.dtype())));
        }
        let codes = Codes { codes, scales, biases, group: group as i32, bits: bits as i32 };
        Ok(if host {
            Stored::Host(HostMatrix::affine(mx, &name, [out, inner], &codes)?)
        } else {
            Stored::Codes(codes)
        })
    }
}
