//! The inner loops.
//!
//! Invariant 1: an element of the result is computed group by group, in ascending order: a chain of multiply-adds over the
//! group's codes from zero, `acc`; then `y = scale * acc + y` and `y = middle * sum + y`, where `middle` is the weight that
//! the middle code stands for and `sum` the sum of the row's activations in that group. Weights without scales: `y = acc + y`.
//! Neither the number of rows and strips in a tile, nor an element's place in it, nor whether the codes were decoded
//! before, changes a bit of the element.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays, which the compiler unrolls"
)]

use super::codes::Codes;
use super::format::{Float, STRIP};
use super::simd::Simd;

/// The most strips of a tile.
pub const MAX_STRIPS: usize = 4;
/// The most rows of a tile.
pub const MAX_HEIGHT: usize = 12;

/// Some groups of neighbouring strips.
pub struct Part {
    /// Each strip's weights in the first group. Strips that a tile has beyond those that there are repeat the last one.
    pub weights: [*const u8; MAX_STRIPS],
    /// Bytes from a group's weights to the next.
    pub weights_stride: usize,
    /// Each strip's scales in the first group; biases follow them.
    pub scales: [*const u8; MAX_STRIPS],
    /// Bytes from a group's scales to the next.
    pub scales_stride: usize,
    /// Type of scales and biases; `None`: the weights have none.
    pub scaled: Option<Float>,
    /// What is to be added to a decoded code to make it what the file holds.
    pub middle: f32,
    /// Number of groups.
    pub groups: usize,
    /// Weights of a row in each.
    pub group: usize,
}

/// Adds the products of a part to a tile of the result, `y[height][strips * 16]`.
///
/// `x` is `[groups * group][height]`, `sums` is `[groups][height]`.
pub type Tile = unsafe fn(part: &Part, x: *const f32, sums: *const f32, y: *mut f32);

/// Decodes a strip's groups into `[groups * group][16]`.
pub type Decode = unsafe fn(part: &Part, strip: usize, into: *mut f32);

/// See [`Tile`].
///
/// # Safety
/// As the types of the arguments say; the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn tile<S: Simd, C: Codes, const HEIGHT: usize, const STRIPS: usize>(
    part: &Part,
    mut x: *const f32,
    sums: *const f32,
    y: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let mut acc = [[S::zero(); STRIPS]; HEIGHT];
            for run in 0..part.group / C::RUN {
                let weights = |s: usize| part.weights[s].wrapping_add(g * part.weights_stride);
                let mut states = [C::open::<S>(weights(0), part.group, run); STRIPS];
                for s in 1..STRIPS {
                    states[s] = C::open::<S>(weights(s), part.group, run);
                }
                for _ in 0..C::RUN {
                    let mut row = [S::zero(); STRIPS];
                    for s in 0..STRIPS {
                        row[s] = C::next::<S>(&mut states[s]);
                    }
                    for h in 0..HEIGHT {
                        let factor = S::splat(*x.add(h));
                        for s in 0..STRIPS {
                            acc[h][s] = S::multiply_add(factor, row[s], acc[h][s]);
                        }
                    }
                    x = x.add(HEIGHT);
                }
            }
            for s in 0..STRIPS {
                let scales = part.scales[s].wrapping_add(g * part.scales_stride);
                let Some(float) = part.scaled else {
                    for h in 0..HEIGHT {
                        let y = y.add((h * STRIPS + s) * STRIP);
                        S::store(y, S::multiply_add(S::splat(1.0), acc[h][s], S::load(y)));
                    }
                    continue;
                };
                let scale = floats::<S>(scales, float);
                let bias = floats::<S>(scales.add(STRIP * float.bytes()), float);
                let middle = S::multiply_add(S::splat(part.middle), scale, bias);
                for h in 0..HEIGHT {
                    let y = y.add((h * STRIPS + s) * STRIP);
                    let sum = S::splat(*sums.add(g * HEIGHT + h));
                    let scaled = S::multiply_add(scale, acc[h][s], S::load(y));
                    S::store(y, S::multiply_add(middle, sum, scaled));
                }
            }
        }
    }
}

/// See [`Decode`].
///
/// # Safety
/// As the types of the arguments say; the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn decode<S: Simd, C: Codes>(part: &Part, strip: usize, mut into: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let weights = part.weights[strip].wrapping_add(g * part.weights_stride);
            for run in 0..part.group / C::RUN {
                let mut state = C::open::<S>(weights, part.group, run);
                for _ in 0..C::RUN {
                    S::store(into, C::next::<S>(&mut state));
                    into = into.add(STRIP);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn floats<S: Simd>(from: *const u8, float: Float) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        match float {
            Float::F32 => S::load(from.cast()),
            Float::F16 => S::f16(from.cast()),
            Float::Bf16 => S::bf16(from.cast()),
        }
    }
}
