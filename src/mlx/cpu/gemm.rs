//! Products of small matrices that lie in the cache: the inside of attention.
//!
//! 1. Each element of the result is one chain `c + a[0] b[0] + a[1] b[1] + …` in index order, whatever the tile it
//!    falls into.

use super::simd::Arith;

/// Row-major operand: element `(i, j)` is `data[i * stride + j]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Where the chain of an element starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At zero.
    Zero,
    /// At what the result holds.
    Result,
}

/// `c[m, n] = start + a[m, k] b[k, n]`. `n` is a multiple of the tile's width `N`.
#[inline(always)]
pub fn product<F: Arith, const N: usize>(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    c_stride: usize,
    start: Start,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(n.is_multiple_of(N), "width {n} is not a multiple of {N}");
    assert!(a.data.len() >= (m - 1) * a.stride + k, "left operand too short");
    assert!(b.data.len() >= (k - 1) * b.stride + n, "right operand too short");
    assert!(c.len() >= (m - 1) * c_stride + n, "result too short");
    let strides = [a.stride, b.stride, c_stride];
    // Few rows leave room for twice the width, and their chains then hide each other's latency.
    let wide = m <= 3 && n.is_multiple_of(2 * N);
    for j in (0..n).step_by(if wide { 2 * N } else { N }) {
        let mut i = 0;
        while i < m {
            // SAFETY: the tile covers rows `i..i + rows` with `i + rows <= m` and columns of one step from `j` on, of which
            // `n` is a multiple, and the asserts above keep every such element inside its slice.
            i += unsafe {
                let (a, b) = (a.data.as_ptr().add(i * a.stride), b.data.as_ptr().add(j));
                let c = c.as_mut_ptr().add(i * c_stride + j);
                match (m - i, wide) {
                    (1, true) => tile::<F, 1, 2, N>(k, a, b, c, strides, start),
                    (2, true) => tile::<F, 2, 2, N>(k, a, b, c, strides, start),
                    (3, true) => tile::<F, 3, 2, N>(k, a, b, c, strides, start),
                    (1, _) => tile::<F, 1, 1, N>(k, a, b, c, strides, start),
                    (2, _) => tile::<F, 2, 1, N>(k, a, b, c, strides, start),
                    (3, _) => tile::<F, 3, 1, N>(k, a, b, c, strides, start),
                    (4, _) => tile::<F, 4, 1, N>(k, a, b, c, strides, start),
                    (5, _) => tile::<F, 5, 1, N>(k, a, b, c, strides, start),
                    _ => tile::<F, 6, 1, N>(k, a, b, c, strides, start),
                }
            };
        }
    }
}

/// One register tile of `M` rows and `W` times `N` columns. Returns `M`.
///
/// # Safety
/// `a` is readable at `i * lda + p`, `b` at `p * ldb + j`, `c` writable at `i * ldc + j`, for `i < M`, `j < W * N`, `p < k`.
#[inline(always)]
unsafe fn tile<F: Arith, const M: usize, const W: usize, const N: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    [lda, ldb, ldc]: [usize; 3],
    start: Start,
) -> usize {
    let mut acc = [[[0.0_f32; N]; W]; M];
    // SAFETY: the caller's promise covers every index below.
    unsafe {
        if start == Start::Result {
            for (i, row) in acc.iter_mut().enumerate() {
                *row = c.add(i * ldc).cast::<[[f32; N]; W]>().read_unaligned();
            }
        }
        for p in 0..k {
            let right = b.add(p * ldb).cast::<[[f32; N]; W]>().read_unaligned();
            for (i, row) in acc.iter_mut().enumerate() {
                let left = *a.add(i * lda + p);
                for (row, right) in row.iter_mut().zip(&right) {
                    for j in 0..N {
                        row[j] = F::fma(left, right[j], row[j]);
                    }
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            c.add(i * ldc).cast::<[[f32; N]; W]>().write_unaligned(*row);
        }
    }
    M
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Fused, Plain};
    use super::*;

    #[test]
    fn every_tile_shape_gives_the_same_chain() {
        let (m, n, k) = (17, 64, 37);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 53 % 97) as f32 - 48.0) / 13.0).collect();
        let first: Vec<f32> = (0..m * n).map(|i| i as f32 / 7.0).collect();
        let (left, right) = (Matrix { data: &a, stride: k }, Matrix { data: &b, stride: n });
        let (mut fused, mut plain) = (first.clone(), first.clone());
        product::<Fused, 32>([m, n, k], left, right, &mut fused, n, Start::Result);
        product::<Plain, 16>([m, n, k], left, right, &mut plain, n, Start::Result);
        for i in 0..m {
            for j in 0..n {
                let (mut one, mut two) = (first[i * n + j], first[i * n + j]);
                for p in 0..k {
                    one = a[i * k + p].mul_add(b[p * n + j], one);
                    two += a[i * k + p] * b[p * n + j];
                }
                assert_eq!(fused[i * n + j].to_bits(), one.to_bits(), "fused {i} {j}");
                assert_eq!(plain[i * n + j].to_bits(), two.to_bits(), "plain {i} {j}");
            }
        }
    }
}
