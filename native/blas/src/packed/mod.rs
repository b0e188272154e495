//! Products with weights that stay as they are stored: affine codes of 2 to 8 bits, or 16-bit and 32-bit floats.
//!
//! Weights lie in strips of 16 outputs, in the order in which the kernels read them; activations are f32, and meet codes as
//! whole numbers of 16 bits, with a step for each group. An element of the result is computed group by group (invariants in
//! `tile`), so that it depends on its row and its column alone.
//!
//! - `format`: what is stored, and how many bytes it takes. - `pack`: from rows to strips. - `matrix`: one weight matrix.
//! - `whole`: activations as whole numbers. - `rows`: activations in the kernels' order. - `product`: cut into jobs.
//! - `tile`: the inner loops over `codes`, written once over `simd` and compiled for each instruction set in `kernels`.
//! - [`cached`]: keys and values in place of weights. - `unpack`: their codes in the kernels' order. - `weigh`: the softmax between.

pub mod cached;
mod codes;
mod format;
mod kernels;
mod matrix;
mod pack;
mod product;
mod rows;
mod simd;
mod tile;
mod unpack;
mod weigh;
mod whole;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use format::{Affine, Numbers, ShapeError};
pub use kernels::instruction_set;
pub use matrix::Matrix;
pub use product::{Target, product, products};
