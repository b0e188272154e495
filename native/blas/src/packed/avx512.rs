//! AVX-512, with and without the instructions for neural networks (VNNI).
//!
//! SAFETY of every block: the trait's contract. The processor has the instructions, and pointers have 16 elements.

#![allow(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
#![allow(clippy::wildcard_imports, reason = "forty intrinsics")]

use std::arch::x86_64::*;

use super::avx2::{Avx2, turn};
use super::simd::{Simd, both, lowest};

/// 32 registers of 16 lanes.
#[derive(Clone, Copy)]
pub struct Avx512<const VNNI: bool>;

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type V = __m512;
    type Sums = __m512i;
    type Pairs = __m512i;
    type Pair = __m512i;

    #[inline(always)]
    fn prefetch(line: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> __m512 {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn larger(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn size(x: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(x) }
    }

    #[inline(always)]
    unsafe fn first(x: __m512) -> f32 {
        unsafe { _mm512_cvtss_f32(x) }
    }

    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        unsafe { Avx2::<false>::largest(halves(x)) }
    }

    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { Avx2::<false>::sum(halves(x)) }
    }

    #[inline(always)]
    unsafe fn times_two_to(p: __m512, shifted: __m512, x: __m512, least: __m512) -> __m512 {
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            let power = _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_set1_epi32(127 << 23)));
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, least);
            _mm512_maskz_mul_ps(!below, p, power)
        }
    }

    #[inline(always)]
    unsafe fn store_whole(to: *mut u16, x: __m512) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))) };
    }

    #[inline(always)]
    unsafe fn pairs(from: *const u32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, pairs: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), pairs) }
    }

    #[inline(always)]
    unsafe fn right_by(pairs: __m512i, bits: u32) -> __m512i {
        unsafe { _mm512_srl_epi32(pairs, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut __m512i, high: &mut __m512i) -> __m512i {
        let mask = |bits: u32| unsafe { _mm512_set1_epi32(both(lowest(bits)).cast_signed()) };
        unsafe {
            let code = _mm512_and_si512(*low, mask(LOW));
            // Shifts by a constant want one that does not come from a parameter.
            *low = match LOW {
                2 => _mm512_srli_epi32::<2>(*low),
                4 => _mm512_srli_epi32::<4>(*low),
                _ => _mm512_srli_epi32::<8>(*low),
            };
            if HIGH == 0 {
                return code;
            }
            let above = _mm512_and_si512(*high, mask(HIGH));
            *high = if HIGH == 1 { _mm512_srli_epi32::<1>(*high) } else { _mm512_srli_epi32::<2>(*high) };
            let above = if LOW == 2 { _mm512_slli_epi32::<2>(above) } else { _mm512_slli_epi32::<4>(above) };
            _mm512_or_si512(code, above)
        }
    }

    #[inline(always)]
    unsafe fn no_pairs() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn joined(first: *const u8, second: *const u8) -> __m512i {
        unsafe {
            let [first, second] =
                [first, second].map(|bytes| _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast())));
            _mm512_or_si512(first, _mm512_slli_epi32::<16>(second))
        }
    }

    #[inline(always)]
    unsafe fn turn(rows: &[*const u8; 16], words: usize, into: *mut u32) {
        unsafe { turn(rows, words, into) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const u32) -> __m512i {
        unsafe { _mm512_set1_epi32((*from).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, x: __m512i, pairs: __m512i) -> __m512i {
        unsafe {
            if VNNI {
                _mm512_dpwssd_epi32(sums, x, pairs)
            } else {
                _mm512_add_epi32(sums, _mm512_madd_epi16(x, pairs))
            }
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

/// The lower and the upper eight lanes.
#[inline(always)]
unsafe fn halves(x: __m512) -> [__m256; 2] {
    unsafe {
        let upper = _mm512_shuffle_f32x4::<0b11_10_11_10>(x, x);
        [_mm512_castps512_ps256(x), _mm512_castps512_ps256(upper)]
    }
}
