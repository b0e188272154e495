//! Scores of a tile of keys become weights, and weights whole numbers.
//!
//! Invariant: the steps are the same for every lane, and sums are 16 chains and a tree, so a vector's weights depend on its own scores alone.

use std::ops::Range;

use super::cached::VECTORS;
use super::format::STRIP;
use super::kernels::kernels;
use super::simd::Simd;
use super::whole::{LARGEST, NOTHING};

/// Lanes' vectors of a tile.
const PARTS: usize = VECTORS / STRIP;

/// What a query has seen so far: the largest score, and the sum of weights relative to it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The largest score.
    pub max: f32,
    /// Sum of `e^(score - max)`.
    pub sum: f32,
}

impl Seen {
    /// Before the first key.
    pub const NOTHING: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns the scores of 64 keys into weights relative to the largest score that was seen; those outside `visible` weigh 0. Returns what the sums
    /// so far are to be multiplied by.
    pub fn weigh(&mut self, scores: &mut [f32; VECTORS], visible: Range<usize>) -> f32 {
        if visible.is_empty() {
            scores.fill(0.0);
            return 1.0;
        }
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        // SAFETY: 64 scores, and kernels are those of this processor.
        unsafe { (kernels().weigh)(scores.as_mut_ptr(), self) }
    }
}

/// See [`super::kernels::Weigh`]. The running softmax follows Milakov and Gimelshein, "Online normalizer calculation for softmax"
/// (2018).
///
/// # Safety
/// 64 scores, and the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn weigh<S: Simd>(scores: *mut f32, seen: &mut Seen) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut most = S::load(scores);
        for part in 1..PARTS {
            most = S::larger(most, S::load(scores.add(part * STRIP)));
        }
        let max = S::largest(S::larger(most, S::splat(seen.max)));
        let mut sum = S::zero();
        for part in 0..PARTS {
            let at = scores.add(part * STRIP);
            let weight = exp::<S>(S::add(S::load(at), S::splat(-max)));
            S::store(at, weight);
            sum = S::add(sum, weight);
        }
        let grown = exp::<S>(S::splat(seen.max - max));
        let sum = S::multiply_add(S::splat(seen.sum), grown, S::splat(S::sum(sum)));
        *seen = Seen { max, sum: S::first(sum) };
        S::first(grown)
    }
}

/// `e^x` to about one unit in the last place; 0 below -87, and `x` is at most 88.
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // ln 2 in two parts, the first exact in few bits, so that `x - n * ln 2` keeps its precision.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // SAFETY: the caller's processor.
    unsafe {
        let least = S::splat(-87.0);
        // What is no number stays none.
        let clamped = S::larger(least, x);
        let shifted = S::multiply_add(clamped, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let n = S::add(shifted, S::splat(-ROUND));
        let high = S::multiply_add(n, S::splat(-LN2_HIGH), clamped);
        let r = S::multiply_add(n, S::splat(-LN2_LOW), high);
        let mut p = S::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::multiply_add(p, r, S::splat(coefficient));
        }
        S::times_two_to(p, shifted, x, least)
    }
}

/// See [`super::kernels::Weighted`]. The rounding is that of `whole::group`; going through it cost a tenth of a long prefill.
///
/// # Safety
/// 64 of each, and the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn weighted<S: Simd>(
    weights: *const f32,
    scales: *const u16,
    biases: *const u16,
    into: &mut [u16],
) -> [f32; 2] {
    // SAFETY: the caller's.
    unsafe {
        let mut scaled = [S::zero(); PARTS];
        let (mut largest, mut sum) = (S::zero(), S::zero());
        for (part, scaled) in scaled.iter_mut().enumerate() {
            let weight = S::load(weights.add(part * STRIP));
            *scaled = S::multiply(weight, S::f16(scales.add(part * STRIP)));
            largest = S::larger(largest, S::size(*scaled));
            sum = S::multiply_add(weight, S::f16(biases.add(part * STRIP)), sum);
        }
        let (largest, sum) = (S::largest(largest), S::sum(sum));
        // What is no number is in the sum; infinite scales are in the largest.
        if !largest.is_finite() || sum.is_nan() {
            into.fill(0);
            return [f32::NAN; 2];
        }
        let (step, steps) =
            if largest < NOTHING { (0.0, 0.0) } else { (largest / LARGEST, LARGEST / largest) };
        for (part, scaled) in scaled.into_iter().enumerate() {
            S::store_whole(into.as_mut_ptr().add(part * STRIP), S::multiply(scaled, S::splat(steps)));
        }
        [step, sum]
    }
}
