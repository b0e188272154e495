//! One step of a batch: how many new tokens each row gets, and where.
//!
//! New tokens lie row by row in one long list, `[tokens, ...]` in every array of the step: so rows that decode one
//! token and a row that reads a chunk of its prompt share each product with the weights.

use std::ops::Range;

use mlx_rs::Array;

use super::array::dims;
use super::gate::Mlx;

/// What one row gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowStep {
    /// Position of its first new token.
    pub position: usize,
    /// Number of new tokens.
    pub tokens: usize,
    /// Index of its first new token among all of the step.
    pub first: usize,
}

impl RowStep {
    /// Its new tokens among all of the step.
    pub fn range(self) -> Range<usize> {
        self.first..self.first + self.tokens
    }
}

/// Neighbouring rows that get the same number of tokens: what MLX's operations over a batch can take at once.
#[derive(Debug)]
pub struct Group {
    /// Number of rows.
    pub rows: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Index of the first new token among all of the step.
    pub first: usize,
    /// Positions of each row's first new token, `[rows]`, i32.
    pub offsets: Array,
}

/// New tokens for rows, each at a position of its own.
#[derive(Debug)]
pub struct Step {
    rows: Vec<RowStep>,
    groups: Vec<Group>,
}

impl Step {
    /// Rows as `(position of the first new token, number of new tokens)`.
    pub fn new(_: &Mlx, spans: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut first = 0;
        let place = |(position, tokens)| {
            let row = RowStep { position, tokens, first };
            first += tokens;
            row
        };
        let rows: Vec<RowStep> = spans.into_iter().map(place).collect();
        let groups = rows.chunk_by(|a, b| a.tokens == b.tokens).map(|rows| {
            let offsets: Vec<i32> = rows.iter().map(|row| row.position as i32).collect();
            let offsets = Array::from_slice(&offsets, &dims([offsets.len()]));
            Group { rows: rows.len(), tokens: rows[0].tokens, first: rows[0].first, offsets }
        });
        Self { groups: groups.collect(), rows }
    }

    /// Each row's share, in order.
    pub fn rows(&self) -> &[RowStep] {
        &self.rows
    }

    /// The rows as groups, in order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// New tokens of all rows together.
    pub fn tokens(&self) -> usize {
        self.rows.last().map_or(0, |row| row.range().end)
    }

    /// Positions of all new tokens, row by row.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().flat_map(|row| row.position..row.position + row.tokens)
    }
}
