//! Root-mean-square norm of the last axis.

use std::rc::Rc;

use mlx_rs::Array;

use super::fused::FusedKernels;
use super::source::Source;
use crate::mlx::array::{Result, added, dims, from_f32, from_vec, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::cpu::norm::rms_norm;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// `x / rms(x) * w`.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Array,
    eps: f32,
    /// `[1]`, f32: the same for kernels on a device.
    eps_array: Array,
    kernels: Kernels,
    fused: Option<Rc<FusedKernels>>,
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
        Self::of(mx, source, weight)
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
        Self::of(mx, source, weight)
    }

    /// Without weights, over `width` elements.
    pub fn plain(mx: &Mlx, source: &Source<'_>, width: usize) -> std::result::Result<Self, LoadError> {
        let weight = from_f32(mx, &vec![1.0; width], &dims([width]))?.as_dtype(source.float())?;
        settle(mx, [&weight])?;
        Self::of(mx, source, weight)
    }

    fn of(mx: &Mlx, source: &Source<'_>, weight: Array) -> std::result::Result<Self, LoadError> {
        let (eps, kernels, fused) = (source.config.norm_eps, source.kernels(), source.fused.clone());
        Ok(Self { weight, eps, eps_array: from_f32(mx, &[eps], &[1])?, kernels, fused })
    }

    /// The same with its own number added to the mean square.
    pub fn with_eps(self, mx: &Mlx, eps: f32) -> std::result::Result<Self, LoadError> {
        Ok(Self { eps, eps_array: from_f32(mx, &[eps], &[1])?, ..self })
    }

    /// What elements are multiplied by, `[width]`.
    pub fn weight(&self) -> &Array {
        &self.weight
    }

    /// What is added to the mean square, `[1]`, f32.
    pub fn eps(&self) -> &Array {
        &self.eps_array
    }

    /// Normalizes the last axis.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        match self.kernels {
            Kernels::Host => self.on_host(mx, x, None),
            Kernels::Device => Ok(mlx_rs::fast::rms_norm(x, Some(&self.weight), self.eps)?),
        }
    }

    /// `x + more`, and the norm of it.
    pub fn forward_sum(&self, mx: &Mlx, x: &Array, more: &Array) -> Result<[Array; 2]> {
        if let Some(fused) = &self.fused {
            return fused.add_norm(mx, x, more, &self.weight, &self.eps_array);
        }
        let sum = match self.kernels {
            Kernels::Host => added(mx, x, more)?,
            Kernels::Device => x.add(more)?,
        };
        let normed = self.forward(mx, &sum)?;
        Ok([sum, normed])
    }

    /// `x` with what is still to be added to it, if anything is, and the norm of it.
    pub fn forward_after(&self, mx: &Mlx, x: Array, more: Option<Array>) -> Result<[Array; 2]> {
        if let Some(more) = more {
            return self.forward_sum(mx, &x, &more);
        }
        let normed = self.forward(mx, &x)?;
        Ok([x, normed])
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
        from_vec(mx, out, x.shape())
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.weight, &self.eps_array].into_iter()
    }
}
