//! AVX-512 (32 registers of 16) and AVX2 with FMA (16 registers of 8).

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{AHEAD, Kernels, Shape};

pub static AVX512: Kernels = avx512::KERNELS;
pub static AVX2: Kernels = avx2::KERNELS;

#[inline]
fn prefetch(from: *const f32) {
    // SAFETY: a hint, which never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
}

mod avx512 {
    use super::{AHEAD, Kernels, Shape, prefetch};
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_fmadd_ps as multiply_add, _mm512_loadu_ps as load,
        _mm512_set1_ps as splat, _mm512_setzero_ps as zero, _mm512_shuffle_f32x4 as quarters,
        _mm512_storeu_ps as store, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
        _mm512_unpacklo_ps,
    };

    const LANES: usize = 16;

    pub const KERNELS: Kernels = Kernels {
        lanes: LANES,
        shapes: [
            Shape {
                width: 2 * LANES,
                tiles: &[
                    tile::<1, 2>,
                    tile::<2, 2>,
                    tile::<3, 2>,
                    tile::<4, 2>,
                    tile::<5, 2>,
                    tile::<6, 2>,
                    tile::<7, 2>,
                    tile::<8, 2>,
                    tile::<9, 2>,
                    tile::<10, 2>,
                    tile::<11, 2>,
                    tile::<12, 2>,
                ],
            },
            Shape {
                width: 4 * LANES,
                tiles: &[tile::<1, 4>, tile::<2, 4>, tile::<3, 4>, tile::<4, 4>, tile::<5, 4>, tile::<6, 4>],
            },
            Shape { width: 8 * LANES, tiles: &[tile::<1, 8>, tile::<2, 8>, tile::<3, 8>] },
        ],
        transpose,
    };

    tile!(#[target_feature(enable = "avx512f")]);

    /// Interleaves rows twice within quarters of a vector, then twice whole quarters.
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        let rows: [__m512; LANES] = std::array::from_fn(|i| {
            prefetch(from.wrapping_add(i * from_stride + 4 * LANES));
            // SAFETY: the caller has 16 rows of 16 on both sides.
            unsafe { load(from.add(i * from_stride)) }
        });
        let mut pairs = rows;
        for i in (0..LANES).step_by(2) {
            pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
        }
        let mut fours = pairs;
        for i in (0..LANES).step_by(4) {
            fours[i] = low(pairs[i], pairs[i + 2]);
            fours[i + 1] = high(pairs[i], pairs[i + 2]);
            fours[i + 2] = low(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = high(pairs[i + 1], pairs[i + 3]);
        }
        // fours[4g + j] holds columns j, 4 + j, 8 + j and 12 + j of the rows 4g to 4g + 3.
        for j in 0..4 {
            let even =
                [quarters::<0x88>(fours[j], fours[4 + j]), quarters::<0x88>(fours[8 + j], fours[12 + j])];
            let odd =
                [quarters::<0xdd>(fours[j], fours[4 + j]), quarters::<0xdd>(fours[8 + j], fours[12 + j])];
            // SAFETY: as above.
            unsafe {
                store(to.add(j * to_stride), quarters::<0x88>(even[0], even[1]));
                store(to.add((4 + j) * to_stride), quarters::<0x88>(odd[0], odd[1]));
                store(to.add((8 + j) * to_stride), quarters::<0xdd>(even[0], even[1]));
                store(to.add((12 + j) * to_stride), quarters::<0xdd>(odd[0], odd[1]));
            }
        }
    }
}

mod avx2 {
    use super::{AHEAD, Kernels, Shape, prefetch};
    use std::arch::x86_64::{
        __m256, _mm256_castpd_ps, _mm256_castps_pd, _mm256_fmadd_ps as multiply_add, _mm256_loadu_ps as load,
        _mm256_permute2f128_ps as halves, _mm256_set1_ps as splat, _mm256_setzero_ps as zero,
        _mm256_storeu_ps as store, _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_pd,
        _mm256_unpacklo_ps,
    };

    const LANES: usize = 8;

    pub const KERNELS: Kernels = Kernels {
        lanes: LANES,
        shapes: [
            Shape {
                width: 2 * LANES,
                tiles: &[tile::<1, 2>, tile::<2, 2>, tile::<3, 2>, tile::<4, 2>, tile::<5, 2>, tile::<6, 2>],
            },
            Shape { width: 4 * LANES, tiles: &[tile::<1, 4>, tile::<2, 4>] },
            Shape { width: 8 * LANES, tiles: &[tile::<1, 8>] },
        ],
        transpose,
    };

    tile!(#[target_feature(enable = "avx2,fma")]);

    /// Interleaves rows twice within halves of a vector, then whole halves.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let low = |a, b| _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
        let high = |a, b| _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
        // SAFETY: the caller has 8 rows of 8 on both sides.
        let rows: [__m256; LANES] = std::array::from_fn(|i| unsafe { load(from.add(i * from_stride)) });
        let mut pairs = rows;
        for i in (0..LANES).step_by(2) {
            pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
        }
        let mut fours = pairs;
        for i in (0..LANES).step_by(4) {
            fours[i] = low(pairs[i], pairs[i + 2]);
            fours[i + 1] = high(pairs[i], pairs[i + 2]);
            fours[i + 2] = low(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = high(pairs[i + 1], pairs[i + 3]);
        }
        // fours[4g + j] holds columns j and 4 + j of the rows 4g to 4g + 3.
        for j in 0..4 {
            // SAFETY: as above.
            unsafe {
                store(to.add(j * to_stride), halves::<0x20>(fours[j], fours[4 + j]));
                store(to.add((4 + j) * to_stride), halves::<0x31>(fours[j], fours[4 + j]));
            }
        }
    }
}
