//! Any processor: one element at a time, for the compiler to make the best of.

use super::{AHEAD, Kernels, Shape};

const LANES: usize = 1;

pub static SCALAR: Kernels = Kernels {
    lanes: LANES,
    shapes: [
        Shape { width: 4, tiles: &[tile::<1, 4>, tile::<2, 4>, tile::<3, 4>, tile::<4, 4>] },
        Shape { width: 8, tiles: &[tile::<1, 8>, tile::<2, 8>] },
        Shape { width: 16, tiles: &[tile::<1, 16>] },
    ],
    transpose,
};

fn zero() -> f32 {
    0.0
}

fn splat(x: f32) -> f32 {
    x
}

unsafe fn load(from: *const f32) -> f32 {
    // SAFETY: the caller's.
    unsafe { *from }
}

unsafe fn store(to: *mut f32, x: f32) {
    // SAFETY: the caller's.
    unsafe { *to = x }
}

/// Rounds twice: without the instruction, a fused one is a slow library call.
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    a * b + c
}

fn prefetch(_: *const f32) {}

tile!();

unsafe fn transpose(from: *const f32, _: usize, to: *mut f32, _: usize) {
    // SAFETY: the caller has one element on both sides.
    unsafe { *to = *from }
}
