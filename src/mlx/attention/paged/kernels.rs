//! The kernels' sources, and how they are launched.

use crate::mlx::array::Result;
use crate::mlx::cuda::{CudaKernel, Source};
use crate::mlx::gate::Mlx;

/// Threads of a block, as the kernels have them, and vectors of a block of `store.cu`.
pub const STORE_THREADS: usize = 128;
pub const STORE_VECTORS: usize = 4;
pub const PART_THREADS: usize = 128;
pub const GATHER_THREADS: usize = 256;
pub const FLASH_THREADS: usize = 256;
/// Queries of a block of `flash.cu`.
pub const FLASH_ROWS: usize = 128;
/// Sizes of heads that `part.cu` and `flash.cu` are written for.
pub const HEAD_DIMS: [usize; 3] = [64, 128, 256];

const CODES: &str = include_str!("codes.cu");
/// How kernels read what a step tells them.
pub const STEP: &str = include_str!("step.cu");
const OPERANDS: &str = include_str!("operands.cu");
const UNITS: &str = include_str!("units.cu");
const ENCODE: &str = include_str!("encode.cu");
const DECODE: &str = include_str!("decode.cu");

/// All of them.
pub struct Kernels {
    pub store: CudaKernel,
    pub part: CudaKernel,
    pub join: CudaKernel,
    pub gather: CudaKernel,
    /// For the sizes of heads in [`HEAD_DIMS`].
    pub flash: [CudaKernel; 3],
}

impl Kernels {
    /// Takes the sources. Nothing is compiled yet.
    pub fn new(mx: &Mlx) -> Result<Self> {
        let kernel = |name: &str, inputs: &[&str], outputs: &[&str], header: &[&str], body: &str| {
            let header = header.concat();
            CudaKernel::new(mx, Source { name, inputs, outputs, header: &header, body, shared_bytes: 0 })
        };
        let [small, middle, large] = HEAD_DIMS.map(|head_dim| flash(mx, head_dim));
        Ok(Self {
            store: kernel(
                "prefixd_store",
                &["step", "at", "x_q", "x_k", "x_v", "q_weight", "k_weight", "rates", "turn", "eps"],
                &["turned"],
                &[CODES, STEP, ENCODE],
                include_str!("store.cu"),
            )?,
            part: kernel(
                "prefixd_attend_part",
                &["step", "at", "query", "factor", "order"],
                &["mixed", "weights"],
                &[UNITS, STEP, OPERANDS],
                include_str!("part.cu"),
            )?,
            join: kernel(
                "prefixd_attend_join",
                &["step", "at", "sinks", "mixed", "weights"],
                &["attended"],
                &[STEP, OPERANDS],
                include_str!("join.cu"),
            )?,
            gather: kernel(
                "prefixd_gather",
                &["step", "at", "span", "order"],
                &["keys", "values"],
                &[CODES, STEP, DECODE],
                include_str!("gather.cu"),
            )?,
            flash: [small?, middle?, large?],
        })
    }

    /// The kernel for chunks over heads of that size.
    pub fn flash(&self, head_dim: usize) -> Option<&CudaKernel> {
        HEAD_DIMS.iter().position(|size| *size == head_dim).map(|number| &self.flash[number])
    }
}

fn flash(mx: &Mlx, head_dim: usize) -> Result<CudaKernel> {
    let tile = if head_dim > 128 { 32 } else { 64 };
    let header = [UNITS, OPERANDS].concat();
    let source = Source {
        name: &format!("prefixd_flash_{head_dim}"),
        inputs: &["query", "keys", "values", "span", "factor", "sinks"],
        outputs: &["attended"],
        header: &header,
        body: include_str!("flash.cu"),
        // The queries, and two tiles of keys and of values, of halves.
        shared_bytes: (FLASH_ROWS + 4 * tile) * head_dim * 2,
    };
    CudaKernel::new(mx, source)
}
