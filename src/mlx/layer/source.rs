//! Where layers come from: the tensors, the configuration and the arithmetic of one model being loaded.

use mlx_rs::{Array, Dtype};

use crate::mlx::array::settle;
use crate::mlx::backend::{Arithmetic, Kernels};
use crate::mlx::config::ModelConfig;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::weights::{LoadProgress, Weights};

/// How quantized weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// As numbers: faster where MLX has no good quantized product (the CPU), four to eight times the memory.
    Dense,
    /// As codes.
    Packed,
}

/// A matrix out of the files.
pub enum Stored {
    /// `[out, in]` numbers.
    Dense(Array),
    /// `[out, in]` codes, scales and biases, and how many bits and weights to a group.
    Packed {
        /// `[out, in * bits / 32]`, u32.
        codes: Array,
        /// `[out, in / group]`.
        scales: Array,
        /// `[out, in / group]`.
        biases: Array,
        /// Weights that share a scale.
        group: i32,
        /// Bits of a code.
        bits: i32,
    },
}

/// A model being loaded.
pub struct Source<'a> {
    /// Tensors left.
    pub weights: Weights,
    /// The model.
    pub config: &'a ModelConfig,
    /// How it will compute.
    pub arithmetic: Arithmetic,
    /// How quantized weights are held.
    pub holding: Holding,
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
        let array = self.weights.take(mx, &name, shape, float)?;
        (self.progress)(self.weights.progress());
        Ok(array)
    }

    /// The matrix of module `path`, `[out, in]`.
    pub fn matrix(&mut self, mx: &Mlx, path: &str, out: usize, inner: usize) -> Result<Stored, LoadError> {
        if !self.weights.contains(&self.name(&format!("{path}.scales"))) {
            return Ok(Stored::Dense(self.tensor(mx, &format!("{path}.weight"), &[out, inner])?));
        }
        let name = self.name(path);
        let Some(affine) = self.config.quantization.as_ref().map(|quantization| quantization.of(&name)) else {
            return Err(LoadError::Weights(format!("{name} is quantized, but config.json names no quantization")));
        };
        if !inner.is_multiple_of(affine.group) || !(inner * affine.bits).is_multiple_of(32) {
            let (bits, group) = (affine.bits, affine.group);
            return Err(LoadError::Weights(format!("{name}: rows of {inner} in groups of {group}, {bits} bits")));
        }
        let groups = [out, inner / affine.group];
        let codes = self.tensor(mx, &format!("{path}.weight"), &[out, inner * affine.bits / 32])?;
        let scales = self.tensor(mx, &format!("{path}.scales"), &groups)?;
        let biases = self.tensor(mx, &format!("{path}.biases"), &groups)?;
        if codes.dtype() != Dtype::Uint32 {
            return Err(LoadError::Weights(format!("{name}.weight is {:?}, expected uint32", codes.dtype())));
        }
        let (group, bits) = (affine.group as i32, affine.bits as i32);
        match self.holding {
            Holding::Packed => Ok(Stored::Packed { codes, scales, biases, group, bits }),
            Holding::Dense => {
                let weight = mlx_rs::ops::dequantize(&codes, &scales, &biases, group, bits)?;
                settle(mx, [&weight])?;
                Ok(Stored::Dense(weight))
            }
        }
    }
}
