//! AVX-512 and AVX2.
//!
//! SAFETY of every block: the trait's contract. The processor has the instructions, and pointers have 16 elements.

#![allow(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
#![allow(clippy::wildcard_imports, reason = "forty intrinsics")]

use std::arch::x86_64::*;

use super::simd::Simd;

/// 32 registers of 16 lanes.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    type W = __m512i;

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
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
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
    unsafe fn words(from: *const u32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn high_words<const LOW: u32>(from: *const u32, left: u32) -> __m512i {
        // A permutation reads a lane's lowest bits: the code's upper bits must arrive above its LOW lower ones.
        unsafe { _mm512_rolv_epi32(Self::words(from), _mm512_set1_epi32((left + LOW).cast_signed())) }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut __m512i, high: &mut __m512i) -> __m512 {
        unsafe {
            match (LOW, HIGH) {
                (4, 0) => {
                    *low = _mm512_rol_epi32::<4>(*low);
                    _mm512_permutexvar_ps(*low, table::<4>(0))
                }
                (2, 0) => {
                    *low = _mm512_rol_epi32::<2>(*low);
                    _mm512_permutexvar_ps(*low, table::<2>(0))
                }
                (2, 1) => {
                    (*low, *high) = (_mm512_rol_epi32::<2>(*low), _mm512_rol_epi32::<1>(*high));
                    _mm512_permutexvar_ps(join(3, *low, *high), table::<3>(0))
                }
                (4, 1) => {
                    (*low, *high) = (_mm512_rol_epi32::<4>(*low), _mm512_rol_epi32::<1>(*high));
                    _mm512_permutex2var_ps(table::<5>(0), join(15, *low, *high), table::<5>(16))
                }
                _ => {
                    (*low, *high) = (_mm512_rol_epi32::<4>(*low), _mm512_rol_epi32::<2>(*high));
                    let top = _mm512_slli_epi32::<26>(join(15, *low, *high));
                    _mm512_cvtepi32_ps(_mm512_srai_epi32::<26>(top))
                }
            }
        }
    }
}

/// What the codes from `first` on stand for, 16 of them, repeated where there are fewer.
#[inline(always)]
unsafe fn table<const BITS: u32>(first: u32) -> __m512 {
    let mut values = [0.0; 16];
    for (code, value) in (first..).zip(&mut values) {
        *value = ((code << (32 - BITS)).cast_signed() >> (32 - BITS)) as f32;
    }
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// The bits of `low` that `mask` has, the others of `high`.
#[inline(always)]
unsafe fn join(mask: i32, low: __m512i, high: __m512i) -> __m512i {
    // For each bit, mask ? low : high.
    unsafe { _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask), low, high) }
}

/// 16 registers of 8 lanes, with FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2;

impl Simd for Avx2 {
    type V = [__m256; 2];
    type W = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self::V {
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, [a, b]: Self::V) {
        unsafe {
            _mm256_storeu_ps(to, a);
            _mm256_storeu_ps(to.add(8), b);
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> Self::V {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let words = [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))];
            [_mm256_cvtepi32_ps(words[0]), _mm256_cvtepi32_ps(words[1])]
        }
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> Self::V {
        let half = |at: usize| unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(at).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        };
        [half(0), half(8)]
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> Self::V {
        let half = |at: usize| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.add(at).cast())) };
        [half(0), half(8)]
    }

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::W {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    #[inline(always)]
    unsafe fn high_words<const LOW: u32>(from: *const u32, left: u32) -> Self::W {
        unsafe {
            let (words, left) = (Self::words(from), _mm_cvtsi32_si128(left.cast_signed()));
            [_mm256_sll_epi32(words[0], left), _mm256_sll_epi32(words[1], left)]
        }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut Self::W, high: &mut Self::W) -> Self::V {
        let mut out = unsafe { Self::zero() };
        for i in 0..2 {
            unsafe {
                let code = match (LOW, HIGH) {
                    (4, 0) => _mm256_srai_epi32::<28>(low[i]),
                    (2, 0) => _mm256_srai_epi32::<30>(low[i]),
                    (2, 1) => {
                        let top = _mm256_slli_epi32::<2>(_mm256_srai_epi32::<31>(high[i]));
                        _mm256_or_si256(top, _mm256_srli_epi32::<30>(low[i]))
                    }
                    (4, 1) => {
                        let top = _mm256_slli_epi32::<4>(_mm256_srai_epi32::<31>(high[i]));
                        _mm256_or_si256(top, _mm256_srli_epi32::<28>(low[i]))
                    }
                    _ => {
                        let top = _mm256_slli_epi32::<4>(_mm256_srai_epi32::<30>(high[i]));
                        _mm256_or_si256(top, _mm256_srli_epi32::<28>(low[i]))
                    }
                };
                low[i] =
                    if LOW == 4 { _mm256_slli_epi32::<4>(low[i]) } else { _mm256_slli_epi32::<2>(low[i]) };
                if HIGH == 1 {
                    high[i] = _mm256_slli_epi32::<1>(high[i]);
                } else if HIGH == 2 {
                    high[i] = _mm256_slli_epi32::<2>(high[i]);
                }
                out[i] = _mm256_cvtepi32_ps(code);
            }
        }
        out
    }
}
