//! Who sees whom: a mask is a type, and the window's size is part of it.

use mlx_rs::{Array, Dtype};
use prefixd_cache::Part;

use super::array::{Result, from_f32};
use super::gate::Mlx;

/// The keys that a query of a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Every key up to the query's own position.
    Causal,
    /// The last `tokens` keys up to and with the query's own.
    Window {
        /// Size of the window; at least 1.
        tokens: usize,
    },
}

/// Where a row's queries and stored keys lie, as absolute positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First stored key.
    pub origin: usize,
    /// First query. Keys are stored up to the last query.
    pub position: usize,
    /// Number of queries.
    pub tokens: usize,
}

/// What MLX's fused attention takes for one row.
#[derive(Debug)]
pub enum RowMask {
    /// Every stored key from `from` on is seen by every query.
    All,
    /// Query `i` of `n` sees all keys but the last `n - 1 - i`.
    Suffix,
    /// Added to the scores: `[queries, keys]`.
    Additive(Array),
}

impl Mask {
    /// First position that a query at `position` sees.
    pub fn visible_from(self, position: usize) -> usize {
        match self {
            Self::Causal => 0,
            Self::Window { tokens } => (position + 1).saturating_sub(tokens),
        }
    }

    /// Keys that must stay for the next query to be right.
    pub fn reach(self) -> Option<usize> {
        match self {
            Self::Causal => None,
            Self::Window { tokens } => Some(tokens - 1),
        }
    }

    /// The part of a block that a layer's tokens go to.
    pub fn part(self) -> Part {
        match self {
            Self::Causal => Part::Full,
            Self::Window { .. } => Part::Window,
        }
    }

    /// The window's size.
    pub fn window(self) -> Option<usize> {
        match self {
            Self::Causal => None,
            Self::Window { tokens } => Some(tokens),
        }
    }

    /// The mask of one row, over the keys from the first visible one (`visible_from(span.position)`) to the last.
    pub fn for_row(self, mx: &Mlx, span: Span, dtype: Dtype) -> Result<RowMask> {
        let Span { position, tokens, .. } = span;
        if tokens == 1 {
            return Ok(RowMask::All);
        }
        let from = self.visible_from(position);
        if self.visible_from(position + tokens - 1) == 0 {
            return Ok(RowMask::Suffix);
        }
        let keys = position + tokens - from;
        let mut scores = vec![f32::NEG_INFINITY; tokens * keys];
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            row[self.visible_from(position + i) - from..=position + i - from].fill(0.0);
        }
        let shape = super::array::dims([tokens, keys]);
        Ok(RowMask::Additive(from_f32(mx, &scores, &shape)?.as_dtype(dtype)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_one_sees_itself_alone() {
        assert_eq!(Mask::Window { tokens: 1 }.visible_from(7), 7);
        assert_eq!(Mask::Window { tokens: 8 }.visible_from(7), 0);
        assert_eq!(Mask::Window { tokens: 7 }.visible_from(7), 1);
        assert_eq!(Mask::Causal.visible_from(7), 0);
    }
}
