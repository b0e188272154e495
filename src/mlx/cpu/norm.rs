//! Root-mean-square normalization of rows.

use prefixd_blas::threads;

use super::simd::{Arith, per_isa, tree};

/// Elements below which one thread is faster than two.
pub const PARALLEL_ELEMENTS: usize = 1 << 15;

/// `out = x / sqrt(mean(x^2) + eps) * weight`, row by row, plus `residual` where given. `weight` is one row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, residual: Option<&[f32]>, out: &mut [f32]) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width) && x.len() == out.len(), "rows of {width} expected");
    assert!(residual.is_none_or(|r| r.len() == x.len()), "the residual is not shaped like the input");
    // Whole rows, about 8192 elements to a piece.
    let piece = (8192 / width).max(1) * width;
    let work = |i: usize, out: &mut [f32]| {
        let at = i * piece;
        rows(&x[at..][..out.len()], weight, eps, residual.map(|r| &r[at..][..out.len()]), out);
    };
    threads::pieces(x.len() >= PARALLEL_ELEMENTS, out, piece, work);
}

per_isa! {
    fn rows(x: &[f32], weight: &[f32], eps: f32, residual: Option<&[f32]>, out: &mut [f32]) = each_row
}

#[inline(always)]
fn each_row<F: Arith, const N: usize>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let width = weight.len();
    for (i, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let factor = 1.0 / (sum_of_squares::<F>(x) / width as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
        if let Some(residual) = residual {
            for (out, residual) in out.iter_mut().zip(&residual[i * width..]) {
                *out += residual;
            }
        }
    }
}

/// Sixteen chains and a tree; a tail is padded with zeros.
#[inline(always)]
pub fn sum_of_squares<F: Arith>(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = F::fma(*x, *x, *lane);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = F::fma(*x, *x, *lane);
    }
    tree(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_s_result_ignores_the_other_rows() {
        let (width, count) = (72, 700);
        let x: Vec<f32> = (0..width * count).map(|i| ((i * 31 % 257) as f32 - 128.0) / 31.0).collect();
        let weight: Vec<f32> = (0..width).map(|i| 1.0 + i as f32 / 100.0).collect();
        let mut all = vec![0.0; x.len()];
        rms_norm(&x, &weight, 1e-5, Some(&x), &mut all);
        for (i, row) in x.chunks(width).enumerate() {
            let mut alone = vec![0.0; width];
            rms_norm(row, &weight, 1e-5, Some(row), &mut alone);
            assert_eq!(alone, all[i * width..][..width], "row {i}");
            let mean = row.iter().map(|x| f64::from(x * x)).sum::<f64>() / width as f64;
            for (j, value) in alone.iter().enumerate() {
                let exact =
                    f64::from(row[j]) / (mean + 1e-5).sqrt() * f64::from(weight[j]) + f64::from(row[j]);
                assert!((f64::from(*value) - exact).abs() < 1e-5, "row {i} element {j}");
            }
        }
    }
}
