//! Root-mean-square norm of the last axis.

use mlx_rs::Array;

use super::source::Source;
use crate::mlx::array::{Result, dims, from_f32, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::cpu::norm::rms_norm;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// `x / rms(x) * w`.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Array,
    eps: f32,
    kernels: Kernels,
}

/// What is added to a stored norm weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// Nothing.
    Zero,
    /// 1: Gemma stores the distance from it.
    One,
}

impl RmsNorm {
    /// Module `path` over `width` elements.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        width: usize,
        offset: Offset,
    ) -> std::result::Result<Self, LoadError> {
        let mut weight = source.tensor(mx, &format!("{path}.weight"), &[width])?;
        if offset == Offset::One {
            let one = Array::from_f32(1.0).as_dtype(weight.dtype())?;
            weight = weight.add(&one)?;
            settle(mx, [&weight])?;
        }
        Ok(Self { weight, eps: source.config.norm_eps, kernels: source.kernels() })
    }

    /// Of weights that are tensor `name` times `factor`.
    pub fn scaled(
        mx: &Mlx,
        source: &mut Source<'_>,
        name: &str,
        width: usize,
        factor: f32,
    ) -> std::result::Result<Self, LoadError> {
        let weight = source.tensor(mx, name, &[width])?;
        let weight = weight.multiply(Array::from_f32(factor).as_dtype(weight.dtype())?)?;
        settle(mx, [&weight])?;
        Ok(Self { weight, eps: source.config.norm_eps, kernels: source.kernels() })
    }

    /// Without weights, over `width` elements.
    pub fn plain(mx: &Mlx, source: &Source<'_>, width: usize) -> std::result::Result<Self, LoadError> {
        let weight = from_f32(mx, &vec![1.0; width], &dims([width]))?.as_dtype(source.float())?;
        settle(mx, [&weight])?;
        Ok(Self { weight, eps: source.config.norm_eps, kernels: source.kernels() })
    }

    /// The same with its own number added to the mean square.
    pub fn with_eps(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// Normalizes the last axis.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        match self.kernels {
            Kernels::Host => self.on_host(mx, x, None),
            Kernels::Device => Ok(mlx_rs::fast::rms_norm(x, Some(&self.weight), self.eps)?),
        }
    }

    /// `residual + norm(x)`.
    pub fn forward_add(&self, mx: &Mlx, x: &Array, residual: &Array) -> Result<Array> {
        match self.kernels {
            Kernels::Host => self.on_host(mx, x, Some(residual)),
            Kernels::Device => Ok(residual.add(&self.forward(mx, x)?)?),
        }
    }

    fn on_host(&self, mx: &Mlx, x: &Array, residual: Option<&Array>) -> Result<Array> {
        let mut out = vec![0.0; x.size()];
        let residual = residual.map(|residual| host::<f32>(mx, residual)).transpose()?;
        rms_norm(host(mx, x)?, host(mx, &self.weight)?, self.eps, residual, &mut out);
        from_f32(mx, &out, x.shape())
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        std::iter::once(&self.weight)
    }
}
