//! How much of a prompt one pass may carry beside decoding rows.
//!
//! A stream that runs should not stutter because another request's prompt is computed. So prompts ride along: a pass
//! decodes every row and reads a few tokens of one prompt, as many as let it take at most `slowdown` times as long as
//! the rows alone. What a pass costs is measured as it runs, so that the number follows the machine, the model, the
//! number of rows and the length of their contexts.

use std::time::Duration;

/// Tokens in the first pass that carries any, and the number below which riding along is not worth a pass.
const FIRST_TOKENS: usize = 32;
const LEAST_TOKENS: usize = 4;
/// Weight of the newest measurement of the rows alone.
const NEWEST: f64 = 0.25;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pace {
    slowdown: f64,
    rows: usize,
    /// Seconds of a pass of `rows` rows alone, once measured.
    alone: Option<f64>,
    tokens: usize,
}

impl Pace {
    /// Passes may take `slowdown` times as long as the rows alone.
    pub fn new(slowdown: f64) -> Self {
        Self { slowdown, rows: 0, alone: None, tokens: FIRST_TOKENS }
    }

    /// Tokens to carry beside `rows` rows; `None` while it is not known what those cost alone.
    pub fn tokens_beside(&self, rows: usize) -> Option<usize> {
        (rows == self.rows && self.alone.is_some()).then_some(self.tokens)
    }

    /// A pass of `rows` rows and nothing else took so long.
    pub fn note_alone(&mut self, rows: usize, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.alone.filter(|_| rows == self.rows);
        self.alone = Some(known.map_or(took, |known| known + NEWEST * (took - known)));
        self.rows = rows;
    }

    /// A pass of `rows` rows and `tokens` tokens of a prompt took so long.
    pub fn note_beside(&mut self, rows: usize, tokens: usize, took: Duration) {
        let Some(alone) = self.alone.filter(|_| rows == self.rows) else { return };
        let a_token = (took.as_secs_f64() - alone).max(alone * 1e-3) / tokens as f64;
        let fitting = (self.slowdown - 1.0) * alone / a_token;
        // One pass may have been disturbed: go towards the fitting number by steps.
        let bounded = fitting.clamp(self.tokens as f64 / 2.0, self.tokens as f64 * 1.5);
        self.tokens = (bounded as usize).max(LEAST_TOKENS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes on a machine where the rows alone take 4 ms and a token of a prompt 0.25 ms.
    fn settle(pace: &mut Pace, passes: usize) -> f64 {
        let mut took = 0.0;
        for _ in 0..passes {
            let tokens = pace.tokens_beside(1).unwrap();
            took = 4e-3 + 0.25e-3 * tokens as f64;
            pace.note_beside(1, tokens, Duration::from_secs_f64(took));
        }
        took
    }

    #[test]
    fn a_pass_takes_as_long_as_allowed_and_no_longer() {
        for (slowdown, expected) in [(1.6, 6.4e-3), (2.0, 8e-3), (5.0, 20e-3)] {
            let mut pace = Pace::new(slowdown);
            pace.note_alone(1, Duration::from_millis(4));
            let took = settle(&mut pace, 20);
            assert!((expected - took).abs() < 0.5e-3, "{slowdown}: {took}");
        }
    }

    #[test]
    fn another_number_of_rows_is_measured_before_it_carries() {
        let mut pace = Pace::new(2.0);
        assert_eq!(pace.tokens_beside(1), None);
        pace.note_alone(1, Duration::from_millis(4));
        assert_eq!(pace.tokens_beside(1), Some(FIRST_TOKENS));
        assert_eq!(pace.tokens_beside(2), None);
    }

    #[test]
    fn a_disturbed_pass_halves_at_most_and_some_tokens_always_ride() {
        let mut pace = Pace::new(2.0);
        pace.note_alone(1, Duration::from_millis(4));
        pace.note_beside(1, FIRST_TOKENS, Duration::from_secs(1));
        assert_eq!(pace.tokens_beside(1), Some(FIRST_TOKENS / 2));
        for _ in 0..10 {
            pace.note_beside(1, 4, Duration::from_secs(1));
        }
        assert_eq!(pace.tokens_beside(1), Some(LEAST_TOKENS));
    }
}
