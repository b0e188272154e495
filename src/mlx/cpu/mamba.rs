//! Mamba 2's rule: a matrix for each head that fades, takes each token in, and is read by it.
//!
//! Dao and Gu, "Transformers are SSMs" (2024). With a step `d` of its own a token does `S = decay S`, `S = S + B (d x)^T`,
//! `y = S^T C + skip x`. `B` and `C` stand where keys and queries do in the delta rule, and heads share them in whole groups.
//!
//! Tokens follow one another, and columns of a head know nothing of each other, as in [`delta`](super::delta).

use super::scan::{RowState, StateShape, by_heads, load_columns, store_columns, taken};
use super::simd::{Arith, per_isa};

/// What all tokens of a step bring.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// `x`, `B` and `C`, one behind the other, `[tokens, width]`.
    pub vectors: &'a [f32],
    /// What is left of the state, `[tokens, heads]`.
    pub decay: &'a [f32],
    /// How much of `x` the state takes, `[tokens, heads]`.
    pub steps: &'a [f32],
    /// How much of `x` goes past the state, `[heads]`.
    pub skip: &'a [f32],
}

/// How far each token takes each head's state, `softplus(x + bias)` between the bounds, and how much of the state is left,
/// `exp(-exp(rate) step)`: steps and decays, `[tokens, heads]` as `x`. Rates and biases are one a head.
pub fn steps([rates, biases]: [&[f32]; 2], bounds: [f32; 2], x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let each = x.chunks_exact(rates.len()).flat_map(|x| {
        x.iter().zip(rates.iter().zip(biases)).map(|(x, (rate, bias))| {
            let x = x + bias;
            let step = (x.max(0.0) + (-x.abs()).exp().ln_1p()).max(bounds[0]).min(bounds[1]);
            (step, (-rate.exp() * step).exp())
        })
    });
    each.unzip()
}

/// Takes every row through its tokens. Result `[tokens, heads * value dim]`; tokens of no row are 0.
pub fn mamba_scan(shape: StateShape, tokens: Tokens<'_>, rows: Vec<RowState<'_>>, out: &mut [f32]) {
    let count = tokens.decay.len() / shape.value_heads;
    assert!(
        tokens.vectors.len() == count * shape.width() && out.len() == count * shape.out_width(),
        "shape of vectors"
    );
    assert!(
        tokens.steps.len() == tokens.decay.len() && tokens.skip.len() == shape.value_heads,
        "a step for each token and head, and a skip for each head expected"
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
    let group = head / (value_heads / key_heads);
    let inputs = shape.out_width() + group * key_dim;
    let outputs = inputs + key_heads * key_dim;
    let mut block = vec![[0.0_f32; N]; key_dim];
    for from in (0..value_dim).step_by(N) {
        let width = N.min(value_dim - from);
        load_columns(&mut block, before, from..from + width);
        for (i, out) in out.chunks_exact_mut(value_dim).enumerate() {
            let token = first + i;
            let at = token * value_heads + head;
            let vectors = &tokens.vectors[token * shape.width()..][..shape.width()];
            let x = &vectors[head * value_dim + from..][..width];
            let mut change = [0.0; N];
            for (change, x) in change.iter_mut().zip(x) {
                *change = tokens.steps[at] * x;
            }
            let (key, query) = (&vectors[inputs..][..key_dim], &vectors[outputs..][..key_dim]);
            let read = taken::<F, N>(&mut block, tokens.decay[at], &change, key, query);
            for ((out, read), x) in out[from..].iter_mut().zip(read).zip(x) {
                *out = F::fma(tokens.skip[head], *x, read);
            }
        }
        store_columns(&block, after, from..from + width);
    }
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
        steps: Vec<f32>,
        skip: Vec<f32>,
    }

    impl Given {
        fn new(count: usize) -> Self {
            let value = |i: usize| ((i * 7919 % 1009) as f32) / 1009.0;
            Self {
                vectors: (0..count * SHAPE.width()).map(|i| 3.0 * value(i) - 1.5).collect(),
                decay: (0..count * SHAPE.value_heads).map(|i| 0.5 + value(3 * i) / 2.0).collect(),
                steps: (0..count * SHAPE.value_heads).map(|i| value(5 * i + 1)).collect(),
                skip: (0..SHAPE.value_heads).map(|i| value(11 * i + 2)).collect(),
            }
        }

        fn part(&self, tokens: Range<usize>) -> Tokens<'_> {
            let heads = tokens.start * SHAPE.value_heads..tokens.end * SHAPE.value_heads;
            Tokens {
                vectors: &self.vectors[tokens.start * SHAPE.width()..tokens.end * SHAPE.width()],
                decay: &self.decay[heads.clone()],
                steps: &self.steps[heads],
                skip: &self.skip,
            }
        }
    }

    #[test]
    fn borders_and_neighbours_change_no_bit() {
        let given = Given::new(laws::TOKENS);
        laws::borders_and_neighbours_change_no_bit(SHAPE, |tokens, rows, out| {
            mamba_scan(SHAPE, given.part(tokens), rows, out);
        });
    }

    #[test]
    fn states_and_results_are_those_of_the_formula() {
        let (given, count) = (Given::new(20), 20);
        let (out, state) =
            laws::alone(SHAPE, count, |rows, out| mamba_scan(SHAPE, given.part(0..count), rows, out));
        let StateShape { key_heads, key_dim, value_dim, .. } = SHAPE;
        for head in 0..SHAPE.value_heads {
            let mut exact = vec![0.0_f64; key_dim * value_dim];
            for token in 0..count {
                let vectors = &given.vectors[token * SHAPE.width()..][..SHAPE.width()];
                let group = SHAPE.out_width() + head / 3 * key_dim;
                let (b, c) = (&vectors[group..], &vectors[group + key_heads * key_dim..]);
                let at = token * SHAPE.value_heads + head;
                for v in 0..value_dim {
                    let x = f64::from(vectors[head * value_dim + v]);
                    let mut read = f64::from(given.skip[head]) * x;
                    for k in 0..key_dim {
                        let state = &mut exact[k * value_dim + v];
                        *state = *state * f64::from(given.decay[at])
                            + f64::from(b[k]) * f64::from(given.steps[at]) * x;
                        read += *state * f64::from(c[k]);
                    }
                    let found = out[token * SHAPE.out_width() + head * value_dim + v];
                    assert!(
                        (f64::from(found) - read).abs() < 1e-4,
                        "{token} {head} {v}: {found}, expected {read}"
                    );
                }
            }
            let found = &state[head * key_dim * value_dim..][..exact.len()];
            assert!(found.iter().zip(&exact).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
        }
    }

    #[test]
    fn steps_stay_between_their_bounds_and_decays_follow_them() {
        let x: Vec<f32> = (0..40).map(|i| i as f32 - 20.0).collect();
        let (steps, decays) = steps([&[-1.0, 0.5], &[0.25, -0.5]], [0.1, 4.0], &x);
        for (i, (step, decay)) in steps.iter().zip(&decays).enumerate() {
            let (rate, bias) = if i % 2 == 0 { (-1.0, 0.25) } else { (0.5, -0.5) };
            let exact = (f64::from(x[i]) + bias).exp().ln_1p().clamp(0.1, 4.0);
            assert!((f64::from(*step) - exact).abs() < 1e-5, "{i}: {step}, expected {exact}");
            assert!((f64::from(*decay) - (-f64::exp(rate) * exact).exp()).abs() < 1e-5);
        }
    }
}
