//! NEON: 32 registers of 4 lanes, four to a strip.

use std::arch::aarch64::{
    float32x4_t, uint16x8_t, uint32x4_t, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vget_low_s8,
    vget_low_s16, vget_low_u16, vld1q_f32, vld1q_s8, vld1q_u16, vld1q_u32, vmovl_high_s8, vmovl_high_s16,
    vmovl_high_u16, vmovl_s8, vmovl_s16, vmovl_u16, vorrq_u32, vreinterpretq_f32_u32, vreinterpretq_s32_u32,
    vreinterpretq_u32_s32, vshlq_n_s32, vshlq_n_u32, vshlq_u32, vshrq_n_s32, vshrq_n_u32, vst1q_f32,
};

use super::simd::{Simd, f16_to_f32};

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
    type W = [uint32x4_t; PARTS];

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
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let mut sums = c;
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { vfmaq_f32(c[i], a[i], b[i]) };
        }
        sums
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> Self::V {
        unsafe {
            let bytes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let words = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            parts(vdupq_n_f32(0.0), words, |words| vcvtq_f32_s32(words))
        }
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
    unsafe fn words(from: *const u32) -> Self::W {
        unsafe { [vld1q_u32(from), vld1q_u32(from.add(4)), vld1q_u32(from.add(8)), vld1q_u32(from.add(12))] }
    }

    #[inline(always)]
    unsafe fn high_words<const LOW: u32>(from: *const u32, left: u32) -> Self::W {
        unsafe {
            let (words, left) = (Self::words(from), vdupq_n_s32(left.cast_signed()));
            parts(words[0], words, |words| vshlq_u32(words, left))
        }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut Self::W, high: &mut Self::W) -> Self::V {
        let mut out = unsafe { Self::zero() };
        for i in 0..PARTS {
            unsafe {
                let (signed, bits) = (vreinterpretq_s32_u32(high[i]), low[i]);
                let code = match (LOW, HIGH) {
                    (4, 0) => vshrq_n_s32::<28>(vreinterpretq_s32_u32(bits)),
                    (2, 0) => vshrq_n_s32::<30>(vreinterpretq_s32_u32(bits)),
                    (2, 1) => joined(
                        vreinterpretq_u32_s32(vshlq_n_s32::<2>(vshrq_n_s32::<31>(signed))),
                        vshrq_n_u32::<30>(bits),
                    ),
                    (4, 1) => joined(
                        vreinterpretq_u32_s32(vshlq_n_s32::<4>(vshrq_n_s32::<31>(signed))),
                        vshrq_n_u32::<28>(bits),
                    ),
                    _ => joined(
                        vreinterpretq_u32_s32(vshlq_n_s32::<4>(vshrq_n_s32::<30>(signed))),
                        vshrq_n_u32::<28>(bits),
                    ),
                };
                low[i] = if LOW == 4 { vshlq_n_u32::<4>(bits) } else { vshlq_n_u32::<2>(bits) };
                if HIGH == 1 {
                    high[i] = vshlq_n_u32::<1>(high[i]);
                } else if HIGH == 2 {
                    high[i] = vshlq_n_u32::<2>(high[i]);
                }
                out[i] = vcvtq_f32_s32(code);
            }
        }
        out
    }
}

/// Upper and lower bits of codes.
#[inline(always)]
fn joined(upper: uint32x4_t, lower: uint32x4_t) -> std::arch::aarch64::int32x4_t {
    // SAFETY: NEON is always there.
    unsafe { vreinterpretq_s32_u32(vorrq_u32(upper, lower)) }
}

#[inline(always)]
fn widened([a, b]: [uint16x8_t; 2]) -> [uint32x4_t; PARTS] {
    // SAFETY: NEON is always there.
    unsafe { [vmovl_u16(vget_low_u16(a)), vmovl_high_u16(a), vmovl_u16(vget_low_u16(b)), vmovl_high_u16(b)] }
}
