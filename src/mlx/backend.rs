//! What computes: decided at run time by the MLX library that was loaded.

use mlx_rs::{Device, DeviceType, Dtype};

use super::array::Result;
use super::gate::Mlx;

/// Who runs what MLX has no good CPU code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Our kernels, over the arrays' memory ([`super::cpu`]).
    Host,
    /// MLX's operations, on whatever device is the default.
    Device,
}

/// The device behind MLX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Processor cores.
    Cpu,
    /// Apple's GPU.
    Metal,
    /// NVIDIA's GPU.
    Cuda,
}

impl Backend {
    /// The backend of MLX's default device.
    pub fn detect(_: &Mlx) -> Result<Self> {
        Ok(match Device::try_default()?.get_type()? {
            DeviceType::Cpu => Self::Cpu,
            DeviceType::Gpu if cfg!(target_os = "macos") => Self::Metal,
            DeviceType::Gpu => Self::Cuda,
        })
    }

    /// As the user reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
        }
    }

    /// How this backend computes best.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            // Half floats have no fast CPU path in MLX: they run at a hundredth of the f32 rate.
            Self::Cpu => Arithmetic { kernels: Kernels::Host, float: Dtype::Float32 },
            Self::Metal | Self::Cuda => Arithmetic { kernels: Kernels::Device, float: Dtype::Bfloat16 },
        }
    }
}

/// Kernels and number type of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Who computes attention, norms, rotations and activations.
    pub kernels: Kernels,
    /// Type of activations and of unquantized weights.
    pub float: Dtype,
}

impl Arithmetic {
    /// Name of the number type, for the fingerprint.
    pub fn float_name(self) -> String {
        format!("{:?}", self.float).to_lowercase()
    }
}
