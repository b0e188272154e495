//! AVX2, with and without the instructions for neural networks (VNNI).
//!
//! SAFETY of every block: the trait's contract. The processor has the instructions, and pointers have 16 elements.

#![allow(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
#![allow(clippy::wildcard_imports, reason = "forty intrinsics")]

use std::arch::x86_64::*;

use super::simd::{Simd, both, lowest};

/// 16 registers of 8 lanes, with FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type V = [__m256; 2];
    type Sums = [__m256i; 2];
    type Pairs = [__m256i; 2];
    type Pair = __m256i;

    #[inline(always)]
    fn prefetch(line: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }

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
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
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
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn larger(a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn size(x: Self::V) -> Self::V {
        let sign = unsafe { _mm256_set1_ps(-0.0) };
        x.map(|x| unsafe { _mm256_andnot_ps(sign, x) })
    }

    #[inline(always)]
    unsafe fn first(x: Self::V) -> f32 {
        unsafe { _mm256_cvtss_f32(x[0]) }
    }

    #[inline(always)]
    unsafe fn largest(x: Self::V) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(x[0], x[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(x[0], x[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn times_two_to(p: Self::V, shifted: Self::V, x: Self::V, least: Self::V) -> Self::V {
        let mut out = p;
        for i in 0..2 {
            unsafe {
                let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted[i]));
                let power = _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(127 << 23)));
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(x[i], least[i]);
                out[i] = _mm256_andnot_ps(below, _mm256_mul_ps(p[i], power));
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn store_whole(to: *mut u16, x: Self::V) {
        unsafe {
            // Halves of 128 bits are packed by themselves: put back in order.
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    unsafe fn pairs(from: *const u32) -> Self::Pairs {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, [a, b]: Self::Pairs) {
        unsafe {
            _mm256_storeu_si256(to.cast(), a);
            _mm256_storeu_si256(to.add(8).cast(), b);
        }
    }

    #[inline(always)]
    unsafe fn right_by(pairs: Self::Pairs, bits: u32) -> Self::Pairs {
        unsafe {
            let bits = _mm_cvtsi32_si128(bits.cast_signed());
            [_mm256_srl_epi32(pairs[0], bits), _mm256_srl_epi32(pairs[1], bits)]
        }
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(
        low: &mut Self::Pairs,
        high: &mut Self::Pairs,
    ) -> Self::Pairs {
        let mask = |bits: u32| unsafe { _mm256_set1_epi32(both(lowest(bits)).cast_signed()) };
        let mut codes = *low;
        for i in 0..2 {
            unsafe {
                codes[i] = _mm256_and_si256(low[i], mask(LOW));
                // As above.
                low[i] = match LOW {
                    2 => _mm256_srli_epi32::<2>(low[i]),
                    4 => _mm256_srli_epi32::<4>(low[i]),
                    _ => _mm256_srli_epi32::<8>(low[i]),
                };
                if HIGH > 0 {
                    let above = _mm256_and_si256(high[i], mask(HIGH));
                    high[i] = if HIGH == 1 {
                        _mm256_srli_epi32::<1>(high[i])
                    } else {
                        _mm256_srli_epi32::<2>(high[i])
                    };
                    let above =
                        if LOW == 2 { _mm256_slli_epi32::<2>(above) } else { _mm256_slli_epi32::<4>(above) };
                    codes[i] = _mm256_or_si256(codes[i], above);
                }
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn no_pairs() -> Self::Pairs {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn joined(first: *const u8, second: *const u8) -> Self::Pairs {
        let half = |at: usize| unsafe {
            let [first, second] =
                [first, second].map(|bytes| _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.add(at).cast())));
            _mm256_or_si256(first, _mm256_slli_epi32::<16>(second))
        };
        [half(0), half(8)]
    }

    #[inline(always)]
    unsafe fn turn(rows: &[*const u8; 16], words: usize, into: *mut u32) {
        unsafe { turn(rows, words, into) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const u32) -> __m256i {
        unsafe { _mm256_set1_epi32((*from).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn dot(mut sums: Self::Sums, x: __m256i, pairs: Self::Pairs) -> Self::Sums {
        for (sum, pairs) in sums.iter_mut().zip(pairs) {
            *sum = unsafe {
                if VNNI {
                    _mm256_dpwssd_avx_epi32(*sum, x, pairs)
                } else {
                    _mm256_add_epi32(*sum, _mm256_madd_epi16(x, pairs))
                }
            };
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::V {
        unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
    }
}

/// See [`Simd::turn`]: squares of eight words.
#[inline(always)]
pub unsafe fn turn(rows: &[*const u8; 16], words: usize, into: *mut u32) {
    for word in (0..words).step_by(8) {
        for (half, rows) in rows.as_chunks::<8>().0.iter().enumerate() {
            unsafe {
                let r = rows.map(|row| _mm256_loadu_si256(row.add(word * 4).cast()));
                // Words of neighbouring rows, then of four rows, then of the two halves.
                let low = |a, b| _mm256_unpacklo_epi32(a, b);
                let high = |a, b| _mm256_unpackhi_epi32(a, b);
                let twos = [
                    low(r[0], r[1]),
                    high(r[0], r[1]),
                    low(r[2], r[3]),
                    high(r[2], r[3]),
                    low(r[4], r[5]),
                    high(r[4], r[5]),
                    low(r[6], r[7]),
                    high(r[6], r[7]),
                ];
                let fours = |i: usize| {
                    [_mm256_unpacklo_epi64(twos[i], twos[i + 2]), _mm256_unpackhi_epi64(twos[i], twos[i + 2])]
                };
                let (upper, lower) = ([fours(0), fours(1)], [fours(4), fours(5)]);
                for i in 0..4 {
                    let (a, b) = (upper[i / 2][i % 2], lower[i / 2][i % 2]);
                    let into = into.add((word + i) * 16 + half * 8);
                    _mm256_storeu_si256(into.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
                    _mm256_storeu_si256(into.add(4 * 16).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
                }
            }
        }
    }
}
