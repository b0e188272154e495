//! The gated delta rule: a matrix for each head that fades, is corrected by each token, and is read by it.
//!
//! Yang, Kautz and Hatamizadeh, "Gated Delta Networks" (2024). With keys and queries of unit length, a token does
//! `S = decay S`, `S = S + k (strength (v - S^T k))^T`, `y = S^T q`.
//!
//! Tokens follow one another, so their number in a call and what else is computed with them change nothing. A head's columns
//! know nothing of each other: a block of them stays in the processor's first cache while all tokens of a row pass.

use super::norm::sum_of_squares;
use super::scan::{CHAINS, RowState, StateShape, by_heads, load_columns, store_columns, taken, total};
use super::simd::{Arith, per_isa};

/// Added to the sum of squares of a query or key before the root.
pub const EPS: f32 = 1e-6;

/// What all tokens of a step bring.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Queries, keys and values, not yet of unit length, `[tokens, width]`.
    pub vectors: &'a [f32],
    /// What is left of the state, `[tokens, value heads]`.
    pub decay: &'a [f32],
    /// How far the state moves to the value, `[tokens, value heads]`.
    pub strength: &'a [f32],
}

/// How much of each head's state a token leaves, `exp(-exp(rate) softplus(x + bias))`, and how far it moves the rest,
/// `1 / (1 + e^-x)`. Rates and biases are one a head; `decay` and `strength` give `x`, `[tokens, value heads]`.
pub fn gates([rates, biases]: [&[f32]; 2], decay: &[f32], strength: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let decay = decay.chunks_exact(rates.len()).flat_map(|decay| {
        decay.iter().zip(rates.iter().zip(biases)).map(|(x, (rate, bias))| {
            let x = x + bias;
            (-rate.exp() * (x.max(0.0) + (-x.abs()).exp().ln_1p())).exp()
        })
    });
    (decay.collect(), strength.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect())
}

/// Takes every row through its tokens. Result `[tokens, value heads * value dim]`; tokens of no row are 0.
pub fn delta_scan(shape: StateShape, tokens: Tokens<'_>, rows: Vec<RowState<'_>>, out: &mut [f32]) {
    let count = tokens.decay.len() / shape.value_heads;
    assert!(
        tokens.vectors.len() == count * shape.width() && out.len() == count * shape.out_width(),
        "shape of vectors"
    );
    assert!(
        tokens.strength.len() == tokens.decay.len(),
        "a decay and a strength for each token and head expected"
    );
    by_heads(shape, rows, out, |head| {
        head_scan(shape, tokens, head.number, head.first, head.before, head.after, head.out);
    });
}

per_isa! {
    fn head_scan(shape: StateShape, tokens: Tokens<'_>, head: usize, first: usize, before: &[f32], after: &mut [f32], out: &mut [f32]) = columns
}

/// One head of one row, whose tokens begin with number `first`: results `[tokens of the row, value dim]`.
#[inline(always)]
fn columns<F: Arith, const N: usize>(
    shape: StateShape,
    tokens: Tokens<'_>,
    head: usize,
    first: usize,
    before: &[f32],
    after: &mut [f32],
    out: &mut [f32],
) {
    let StateShape { key_heads, value_heads, key_dim, value_dim } = shape;
    let key_head = head / (value_heads / key_heads);
    // Queries and keys of unit length, queries divided by the root of their length once more.
    let count = out.len() / value_dim;
    let mut unit = vec![0.0; count * 2 * key_dim];
    for (i, unit) in unit.chunks_exact_mut(2 * key_dim).enumerate() {
        let vectors = &tokens.vectors[(first + i) * shape.width()..];
        let (query, key) = unit.split_at_mut(key_dim);
        for (part, unit, scale) in [(0, query, (key_dim as f32).sqrt().recip()), (1, key, 1.0)] {
            let x = &vectors[(part * key_heads + key_head) * key_dim..][..key_dim];
            let factor = scale / (sum_of_squares::<F>(x) + EPS).sqrt();
            unit.iter_mut().zip(x).for_each(|(unit, x)| *unit = x * factor);
        }
    }
    let mut block = vec![[0.0_f32; N]; key_dim];
    for from in (0..value_dim).step_by(N) {
        let width = N.min(value_dim - from);
        load_columns(&mut block, before, from..from + width);
        for (i, unit) in unit.chunks_exact(2 * key_dim).enumerate() {
            let (query, key) = unit.split_at(key_dim);
            let token = first + i;
            let at = token * value_heads + head;
            let (decay, strength) = (tokens.decay[at], tokens.strength[at]);
            let known = faded::<F, N>(&mut block, decay, key);
            let values = 2 * key_heads * key_dim + head * value_dim + from;
            let values = &tokens.vectors[token * shape.width() + values..][..width];
            let mut change = [0.0; N];
            for (change, (value, known)) in change.iter_mut().zip(values.iter().zip(known)) {
                *change = strength * (value - known);
            }
            let read = taken::<F, N>(&mut block, 1.0, &change, key, query);
            out[i * value_dim + from..][..width].copy_from_slice(&read[..width]);
        }
        store_columns(&block, after, from..from + width);
    }
}

/// Multiplies the state by `decay`, and the result's transpose by `key`.
#[inline(always)]
fn faded<F: Arith, const N: usize>(state: &mut [[f32; N]], decay: f32, key: &[f32]) -> [f32; N] {
    let mut sums = [[0.0_f32; N]; CHAINS];
    for (rows, keys) in state.chunks_mut(CHAINS).zip(key.chunks(CHAINS)) {
        for ((row, key), sum) in rows.iter_mut().zip(keys).zip(&mut sums) {
            for (x, sum) in row.iter_mut().zip(sum) {
                *x *= decay;
                *sum = F::fma(*x, *key, *sum);
            }
        }
    }
    total(sums)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::scan::laws;
    use super::*;

    const SHAPE: StateShape = StateShape { key_heads: 2, value_heads: 6, key_dim: 23, value_dim: 40 };

    struct Given {
        vectors: Vec<f32>,
        decay: Vec<f32>,
        strength: Vec<f32>,
    }

    impl Given {
        fn new(count: usize, salt: usize) -> Self {
            let value = |i: usize| (((i + salt) * 7919 % 1009) as f32) / 1009.0;
            Self {
                vectors: (0..count * SHAPE.width()).map(|i| 3.0 * value(i) - 1.5).collect(),
                decay: (0..count * SHAPE.value_heads).map(|i| 0.5 + value(3 * i) / 2.0).collect(),
                strength: (0..count * SHAPE.value_heads).map(|i| value(5 * i + 1)).collect(),
            }
        }

        fn part(&self, tokens: Range<usize>) -> Tokens<'_> {
            let heads = tokens.start * SHAPE.value_heads..tokens.end * SHAPE.value_heads;
            Tokens {
                vectors: &self.vectors[tokens.start * SHAPE.width()..tokens.end * SHAPE.width()],
                decay: &self.decay[heads.clone()],
                strength: &self.strength[heads],
            }
        }
    }

    #[test]
    fn borders_and_neighbours_change_no_bit() {
        let given = Given::new(laws::TOKENS, 1);
        laws::borders_and_neighbours_change_no_bit(SHAPE, |tokens, rows, out| {
            delta_scan(SHAPE, given.part(tokens), rows, out);
        });
    }

    #[test]
    fn states_and_results_are_those_of_the_formula() {
        let (given, count) = (Given::new(20, 5), 20);
        let (out, state) =
            laws::alone(SHAPE, count, |rows, out| delta_scan(SHAPE, given.part(0..count), rows, out));
        let StateShape { key_dim, value_dim, .. } = SHAPE;
        for head in 0..SHAPE.value_heads {
            let mut exact = vec![0.0_f64; key_dim * value_dim];
            for token in 0..count {
                let vectors = &given.vectors[token * SHAPE.width()..][..SHAPE.width()];
                let unit = |part: usize| -> Vec<f64> {
                    let x = &vectors[(part * SHAPE.key_heads + head / 3) * key_dim..][..key_dim];
                    let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() + 1e-6;
                    x.iter().map(|x| f64::from(*x) / norm.sqrt()).collect()
                };
                let (query, key) = (unit(0), unit(1));
                let at = token * SHAPE.value_heads + head;
                for v in 0..value_dim {
                    let mut known = 0.0;
                    for k in 0..key_dim {
                        exact[k * value_dim + v] *= f64::from(given.decay[at]);
                        known += exact[k * value_dim + v] * key[k];
                    }
                    let value = vectors[2 * SHAPE.key_heads * key_dim + head * value_dim + v];
                    let change = f64::from(given.strength[at]) * (f64::from(value) - known);
                    let mut read = 0.0;
                    for k in 0..key_dim {
                        exact[k * value_dim + v] += key[k] * change;
                        read += exact[k * value_dim + v] * query[k] / (key_dim as f64).sqrt();
                    }
                    let found = out[token * SHAPE.out_width() + head * value_dim + v];
                    assert!(
                        (f64::from(found) - read).abs() < 1e-5,
                        "{token} {head} {v}: {found}, expected {read}"
                    );
                }
            }
            let found = &state[head * key_dim * value_dim..][..exact.len()];
            assert!(found.iter().zip(&exact).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5));
        }
    }
}
