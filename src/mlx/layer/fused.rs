//! Small steps between products in one launch each, on NVIDIA GPUs: there a decoded token is bound by the number of launches.

use mlx_rs::Array;

use crate::mlx::array::{Result, dims};
use crate::mlx::backend::Backend;
use crate::mlx::cpu::activation::Activation;
use crate::mlx::cuda::{BLOCK_SUM, Constant, CudaKernel, Launch, Source};
use crate::mlx::gate::Mlx;

/// Threads of a block of `add_norm.cu`, and of `gated.cu`.
const THREADS: usize = 256;

/// The kernels, ready to be called.
#[derive(Debug)]
pub struct FusedKernels {
    add_norm: CudaKernel,
    gated: CudaKernel,
}

impl FusedKernels {
    /// `None` where MLX's operations serve.
    pub fn new(mx: &Mlx, backend: Backend) -> Result<Option<Self>> {
        if backend != Backend::Cuda {
            return Ok(None);
        }
        let header = format!("#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n{BLOCK_SUM}");
        let kernel = |name, inputs, outputs, body| {
            CudaKernel::new(mx, Source { name, inputs, outputs, header: &header, body, shared_bytes: 0 })
        };
        let add_norm = kernel(
            "prefixd_add_norm",
            &["x", "more", "weight", "eps"],
            &["sum", "normed"],
            include_str!("fused/add_norm.cu"),
        )?;
        let gated = kernel("prefixd_gated", &["x"], &["y"], include_str!("fused/gated.cu"))?;
        Ok(Some(Self { add_norm, gated }))
    }

    /// `x + more`, `[tokens, width]`, and its root-mean-square norm. Lazy.
    pub fn add_norm(
        &self,
        mx: &Mlx,
        x: &Array,
        more: &Array,
        weight: &Array,
        eps: &Array,
    ) -> Result<[Array; 2]> {
        let (dtype, [tokens, width]) = (x.dtype(), [x.dim(0) as usize, x.dim(1) as usize]);
        let (x, more, weight) =
            (x.contiguous()?, more.as_dtype(dtype)?.contiguous()?, weight.as_dtype(dtype)?);
        let shape = dims([tokens, width]);
        // SAFETY: all are contiguous and of these shapes; a block writes its token whole.
        let mut out = unsafe {
            self.add_norm.call(
                mx,
                &[&x, &more, &weight, eps],
                Launch {
                    blocks: [tokens, 1],
                    threads: THREADS,
                    constants: &[("WIDTH", Constant::Int(width)), ("T", Constant::Type(dtype))],
                    outputs: &[(&shape, dtype), (&shape, dtype)],
                },
            )?
        };
        let sum = out.remove(0);
        Ok([sum, out.remove(0)])
    }

    /// Is this an activation that [`gated`](Self::gated) knows?
    pub fn activates(activation: Activation) -> bool {
        matches!(activation, Activation::Silu | Activation::GeluTanh)
    }

    /// `act(gate) * up` of `[tokens, 2 * width]`, gates first. Lazy.
    pub fn gated(&self, mx: &Mlx, activation: Activation, x: &Array) -> Result<Array> {
        let gelu = activation == Activation::GeluTanh;
        let (dtype, [tokens, width]) = (x.dtype(), [x.dim(0) as usize, x.dim(1) as usize / 2]);
        let x = x.contiguous()?;
        // SAFETY: a thread an element of a contiguous array of this shape.
        let mut out = unsafe {
            self.gated.call(
                mx,
                &[&x],
                Launch {
                    blocks: [width.div_ceil(THREADS), tokens],
                    threads: THREADS,
                    constants: &[
                        ("WIDTH", Constant::Int(width)),
                        ("GELU", Constant::Flag(gelu)),
                        ("T", Constant::Type(dtype)),
                    ],
                    outputs: &[(&dims([tokens, width]), dtype)],
                },
            )?
        };
        Ok(out.remove(0))
    }
}
