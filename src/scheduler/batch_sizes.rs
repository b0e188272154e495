//! How many rows decode steps had.

/// Rows of decode steps, as a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BatchSizes {
    /// Rows of all steps together.
    rows: u64,
    /// Steps of more rows than the bound before and at most this one's; behind them, steps of still more.
    steps: [u64; BOUNDS.len() + 1],
}

/// Most rows of a step that counts here.
const BOUNDS: [usize; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256];

impl BatchSizes {
    /// One more step, of so many rows.
    pub(super) fn note(&mut self, rows: usize) {
        self.rows += rows as u64;
        self.steps[BOUNDS.partition_point(|bound| *bound < rows)] += 1;
    }

    /// Rows of all steps together: the tokens that were decoded.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// All steps.
    pub fn steps(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Steps by the most rows that they may have, each step once; the last bound is infinity.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.into_iter().map(|bound| bound as f64).chain([f64::INFINITY]);
        bounds.zip(self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_once_under_the_least_bound_that_holds_it() {
        let mut sizes = BatchSizes::default();
        for rows in [1, 5, 6, 256, 257] {
            sizes.note(rows);
        }
        let found: Vec<_> = sizes.buckets().filter(|(_, steps)| *steps > 0).collect();
        assert_eq!(found, [(1.0, 1), (6.0, 2), (256.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((sizes.steps(), sizes.rows()), (5, 525));
    }
}
