//! How much of a prompt, or of a restore, may come between two tokens of running streams.
//!
//! A stream that runs should not stutter because another request's prompt is computed or restored. So prompts ride along:
//! a pass decodes every row and reads a few tokens of one prompt, as many as let it take at most `slowdown` times as long
//! as the rows alone; and no more restored blocks are imported before a pass than take the same extra time. What both cost
//! is measured as it runs, so that the numbers follow the machine, the model, the number of rows and the length of their
//! contexts.

use std::time::Duration;

/// Tokens of a prompt in the first pass that carries any, and the number below which riding along is not worth a pass.
const FIRST_TOKENS: usize = 32;
const LEAST_TOKENS: usize = 4;
/// Weight of the newest measurement of the rows alone.
const NEWEST: f64 = 0.25;

/// What comes between tokens of running streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rider {
    /// A chunk of a prompt, in the rows' pass.
    Prompt,
    /// Restored blocks, imported before it.
    Import,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pace {
    slowdown: f64,
    rows: usize,
    /// Seconds of a pass of `rows` rows alone, once measured.
    alone: Option<f64>,
    prompt: Share,
    import: Share,
}

/// How many tokens take the extra time, as far as it is known.
#[derive(Debug)]
struct Share {
    tokens: usize,
    least: usize,
}

impl Pace {
    /// Passes may take `slowdown` times as long as the rows alone. Imports are of whole blocks.
    pub fn new(slowdown: f64, block_tokens: usize) -> Self {
        let prompt = Share { tokens: FIRST_TOKENS, least: LEAST_TOKENS };
        let import = Share { tokens: block_tokens, least: block_tokens };
        Self { slowdown, rows: 0, alone: None, prompt, import }
    }

    /// Tokens to take on beside `rows` rows; `None` while it is not known what those cost alone.
    pub fn tokens_beside(&self, rows: usize, rider: Rider) -> Option<usize> {
        let share = match rider {
            Rider::Prompt => &self.prompt,
            Rider::Import => &self.import,
        };
        (rows == self.rows && self.alone.is_some()).then_some(share.tokens)
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
        self.prompt.note(tokens, took.as_secs_f64() - alone, alone, self.slowdown);
    }

    /// Importing `tokens` tokens before a pass of `rows` rows took so long.
    pub fn note_import(&mut self, rows: usize, tokens: usize, took: Duration) {
        let Some(alone) = self.alone.filter(|_| rows == self.rows) else { return };
        self.import.note(tokens, took.as_secs_f64(), alone, self.slowdown);
    }
}

impl Share {
    /// `tokens` tokens took `extra` seconds more than the rows' pass, which takes `alone`.
    fn note(&mut self, tokens: usize, extra: f64, alone: f64, slowdown: f64) {
        if tokens == 0 {
            return;
        }
        let a_token = extra.max(alone * 1e-3) / tokens as f64;
        let fitting = (slowdown - 1.0) * alone / a_token;
        // One pass may have been disturbed: go towards the fitting number by steps.
        let bounded = fitting.clamp(self.tokens as f64 / 2.0, self.tokens as f64 * 1.5);
        self.tokens = (bounded as usize).max(self.least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes on a machine where the rows alone take 4 ms and a token of a prompt 0.25 ms.
    fn settle(pace: &mut Pace, passes: usize) -> f64 {
        let mut took = 0.0;
        for _ in 0..passes {
            let tokens = pace.tokens_beside(1, Rider::Prompt).unwrap();
            took = 4e-3 + 0.25e-3 * tokens as f64;
            pace.note_beside(1, tokens, Duration::from_secs_f64(took));
        }
        took
    }

    #[test]
    fn a_pass_takes_as_long_as_allowed_and_no_longer() {
        for (slowdown, expected) in [(1.6, 6.4e-3), (2.0, 8e-3), (5.0, 20e-3)] {
            let mut pace = Pace::new(slowdown, 256);
            pace.note_alone(1, Duration::from_millis(4));
            let took = settle(&mut pace, 20);
            assert!((expected - took).abs() < 0.5e-3, "{slowdown}: {took}");
        }
    }

    #[test]
    fn another_number_of_rows_is_measured_before_it_carries() {
        let mut pace = Pace::new(2.0, 256);
        assert_eq!(pace.tokens_beside(1, Rider::Prompt), None);
        pace.note_alone(1, Duration::from_millis(4));
        assert_eq!(pace.tokens_beside(1, Rider::Prompt), Some(FIRST_TOKENS));
        assert_eq!(pace.tokens_beside(2, Rider::Prompt), None);
    }

    #[test]
    fn a_disturbed_pass_halves_at_most_and_some_tokens_always_ride() {
        let mut pace = Pace::new(2.0, 256);
        pace.note_alone(1, Duration::from_millis(4));
        pace.note_beside(1, FIRST_TOKENS, Duration::from_secs(1));
        assert_eq!(pace.tokens_beside(1, Rider::Prompt), Some(FIRST_TOKENS / 2));
        for _ in 0..10 {
            pace.note_beside(1, 4, Duration::from_secs(1));
        }
        assert_eq!(pace.tokens_beside(1, Rider::Prompt), Some(LEAST_TOKENS));
    }

    #[test]
    fn imports_take_the_extra_time_and_no_longer() {
        let mut pace = Pace::new(2.0, 16);
        assert_eq!(pace.tokens_beside(1, Rider::Import), None);
        pace.note_alone(1, Duration::from_millis(4));
        // A block takes a tenth of a millisecond.
        for _ in 0..20 {
            let tokens = pace.tokens_beside(1, Rider::Import).unwrap();
            pace.note_import(1, tokens, Duration::from_secs_f64(1e-4 / 16.0 * tokens as f64));
        }
        let settled = pace.tokens_beside(1, Rider::Import).unwrap();
        assert!((600..=640).contains(&settled), "{settled} tokens in 4 ms");
        for _ in 0..20 {
            pace.note_import(1, 16, Duration::from_secs(1));
        }
        assert_eq!(pace.tokens_beside(1, Rider::Import), Some(16), "one block always goes");
        assert_eq!(pace.tokens_beside(1, Rider::Prompt), Some(FIRST_TOKENS), "each is measured by itself");
    }
}
