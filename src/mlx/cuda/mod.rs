//! NVIDIA GPUs, where MLX alone is not enough: kernels of our own among its operations, and memory that it does not manage.

mod driver;
mod kernel;

pub use driver::{Driver, Pinned};
pub use kernel::{Constant, CudaKernel, Launch, Source};

/// Source of `block_sum`, for the headers of kernels.
pub const BLOCK_SUM: &str = include_str!("block_sum.cu");
