//! Matrices that heads keep of a row, which tokens change one after the other: their shapes, and how the work is divided.
//!
//! Each head of each row is a piece of work of its own, so neither neighbours nor the number of threads change a bit.

use std::ops::Range;

use prefixd_blas::threads;

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

/// The sum of all chains.
#[inline(always)]
pub fn total<const N: usize>([a, b, c, d]: [[f32; N]; CHAINS]) -> [f32; N] {
    std::array::from_fn(|j| (a[j] + b[j]) + (c[j] + d[j]))
}
