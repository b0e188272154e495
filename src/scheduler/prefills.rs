//! Which prompt is computed next, how much of it, and beside what.
//!
//! Prompts take turns, a chunk each. While no row decodes, a chunk ends at an absolute multiple of the prefill step (or at
//! the prompt's end), whatever it starts at, so that the borders of a warm prefill are borders of the cold one. While rows
//! decode, a chunk rides along in their pass, as small as [`Pace`] says; with `exact` it stays whole and has a pass of its
//! own. Imports of restored blocks take turns with chunks, by the same pace.

use std::time::Duration;

use super::batch::{Chunk, Pass, Row, Stage};
use super::options::SchedulerOptions;
use super::pace::{Pace, Rider};

/// See the module's documentation.
pub(super) struct Prefills {
    pace: Pace,
    step_tokens: usize,
    exact: bool,
    /// Chunks computed so far.
    turns: u64,
    /// A chunk stayed behind for an import.
    passed_over: bool,
}

impl Prefills {
    pub fn new(options: &SchedulerOptions) -> Self {
        Self {
            pace: Pace::new(options.decode_slowdown, options.block_tokens),
            step_tokens: options.prefill_step_tokens,
            exact: options.exact,
            turns: 0,
            passed_over: false,
        }
    }

    /// The stage of a row whose prompt is in KV up to `done_tokens`: it queues behind the others.
    pub fn queue(&mut self, done_tokens: usize) -> Stage {
        self.turns += 1;
        Stage::Prefilling { done_tokens, turn: self.turns }
    }

    /// Tokens of restored blocks that may be imported before the next pass. `None`: no blocks now.
    pub fn import_tokens(&self, rows: &[Row]) -> Option<usize> {
        match decoding(rows) {
            0 => Some(usize::MAX),
            _ if self.passed_over => None,
            decoding => self.pace.tokens_beside(decoding, Rider::Import),
        }
    }

    /// The passes of one round. `imported`: blocks were imported in it, so that no chunk rides along.
    pub fn plan(&mut self, rows: &[Row], imported: bool) -> Vec<Pass> {
        let decoding = decoding(rows);
        if decoding == 0 || self.exact {
            let alone = self.next(rows, None).map(|chunk| Pass { decode: false, chunk: Some(chunk) });
            return alone.into_iter().chain([Pass { decode: true, chunk: None }]).collect();
        }
        let tokens = self.pace.tokens_beside(decoding, Rider::Prompt);
        let chunk = tokens.and_then(|tokens| self.next(rows, Some(tokens)));
        self.passed_over = imported && chunk.is_some();
        vec![Pass { decode: true, chunk: chunk.filter(|_| !imported) }]
    }

    /// Part of the prompt whose last turn is longest ago: up to `most` tokens, or to the next multiple of the step.
    fn next(&self, rows: &[Row], most: Option<usize>) -> Option<Chunk> {
        let prefilling = rows.iter().enumerate().filter_map(|(row, of)| match of.stage {
            Stage::Prefilling { done_tokens, turn } => Some((turn, row, done_tokens)),
            Stage::Decoding => None,
        });
        let (_, row, from) = prefilling.min()?;
        let sequence = &rows[row].sequence;
        // A chunk ends where a snapshot is to be taken.
        let end = sequence.snapshots.next().unwrap_or_else(|| sequence.prompt_tokens());
        let to = match most {
            Some(most) => (from + most.min(self.step_tokens)).min(end),
            None => chunk_end(from, end, self.step_tokens),
        };
        Some(Chunk { row, from, to })
    }

    /// A pass of `decoding` rows, and of a chunk if it had one, took so long.
    pub fn note_pass(&mut self, decoding: usize, chunk: Option<Chunk>, took: Duration) {
        match chunk {
            Some(Chunk { from, to, .. }) => self.pace.note_beside(decoding, to - from, took),
            None => self.pace.note_alone(decoding, took),
        }
    }

    /// Importing so many tokens while `rows` waited took so long.
    pub fn note_import(&mut self, rows: &[Row], tokens: usize, took: Duration) {
        self.pace.note_import(decoding(rows), tokens, took);
    }
}

fn decoding(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.is_decoding()).count()
}

/// Where the chunk that starts at `at` ends.
fn chunk_end(at: usize, end: usize, step_tokens: usize) -> usize {
    ((at / step_tokens + 1) * step_tokens).min(end)
}

#[cfg(test)]
mod tests {
    use super::chunk_end;

    #[test]
    fn chunks_end_at_absolute_multiples_of_the_step_or_at_an_end() {
        assert_eq!(chunk_end(0, 1000, 256), 256);
        assert_eq!(chunk_end(300, 1000, 256), 512, "a warm start computes the rest of its chunk");
        assert_eq!(chunk_end(511, 1000, 256), 512);
        assert_eq!(chunk_end(512, 1000, 256), 768);
        assert_eq!(chunk_end(768, 1000, 256), 1000);
    }
}
