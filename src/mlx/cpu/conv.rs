//! Causal convolution of short kernels, each element of a vector by itself.

use prefixd_blas::threads;

use super::norm::PARALLEL_ELEMENTS;
use super::simd::{Arith, exp, per_isa};

/// What follows the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Plain,
    /// `x / (1 + e^-x)`.
    Silu,
}

/// One row's convolution: `out[t, c] = after(bias[c] + sum over j of kernel[j, c] * x[t - taps + 1 + j, c])`, the sum in the order of `j`.
/// `kernel` is `[taps, width]`, `bias` `[width]` or empty, `before` the `taps - 1` vectors before `x`, oldest first; `tail` becomes the last so many of both.
pub fn short_conv(
    width: usize,
    [kernel, bias]: [&[f32]; 2],
    after: After,
    [before, x]: [&[f32]; 2],
    tail: &mut [f32],
    out: &mut [f32],
) {
    assert!(
        width > 0 && x.len() == out.len() && x.len().is_multiple_of(width),
        "vectors of {width} expected"
    );
    assert!(bias.is_empty() || bias.len() == width, "a bias for each element expected");
    assert!(
        kernel.len() == before.len() + width && tail.len() == before.len(),
        "one vector fewer than taps expected"
    );
    let piece = (8192 / width).max(1) * width;
    let work = |i: usize, out: &mut [f32]| convolve(width, [kernel, bias], after, before, x, i * piece, out);
    threads::pieces(x.len() >= PARALLEL_ELEMENTS, out, piece, work);
    let kept = tail.len().saturating_sub(x.len());
    tail[..kept].copy_from_slice(&before[before.len() - kept..]);
    let length = tail.len();
    tail[kept..].copy_from_slice(&x[x.len() - (length - kept)..]);
}

per_isa! {
    fn convolve(width: usize, weights: [&[f32]; 2], after: After, before: &[f32], x: &[f32], at: usize, out: &mut [f32]) = each_vector
}

/// Results from element `at` of `x` on.
#[inline(always)]
fn each_vector<F: Arith, const N: usize>(
    width: usize,
    [kernel, bias]: [&[f32]; 2],
    after: After,
    before: &[f32],
    x: &[f32],
    at: usize,
    out: &mut [f32],
) {
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        if bias.is_empty() {
            out.fill(0.0);
        } else {
            out.copy_from_slice(bias);
        }
        for (j, kernel) in kernel.chunks_exact(width).enumerate() {
            // Where the tap reads, counted from the first vector before `x`.
            let from = at + (i + j) * width;
            let source = if from < before.len() { &before[from..] } else { &x[from - before.len()..] };
            for ((out, kernel), x) in out.iter_mut().zip(kernel).zip(&source[..width]) {
                *out = F::fma(*kernel, *x, *out);
            }
        }
        if after == After::Silu {
            for out in out {
                *out /= 1.0 + exp::<F>(-*out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_change_no_bit_and_the_sums_are_those_of_the_formula() {
        let (width, taps, tokens) = (40, 4, 900);
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 17.0;
        let x: Vec<f32> = (0..width * tokens).map(value).collect();
        let kernel: Vec<f32> = (0..width * taps).map(|i| value(i * 7 + 3) / 2.0).collect();
        let before: Vec<f32> = (0..width * (taps - 1)).map(|i| value(i * 5 + 1)).collect();
        let biases: Vec<f32> = (0..width).map(|i| value(i * 11 + 5)).collect();
        for (after, bias) in [(After::Plain, &biases[..0]), (After::Silu, &[]), (After::Silu, &biases)] {
            let (mut all, mut end) = (vec![0.0; x.len()], before.clone());
            short_conv(width, [&kernel, bias], after, [&before, &x], &mut end, &mut all);
            let (mut tail, mut found, mut at) = (before.clone(), Vec::new(), 0);
            for size in [1, 2, 5, 1, 300, 591] {
                let chunk = &x[at * width..(at + size) * width];
                let (mut out, mut next) = (vec![0.0; chunk.len()], tail.clone());
                short_conv(width, [&kernel, bias], after, [&tail, chunk], &mut next, &mut out);
                (tail, at) = (next, at + size);
                found.extend(out);
            }
            assert_eq!((at, &tail), (tokens, &end));
            assert!(found.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()));
            let padded = [before.as_slice(), &x].concat();
            for (i, found) in all.iter().enumerate() {
                let term =
                    |j: usize| f64::from(kernel[j * width + i % width]) * f64::from(padded[j * width + i]);
                let bias = bias.get(i % width).copied().unwrap_or_default();
                let sum = f64::from(bias) + (0..taps).map(term).sum::<f64>();
                let exact = if after == After::Silu { sum / (1.0 + (-sum).exp()) } else { sum };
                assert!((f64::from(*found) - exact).abs() < 1e-4, "{i}: {found}, expected {exact}");
            }
        }
    }
}
