//! Matrix products for the CPU: with weights that stay as they are stored ([`packed`]), and `cblas_sgemm` for MLX's CPU backend,
//! whose wheel carries a reference BLAS at a hundredth of the machine's speed.
//!
//! An executable that links this crate and exports the symbol is searched before the libraries it loads, so libmlx calls
//! this one. Beyond speed it gives what a server of many requests needs: a row of a product does not depend on the rows
//! that happen to be computed with it, nor on the number of threads, to the last bit.
//!
//! - `kernel`: one tile, per instruction set. - `operand`: what the kernels read. - `product`: tiles and threads.
//! - `cblas`: the C interface. - [`threads`]: the pool that computes.

#![allow(clippy::many_single_char_names, reason = "a, b, c and m, n, k are the field's names")]

mod cblas;
mod kernel;
mod operand;
pub mod packed;
mod product;
pub mod threads;

pub use cblas::cblas_sgemm;
