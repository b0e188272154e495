//! The inner loops.
//!
//! Invariant 1: an element of the result is computed group by group, in ascending order.
//! - Weights in codes: the group's activations are whole numbers of 16 bits times a `step` (`rows`). The products of codes
//!   and whole numbers are summed exactly, in 32 bits: at most 128 * 255 * 32,767, below 2^31. That sum, rounded to a float
//!   and times `step`, is `acc`; `sum` is that of the group's activations. Then `y = scale * acc + y`, `y = bias * sum + y`.
//! - Floats: a chain of multiply-adds over the group from zero, `acc`; then `y = acc + y`.
//!
//! Neither the number of rows and strips in a tile, nor an element's place in it, nor whether the weights were decoded
//! before, changes a bit of the element.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays, which the compiler unrolls"
)]

use super::codes::{Codes, Floats};
use super::format::{Float, STRIP};
use super::simd::Simd;

/// How far ahead of its reading a strip is fetched, in bytes: several strips are read side by side, each by itself too short for the
/// processor to foresee.
const AHEAD: usize = 2048;

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
    /// Each strip's scales in the first group; biases follow them. Floats have none.
    pub scales: [*const u8; MAX_STRIPS],
    /// Bytes from a group's scales to the next.
    pub scales_stride: usize,
    /// Type of scales and biases.
    pub scaled: Float,
    /// Number of groups.
    pub groups: usize,
    /// Weights of a row in each.
    pub group: usize,
}

/// Adds the products of a part to a tile of the result, `y[height][strips * 16]`.
///
/// For codes, `x` is `[groups * group / 2][height]` pairs of whole numbers and `factors` `[groups][2][height]`, steps and
/// sums. For floats, `x` is `[groups * group][height]` floats and there are no factors.
pub type Tile = unsafe fn(part: &Part, x: *const u32, factors: *const f32, y: *mut f32);

/// Decodes a strip's groups: codes into `[groups * group / 2][16]` pairs, floats into `[groups * group][16]`.
pub type Decode = unsafe fn(part: &Part, strip: usize, into: *mut u32);

/// See [`Tile`].
///
/// # Safety
/// As the types of the arguments say; the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn codes<S: Simd, C: Codes, const HEIGHT: usize, const STRIPS: usize>(
    part: &Part,
    mut x: *const u32,
    factors: *const f32,
    y: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let mut sums = [[S::no_sums(); STRIPS]; HEIGHT];
            for run in 0..part.group / C::RUN {
                let weights = |s: usize| part.weights[s].wrapping_add(g * part.weights_stride);
                let mut states = [C::open::<S>(weights(0), part.group, run); STRIPS];
                for s in 1..STRIPS {
                    states[s] = C::open::<S>(weights(s), part.group, run);
                }
                if C::FROM_MEMORY {
                    for s in 0..STRIPS {
                        S::prefetch(weights(s).wrapping_add(AHEAD + run * STRIP * size_of::<u32>()));
                    }
                }
                for _ in 0..C::RUN / 2 {
                    let mut pairs = [C::next::<S>(&mut states[0]); STRIPS];
                    for s in 1..STRIPS {
                        pairs[s] = C::next::<S>(&mut states[s]);
                    }
                    for h in 0..HEIGHT {
                        let pair = S::pair(x.add(h));
                        for s in 0..STRIPS {
                            sums[h][s] = S::dot(sums[h][s], pair, pairs[s]);
                        }
                    }
                    x = x.add(HEIGHT);
                }
            }
            for s in 0..STRIPS {
                let scales = part.scales[s].wrapping_add(g * part.scales_stride);
                let scale = floats_of::<S>(scales, part.scaled);
                let bias = floats_of::<S>(scales.add(STRIP * part.scaled.bytes()), part.scaled);
                for h in 0..HEIGHT {
                    let y = y.add((h * STRIPS + s) * STRIP);
                    let [step, sum] = [0, 1].map(|i| S::splat(*factors.add((2 * g + i) * HEIGHT + h)));
                    let acc = S::multiply(S::floats(sums[h][s]), step);
                    S::store(y, S::multiply_add(bias, sum, S::multiply_add(scale, acc, S::load(y))));
                }
            }
        }
    }
}

/// See [`Tile`].
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn floats<S: Simd, F: Floats, const HEIGHT: usize, const STRIPS: usize>(
    part: &Part,
    x: *const u32,
    y: *mut f32,
) {
    let mut x = x.cast::<f32>();
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let mut acc = [[S::zero(); STRIPS]; HEIGHT];
            for k in 0..part.group {
                let mut row = [S::zero(); STRIPS];
                for s in 0..STRIPS {
                    let weights =
                        part.weights[s].wrapping_add(g * part.weights_stride + k * STRIP * F::BYTES);
                    S::prefetch(weights.wrapping_add(AHEAD));
                    let weights =
                        part.weights[s].wrapping_add(g * part.weights_stride + k * STRIP * F::BYTES);
                    if F::FROM_MEMORY {
                        S::prefetch(weights.wrapping_add(AHEAD));
                    }
                    row[s] = F::load::<S>(weights);
                }
                for h in 0..HEIGHT {
                    let factor = S::splat(*x.add(h));
                    for s in 0..STRIPS {
                        acc[h][s] = S::multiply_add(factor, row[s], acc[h][s]);
                    }
                }
                x = x.add(HEIGHT);
            }
            for h in 0..HEIGHT {
                for s in 0..STRIPS {
                    let y = y.add((h * STRIPS + s) * STRIP);
                    S::store(y, S::multiply_add(S::splat(1.0), acc[h][s], S::load(y)));
                }
            }
        }
    }
}

/// See [`Decode`].
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn decode_codes<S: Simd, C: Codes>(part: &Part, strip: usize, mut into: *mut u32) {
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let weights = part.weights[strip].wrapping_add(g * part.weights_stride);
            for run in 0..part.group / C::RUN {
                let mut state = C::open::<S>(weights, part.group, run);
                for _ in 0..C::RUN / 2 {
                    S::store_pairs(into, C::next::<S>(&mut state));
                    into = into.add(STRIP);
                }
            }
        }
    }
}

/// See [`Decode`].
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn decode_floats<S: Simd, F: Floats>(part: &Part, strip: usize, into: *mut u32) {
    let mut into = into.cast::<f32>();
    // SAFETY: the caller's.
    unsafe {
        for g in 0..part.groups {
            let weights = part.weights[strip].wrapping_add(g * part.weights_stride);
            for k in 0..part.group {
                S::store(into, F::load::<S>(weights.wrapping_add(k * STRIP * F::BYTES)));
                into = into.add(STRIP);
            }
        }
    }
}

#[inline(always)]
unsafe fn floats_of<S: Simd>(from: *const u8, float: Float) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        match float {
            Float::F32 => S::load(from.cast()),
            Float::F16 => S::f16(from.cast()),
            Float::Bf16 => S::bf16(from.cast()),
        }
    }
}
