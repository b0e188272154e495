//! The CPU's own kernels: what MLX computes on one thread, or through long chains of small operations, is computed
//! here over the arrays' memory, on all cores.
//!
//! 1. A result depends on its own inputs alone: never on how many rows are computed with it, on a row's place in the
//!    batch, on the number of threads or on a tail that misses the vector width. Sums run in one fixed order.
//! 2. No kernel knows MLX: they take and fill slices.
//! 3. The instruction set is chosen at run time; on one machine it never changes.

#![allow(clippy::inline_always, reason = "only inlining carries an instruction set into what a kernel calls")]

pub mod activation;
pub mod attention;
mod columns;
pub mod conv;
pub mod delta;
pub mod encode;
mod gemm;
pub mod mamba;
pub mod norm;
pub mod rotate;
pub mod route;
pub mod scan;
pub mod simd;
pub mod store;
