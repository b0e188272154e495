//! NEON: 32 registers of 4 floats or 8 whole numbers.

#[allow(clippy::wildcard_imports, reason = "sixty intrinsics")]
use std::arch::aarch64::*;

use super::simd::{Simd, f16_to_f32, lowest};

/// Part of the base architecture of aarch64.
#[derive(Clone, Copy)]
pub struct Neon;

const PARTS: usize = 4;

#[inline(always)]
fn parts<A: Copy, B: Copy>(first: B, from: [A; PARTS], map: impl Fn(A) -> B) -> [B; PARTS] {
    let mut out = [first; PARTS];
    for (out, from) in out.iter_mut().zip(from) {
        *out = map(from);
    }
    out
}

// SAFETY of every block: NEON is always there, and pointers have 16 elements by the trait's contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
impl Simd for Neon {
    type V = [float32x4_t; PARTS];
    type Sums = [int32x4_t; PARTS];
    /// The first numbers of lanes 0 to 7 and 8 to 15, then the second ones.
    type Pairs = [uint16x8_t; PARTS];
    /// Twice.
    type Pair = int16x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self::V {
        unsafe { [vdupq_n_f32(0.0); PARTS] }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { [vdupq_n_f32(x); PARTS] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        for (i, v) in v.into_iter().enumerate() {
            unsafe { vst1q_f32(to.add(4 * i), v) };
        }
    }

    #[inline(always)]
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V {
        let mut products = a;
        for (i, product) in products.iter_mut().enumerate() {
            *product = unsafe { vmulq_f32(a[i], b[i]) };
        }
        products
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let mut sums = c;
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { vfmaq_f32(c[i], a[i], b[i]) };
        }
        sums
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> Self::V {
        unsafe {
            parts(vdupq_n_f32(0.0), widened([vld1q_u16(from), vld1q_u16(from.add(8))]), |words| {
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(words))
            })
        }
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> Self::V {
        // Scales only, and weights that were not quantized: a few steps in plain Rust, which the compiler vectorizes.
        let mut floats = [0.0; 16];
        for (i, float) in floats.iter_mut().enumerate() {
            *float = f16_to_f32(unsafe { *from.add(i) });
        }
        unsafe { Self::load(floats.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        let mut sums = a;
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { vaddq_f32(a[i], b[i]) };
        }
        sums
    }

    #[inline(always)]
    unsafe fn larger(a: Self::V, b: Self::V) -> Self::V {
        let mut larger = a;
        for (i, larger) in larger.iter_mut().enumerate() {
            *larger = unsafe { vmaxq_f32(a[i], b[i]) };
        }
        larger
    }

    #[inline(always)]
    unsafe fn size(x: Self::V) -> Self::V {
        x.map(|x| unsafe { vabsq_f32(x) })
    }

    #[inline(always)]
    unsafe fn first(x: Self::V) -> f32 {
        unsafe { vgetq_lane_f32::<0>(x[0]) }
    }

    #[inline(always)]
    unsafe fn largest(x: Self::V) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[2]), vmaxq_f32(x[1], x[3]))) }
    }

    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    unsafe fn times_two_to(p: Self::V, shifted: Self::V, x: Self::V, least: Self::V) -> Self::V {
        let mut out = p;
        for (i, out) in out.iter_mut().enumerate() {
            unsafe {
                let power = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted[i]));
                let power = vreinterpretq_f32_u32(vaddq_u32(power, vdupq_n_u32(127 << 23)));
                let product = vreinterpretq_u32_f32(vmulq_f32(p[i], power));
                *out = vreinterpretq_f32_u32(vbicq_u32(product, vcltq_f32(x[i], least[i])));
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn store_whole(to: *mut u16, x: Self::V) {
        for half in 0..2 {
            unsafe {
                let [low, high] = [2 * half, 2 * half + 1].map(|i| vmovn_s32(vcvtnq_s32_f32(x[i])));
                vst1q_u16(to.add(8 * half), vreinterpretq_u16_s16(vcombine_s16(low, high)));
            }
        }
    }

    #[inline(always)]
    unsafe fn pairs(from: *const u32) -> Self::Pairs {
        unsafe {
            let (a, b) = (vld2q_u16(from.cast()), vld2q_u16(from.add(8).cast()));
            [a.0, b.0, a.1, b.1]
        }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, [a, b, above_a, above_b]: Self::Pairs) {
        unsafe {
            vst2q_u16(to.cast(), uint16x8x2_t(a, above_a));
            vst2q_u16(to.add(8).cast(), uint16x8x2_t(b, above_b));
        }
    }

    #[inline(always)]
    unsafe fn right_by(pairs: Self::Pairs, bits: u32) -> Self::Pairs {
        unsafe {
            let left = vdupq_n_s16(-(bits as i16));
            parts(pairs[0], pairs, |halves| vshlq_u16(halves, left))
        }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(
        low: &mut Self::Pairs,
        high: &mut Self::Pairs,
    ) -> Self::Pairs {
        let mut codes = *low;
        for i in 0..PARTS {
            unsafe {
                codes[i] = vandq_u16(low[i], vdupq_n_u16(lowest(LOW) as u16));
                // Shifts by a constant want one that does not come from a parameter.
                low[i] = match LOW {
                    2 => vshrq_n_u16::<2>(low[i]),
                    4 => vshrq_n_u16::<4>(low[i]),
                    _ => vshrq_n_u16::<8>(low[i]),
                };
                if HIGH > 0 {
                    let above = vandq_u16(high[i], vdupq_n_u16(lowest(HIGH) as u16));
                    high[i] = if HIGH == 1 { vshrq_n_u16::<1>(high[i]) } else { vshrq_n_u16::<2>(high[i]) };
                    let above = if LOW == 2 { vshlq_n_u16::<2>(above) } else { vshlq_n_u16::<4>(above) };
                    codes[i] = vorrq_u16(codes[i], above);
                }
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn no_pairs() -> Self::Pairs {
        unsafe { [vdupq_n_u16(0); PARTS] }
    }

    #[inline(always)]
    unsafe fn joined(first: *const u8, second: *const u8) -> Self::Pairs {
        unsafe {
            let (first, second) = (vld1q_u8(first), vld1q_u8(second));
            [
                vmovl_u8(vget_low_u8(first)),
                vmovl_high_u8(first),
                vmovl_u8(vget_low_u8(second)),
                vmovl_high_u8(second),
            ]
        }
    }

    #[inline(always)]
    unsafe fn pair(from: *const u32) -> Self::Pair {
        unsafe { vreinterpret_s16_u32(vld1_dup_u32(from)) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { [vdupq_n_s32(0); PARTS] }
    }

    #[inline(always)]
    unsafe fn dot(mut sums: Self::Sums, x: Self::Pair, pairs: Self::Pairs) -> Self::Sums {
        for half in 0..2 {
            unsafe {
                let first = vreinterpretq_s16_u16(pairs[half]);
                let second = vreinterpretq_s16_u16(pairs[half + 2]);
                let [low, high] = [2 * half, 2 * half + 1];
                sums[low] = vmlal_lane_s16::<0>(sums[low], vget_low_s16(first), x);
                sums[low] = vmlal_lane_s16::<1>(sums[low], vget_low_s16(second), x);
                sums[high] = vmlal_high_lane_s16::<0>(sums[high], first, x);
                sums[high] = vmlal_high_lane_s16::<1>(sums[high], second, x);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::V {
        parts(unsafe { vdupq_n_f32(0.0) }, sums, |sums| unsafe { vcvtq_f32_s32(sums) })
    }
}

#[inline(always)]
fn widened([a, b]: [uint16x8_t; 2]) -> [uint32x4_t; PARTS] {
    // SAFETY: NEON is always there.
    unsafe { [vmovl_u16(vget_low_u16(a)), vmovl_high_u16(a), vmovl_u16(vget_low_u16(b)), vmovl_high_u16(b)] }
}
