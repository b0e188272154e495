//! Where layers come from: the tensors, the configuration and the arithmetic of one model being loaded.

use std::rc::Rc;

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::fused::FusedKernels;
use super::host::HostMatrix;
use super::linear::Weight;
use super::scan::ScanKernels;
use crate::mlx::array::settle;
use crate::mlx::backend::{Arithmetic, Kernels};
use crate::mlx::config::ModelConfig;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::microfloat::MicroFloats;
use crate::mlx::product::DeviceProducts;
use crate::mlx::quantization::Coding;
use crate::mlx::weights::{LoadProgress, Weights};

/// A matrix `[out, in]` out of the files, on a device also stacked ones.
#[derive(Clone, Debug)]
pub enum Stored {
    /// On the host, in the file's format.
    Host(HostMatrix),
    /// Numbers, of the activations' type.
    Dense(Array),
    /// Codes.
    Codes(Codes),
    /// Floats of few bits.
    Micro(MicroFloats),
}

/// Affine codes as MLX holds them.
#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names, reason = "codes, scales and biases are MLX's names")]
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
    /// What multiplies them where MLX does not do it well.
    pub products: Option<Rc<DeviceProducts>>,
}

impl Codes {
    /// `[n, in]` to `[n, out]`.
    pub fn product(&self, mx: &Mlx, x: &Array) -> crate::mlx::array::Result<Array> {
        let Self { codes, scales, biases, group, bits, products } = self;
        match products {
            Some(products) => products.product(mx, x, self),
            None => Ok(mlx_rs::ops::quantized_matmul(x, codes, scales, biases, true, *group, *bits)?),
        }
    }

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
            Self::Micro(weight) => Weight::Micro(weight),
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
            Self::Micro(weight) => weight.arrays().to_vec(),
        }
    }

    /// One of stacked matrices.
    fn at(&self, index: i32) -> Result<Self, LoadError> {
        let one = |array: &Array| array.try_index(index)?.contiguous();
        Ok(match self {
            Self::Host(matrix) => Self::Host(matrix.clone()),
            Self::Dense(weight) => Self::Dense(one(weight)?),
            Self::Micro(weight) => Self::Micro(weight.at(index)?),
            Self::Codes(Codes { codes, scales, biases, group, bits, products }) => Self::Codes(Codes {
                codes: one(codes)?,
                scales: one(scales)?,
                biases: one(biases)?,
                group: *group,
                bits: *bits,
                products: products.clone(),
            }),
        })
    }

    /// A matrix of module `path` as the host multiplies it. Floats of few bits stay with MLX.
    fn on_host(self, mx: &Mlx, path: &str, shape: [usize; 2]) -> Result<Self, LoadError> {
        Ok(match self {
            Self::Dense(weight) => Self::Host(HostMatrix::plain(mx, path, shape, &weight)?),
            Self::Codes(codes) => Self::Host(HostMatrix::affine(mx, path, shape, &codes)?),
            Self::Host(_) | Self::Micro(_) => self,
        })
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
    /// Weights that a token is multiplied by, in the matrices taken so far.
    pub elements: u64,
    /// What multiplies codes where MLX does not do it well.
    pub products: Option<Rc<DeviceProducts>>,
    /// What takes small steps in one launch, where launches are what costs.
    pub fused: Option<Rc<FusedKernels>>,
    /// The steps of recurrent layers.
    pub scans: Option<Rc<ScanKernels>>,
    /// Do queries, keys and values come from one product? Where kernels take them so.
    pub joined: bool,
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

    /// A float tensor.
    pub fn tensor(&mut self, mx: &Mlx, path: &str, shape: &[usize]) -> Result<Array, LoadError> {
        self.take(mx, path, shape, Some(self.float()))
    }

    /// The matrix of module `path`, `[out, in]`.
    pub fn matrix(&mut self, mx: &Mlx, path: &str, out: usize, inner: usize) -> Result<Stored, LoadError> {
        self.elements += out as u64 * inner as u64;
        let stored = self.stored(mx, path, &[], [out, inner])?;
        if self.kernels() == Kernels::Host { stored.on_host(mx, path, [out, inner]) } else { Ok(stored) }
    }

    /// The same as numbers, whatever it is stored as, to be cut and turned; also of several, `[…, out, in]`.
    pub fn numbers(
        &mut self,
        mx: &Mlx,
        path: &str,
        lead: &[usize],
        [out, inner]: [usize; 2],
    ) -> Result<Array, LoadError> {
        self.elements += lead.iter().product::<usize>() as u64 * out as u64 * inner as u64;
        Ok(match self.stored(mx, path, lead, [out, inner])? {
            Stored::Host(_) => {
                return Err(LoadError::Weights(format!("{path} is packed, expected as stored")));
            }
            Stored::Dense(numbers) => numbers,
            Stored::Micro(weight) => weight.decode(mx)?.as_dtype(self.float())?,
            Stored::Codes(Codes { codes, scales, biases, group, bits, .. }) => {
                // A product of them is rounded to their type.
                let [scales, biases] = [scales.as_dtype(Dtype::Float32)?, biases.as_dtype(Dtype::Float32)?];
                mlx_rs::ops::dequantize(&codes, &scales, &biases, group, bits)?.as_dtype(self.float())?
            }
        })
    }

    /// The `count` stacked matrices of module `path`, each `[out, in]`, of which a token is multiplied by `used`: apart on the
    /// host, on a device as one.
    pub fn matrices(
        &mut self,
        mx: &Mlx,
        path: &str,
        [count, used]: [usize; 2],
        [out, inner]: [usize; 2],
    ) -> Result<Vec<Stored>, LoadError> {
        self.elements += used as u64 * out as u64 * inner as u64;
        let stacked = self.stored(mx, path, &[count], [out, inner])?;
        if self.kernels() == Kernels::Device {
            return Ok(vec![stacked]);
        }
        let each = (0..count as i32).map(|index| {
            let one = stacked.at(index)?.on_host(mx, path, [out, inner])?;
            // Now, or the stacked matrices of all layers would stay until the whole model is there.
            settle(mx, one.arrays())?;
            Ok(one)
        });
        each.collect()
    }

    /// The tensors of module `path`, `[…, out, in]`.
    fn stored(
        &mut self,
        mx: &Mlx,
        path: &str,
        lead: &[usize],
        [out, inner]: [usize; 2],
    ) -> Result<Stored, LoadError> {
        // Our kernels read every type; what MLX multiplies is of the activations' type.
        let float = if self.kernels() == Kernels::Host { None } else { Some(self.float()) };
        let shape = |width| [lead, &[out, width]].concat();
        let [weight, scales, biases] = ["weight", "scales", "biases"].map(|part| format!("{path}.{part}"));
        if !self.weights.contains(&scales) {
            return Ok(Stored::Dense(self.take(mx, &weight, &shape(inner), float)?));
        }
        let name = self.weights.module(path);
        let Some(coding) = self.config.quantization.as_ref().map(|quantization| quantization.of(name)) else {
            return Err(LoadError::Weights(format!(
                "{name} is quantized, but config.json names no quantization"
            )));
        };
        let (bits, group) = match coding {
            Coding::Affine(affine) => (affine.bits, affine.group),
            Coding::Micro(format) => (format.bits, format.group),
        };
        if !inner.is_multiple_of(group) || !(inner * bits).is_multiple_of(32) {
            return Err(LoadError::Weights(format!(
                "{name}: rows of {inner} in groups of {group}, {bits} bits"
            )));
        }
        let groups = shape(inner / group);
        let codes = self.take(mx, &weight, &shape(inner * bits / 32), float)?;
        let scales = self.take(mx, &scales, &groups, float)?;
        if codes.dtype() != Dtype::Uint32 {
            return Err(LoadError::Weights(format!("{weight} is {:?}, expected uint32", codes.dtype())));
        }
        let bytes = scales.dtype() == Dtype::Uint8;
        if bytes != matches!(coding, Coding::Micro(_)) {
            return Err(LoadError::Weights(format!(
                "{path}.scales are {:?}, which is not what config.json's quantization of this module has",
                scales.dtype()
            )));
        }
        if let Coding::Micro(format) = coding {
            return Ok(Stored::Micro(MicroFloats { codes, scales, format }));
        }
        let biases = self.take(mx, &biases, &groups, float)?;
        let codes = Codes {
            codes,
            scales,
            biases,
            group: group as i32,
            bits: bits as i32,
            products: self.products.clone(),
        };
        if let Some(products) = &codes.products {
            products.prove(mx, codes.bits, codes.group);
        }
        Ok(Stored::Codes(codes))
    }

    fn take(
        &mut self,
        mx: &Mlx,
        name: &str,
        shape: &[usize],
        float: Option<Dtype>,
    ) -> Result<Array, LoadError> {
        let array = self.weights.take(mx, name, shape, float)?;
        (self.progress)(self.weights.progress());
        Ok(array)
    }
}
