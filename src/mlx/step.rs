//! One step of a batch: how many tokens each row gets, and where.

use mlx_rs::Array;

use super::array::dims;
use super::gate::Mlx;

/// The same number of new tokens for each row, each row at a position of its own.
#[derive(Debug)]
pub struct Step {
    tokens: usize,
    starts: Vec<usize>,
    offsets: Array,
}

impl Step {
    /// `tokens` new tokens for each row, the first at that row's start.
    pub fn new(_: &Mlx, tokens: usize, starts: Vec<usize>) -> Self {
        let offsets: Vec<i32> = starts.iter().map(|&start| start as i32).collect();
        let offsets = Array::from_slice(&offsets, &dims([offsets.len()]));
        Self { tokens, starts, offsets }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// New tokens of each row.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Position of a row's first new token, for each row.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// As [`Step::starts`], `[rows]`, i32.
    pub fn offsets(&self) -> &Array {
        &self.offsets
    }

    /// Positions of all new tokens, row by row.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.starts.iter().flat_map(|&start| start..start + self.tokens)
    }
}
