//! Matrices that heads keep of a row, which tokens change one after the other: their shapes, and how the work is divided.
//!
//! Each head of each row is a piece of work of its own, so neither neighbours nor the number of threads change a bit.

use std::ops::Range;

use prefixd_blas::threads;

use super::simd::Arith;

/// Chains of each sum over a key's elements.
pub const CHAINS: usize = 4;

/// Heads and their sizes. Value heads share key heads in whole groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateShape {
    /// Query and key heads.
    pub key_heads: usize,
    /// Value heads, each with a state: a matrix.
    pub value_heads: usize,
    /// Elements of a query or key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl StateShape {
    /// Elements of a token's queries, keys and values, one behind the other.
    pub fn width(self) -> usize {
        2 * self.key_heads * self.key_dim + self.out_width()
    }

    /// Elements of a token's result.
    pub fn out_width(self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Elements of a state, `[value heads, key dim, value dim]`.
    pub fn state_len(self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }
}

/// A row: its tokens among all, its state before and after them.
#[derive(Debug)]
pub struct RowState<'a> {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// The state that it has.
    pub before: &'a [f32],
    /// The state that it will have.
    pub after: &'a mut [f32],
}

/// One head of one row.
#[derive(Debug)]
pub struct Head<'a> {
    /// Its number.
    pub number: usize,
    /// The row's first token.
    pub first: usize,
    /// Its matrix before the row's tokens, `[key dim, value dim]`.
    pub before: &'a [f32],
    /// The same after them.
    pub after: &'a mut [f32],
    /// What the row's tokens read, `[tokens of the row, value dim]`.
    pub out: &'a mut [f32],
}

/// Has `scan` take every head of every row through the row's tokens. Result `[tokens, value heads * value dim]`; tokens of no row stay
/// as they are.
pub fn by_heads(shape: StateShape, rows: Vec<RowState<'_>>, out: &mut [f32], scan: impl Fn(Head<'_>) + Sync) {
    let state = shape.key_dim * shape.value_dim;
    let count = out.len() / shape.out_width();
    let mut heads: Vec<_> = rows
        .into_iter()
        .flat_map(|row| {
            assert!(row.tokens.end <= count && row.before.len() == shape.state_len(), "shape of a state");
            let heads = row.before.chunks_exact(state).zip(row.after.chunks_exact_mut(state)).enumerate();
            let own = vec![0.0; row.tokens.len() * shape.value_dim];
            heads.map(move |(number, (before, after))| (row.tokens.start, number, before, after, own.clone()))
        })
        .collect();
    threads::pieces(true, &mut heads, 1, |_, heads| {
        for (first, number, before, after, out) in heads {
            scan(Head { number: *number, first: *first, before, after, out });
        }
    });
    for (first, number, _, _, own) in heads {
        let slots = out[first * shape.out_width()..].chunks_exact_mut(shape.out_width());
        for (slot, own) in slots.zip(own.chunks_exact(shape.value_dim)) {
            slot[number * shape.value_dim..][..shape.value_dim].copy_from_slice(own);
        }
    }
}

/// Takes columns of a matrix, `[key dim, value dim]`.
#[inline(always)]
pub fn load_columns<const N: usize>(block: &mut [[f32; N]], matrix: &[f32], columns: Range<usize>) {
    let value_dim = matrix.len() / block.len();
    for (row, stored) in block.iter_mut().zip(matrix.chunks_exact(value_dim)) {
        row[..columns.len()].copy_from_slice(&stored[columns.clone()]);
    }
}

/// Puts them into one.
#[inline(always)]
pub fn store_columns<const N: usize>(block: &[[f32; N]], matrix: &mut [f32], columns: Range<usize>) {
    let value_dim = matrix.len() / block.len();
    for (row, stored) in block.iter().zip(matrix.chunks_exact_mut(value_dim)) {
        stored[columns.clone()].copy_from_slice(&row[..columns.len()]);
    }
}

/// Multiplies columns by `decay`, adds `key change^T`, and multiplies the result's transpose by `query`.
#[inline(always)]
pub fn taken<F: Arith, const N: usize>(
    state: &mut [[f32; N]],
    decay: f32,
    change: &[f32; N],
    key: &[f32],
    query: &[f32],
) -> [f32; N] {
    let mut sums = [[0.0_f32; N]; CHAINS];
    let elements = key.chunks(CHAINS).zip(query.chunks(CHAINS));
    for (rows, (keys, queries)) in state.chunks_mut(CHAINS).zip(elements) {
        for (((row, key), query), sum) in rows.iter_mut().zip(keys).zip(queries).zip(&mut sums) {
            for ((x, change), sum) in row.iter_mut().zip(change).zip(sum) {
                *x = F::fma(*key, *change, *x * decay);
                *sum = F::fma(*x, *query, *sum);
            }
        }
    }
    total(sums)
}

/// The sum of all chains.
#[inline(always)]
pub fn total<const N: usize>([a, b, c, d]: [[f32; N]; CHAINS]) -> [f32; N] {
    std::array::from_fn(|j| (a[j] + b[j]) + (c[j] + d[j]))
}

/// What both rules are held to.
#[cfg(test)]
pub mod laws {
    use super::*;

    /// Tokens that a law takes.
    pub const TOKENS: usize = 50;

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Results of one row without tokens before these, and its state behind them.
    pub fn alone(
        shape: StateShape,
        count: usize,
        scan: impl Fn(Vec<RowState<'_>>, &mut [f32]),
    ) -> (Vec<f32>, Vec<f32>) {
        from(shape, count, &vec![0.0; shape.state_len()], scan)
    }

    fn from(
        shape: StateShape,
        count: usize,
        before: &[f32],
        scan: impl Fn(Vec<RowState<'_>>, &mut [f32]),
    ) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut after) = (vec![0.0; count * shape.out_width()], vec![0.0; before.len()]);
        scan(vec![RowState { tokens: 0..count, before, after: &mut after }], &mut out);
        (out, after)
    }

    /// `scan` takes rows through these tokens; rows count them from 0.
    pub fn borders_and_neighbours_change_no_bit(
        shape: StateShape,
        scan: impl Fn(Range<usize>, Vec<RowState<'_>>, &mut [f32]),
    ) {
        let zero = vec![0.0; shape.state_len()];
        let (expected, end) = alone(shape, TOKENS, |rows, out| scan(0..TOKENS, rows, out));
        let (mut state, mut found, mut at) = (zero.clone(), Vec::new(), 0);
        for size in [1, 7, 2, 33, 7] {
            let (out, after) = from(shape, size, &state, |rows, out| scan(at..at + size, rows, out));
            (state, at) = (after, at + size);
            found.extend(out);
        }
        assert!(bits(&found) == bits(&expected) && bits(&state) == bits(&end));
        // The tokens 10..50 as the second of two rows, whose states are their own.
        let (_, middle) = alone(shape, 10, |rows, out| scan(0..10, rows, out));
        let (mut first, mut second) = (zero.clone(), zero.clone());
        let rows = vec![
            RowState { tokens: 0..10, before: &end, after: &mut first },
            RowState { tokens: 10..TOKENS, before: &middle, after: &mut second },
        ];
        let mut out = vec![0.0; expected.len()];
        scan(0..TOKENS, rows, &mut out);
        assert!(bits(&out[10 * shape.out_width()..]) == bits(&expected[10 * shape.out_width()..]));
        assert!(bits(&second) == bits(&end) && bits(&first) != bits(&end));
    }
}
