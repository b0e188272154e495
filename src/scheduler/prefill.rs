//! Computes prompts in chunks, one chunk a step, the prompts taking turns.
//!
//! While no row decodes, a chunk ends at an absolute multiple of the prefill step (or at the prompt's end), whatever it
//! starts at, so that the borders of a warm prefill are borders of the cold one. While rows decode, a chunk rides along
//! in their pass, as small as [`Pace`](super::pace::Pace) says; with `exact` it stays whole and has a pass of its own.

use prefixd_engine::{Engine, RowLogits, RowWork, Wanted};

use super::decode::End;
use super::message::Failure;
use super::sequence::{Progress, Stage};
use super::step::Scheduler;

/// A part of a prompt that a pass computes.
#[derive(Clone, Copy)]
struct Chunk {
    row: usize,
    from: usize,
    to: usize,
}

/// Where the chunk that starts at `at` ends.
fn chunk_end(at: usize, prompt_tokens: usize, step_tokens: usize) -> usize {
    ((at / step_tokens + 1) * step_tokens).min(prompt_tokens)
}

impl<E: Engine> Scheduler<E> {
    /// A chunk of the prompt in turn, a token for every row that decodes, or both: in one pass where that keeps the rows'
    /// pace.
    pub(super) fn compute(&mut self) {
        let decoding = self.rows.iter().filter(|row| row.is_decoding()).count();
        if decoding == 0 || self.options.exact {
            if let Some(chunk) = self.next_chunk(None) {
                self.pass(false, Some(chunk));
            }
            return self.pass(true, None);
        }
        let chunk = self.pace.tokens_beside(decoding).and_then(|tokens| self.next_chunk(Some(tokens)));
        self.pass(true, chunk);
    }

    /// Part of the prompt whose last turn is longest ago: up to `most` tokens, or to the next multiple of the step.
    fn next_chunk(&self, most: Option<usize>) -> Option<Chunk> {
        let prefilling = self.rows.iter().enumerate().filter_map(|(row, of)| match of.stage {
            Stage::Prefilling { done_tokens, turn } => Some((turn, row, done_tokens)),
            Stage::Decoding => None,
        });
        let (_, row, from) = prefilling.min()?;
        let (prompt, step) = (self.rows[row].sequence.prompt_tokens(), self.options.prefill_step_tokens);
        let to = match most {
            Some(most) => (from + most.min(step)).min(prompt),
            None => chunk_end(from, prompt, step),
        };
        Some(Chunk { row, from, to })
    }

    /// One step of the engine: a token for every row that decodes, where `decode` says so, and a chunk of a prompt.
    fn pass(&mut self, decode: bool, chunk: Option<Chunk>) {
        let mut work: Vec<RowWork<'_>> = Vec::new();
        for (row, of) in self.rows.iter().enumerate().filter(|(_, of)| decode && of.is_decoding()) {
            let last = of.sequence.tokens.len() - 1;
            work.push(RowWork { row, tokens: &of.sequence.tokens[last..], wanted: Wanted::Last });
        }
        let decoding = work.len();
        if let Some(Chunk { row, from, to }) = chunk {
            let sequence = &self.rows[row].sequence;
            let wanted = if to == sequence.prompt_tokens() { Wanted::Last } else { Wanted::Nothing };
            work.push(RowWork { row, tokens: &sequence.tokens[from..to], wanted });
        }
        if work.is_empty() {
            return;
        }
        let began = (self.options.clock)();
        let stepped: Vec<usize> = work.iter().map(|work| work.row).collect();
        match self.engine.step(&mut self.batch, &work) {
            Ok(logits) => {
                let took = (self.options.clock)().saturating_duration_since(began);
                match chunk {
                    Some(Chunk { from, to, .. }) => self.pace.note_beside(decoding, to - from, took),
                    None => self.pace.note_alone(decoding, took),
                }
                let mut ended: Vec<End> = vec![None; self.rows.len()];
                let mut logits = stepped.into_iter().zip(logits);
                self.note_decoded(decoding);
                for (row, logits) in logits.by_ref().take(decoding) {
                    ended[row] = self.take_token(row, logits);
                }
                for ((row, logits), chunk) in logits.zip(chunk) {
                    ended[row] = self.go_on(chunk, logits);
                }
                self.leave(ended);
            }
            // No row has changed. With a chunk it is the cause, or the next pass without it shows that it was not.
            Err(error) => {
                tracing::error!(%error, rows = stepped.len(), "a step failed");
                let failed = chunk.map_or(stepped, |chunk| vec![chunk.row]);
                let mut ended: Vec<End> = vec![None; self.rows.len()];
                for row in failed {
                    ended[row] = Some(Err(Failure::Engine(error.to_string())));
                }
                self.leave(ended);
            }
        }
    }

    /// The prompt is computed up to the end of `chunk`; at its own end, the first token is chosen.
    fn go_on(&mut self, chunk: Chunk, logits: RowLogits) -> End {
        self.keep_blocks(chunk.row, chunk.to);
        self.turns += 1;
        let row = &mut self.rows[chunk.row];
        if chunk.to < row.sequence.prompt_tokens() {
            row.stage = Stage::Prefilling { done_tokens: chunk.to, turn: self.turns };
            return None;
        }
        row.stage = Stage::Decoding;
        row.sequence.announce((self.options.clock)());
        self.shared.status.lock().completion_tokens += 1;
        match row.sequence.choose(logits) {
            Ok(Progress::Going) => None,
            Ok(Progress::Ended(reason)) => Some(Ok(reason)),
            Err(failure) => Some(Err(failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chunk_end;

    #[test]
    fn chunks_end_at_absolute_multiples_of_the_step_or_at_the_end() {
        assert_eq!(chunk_end(0, 1000, 256), 256);
        assert_eq!(chunk_end(300, 1000, 256), 512, "a warm start computes the rest of its chunk");
        assert_eq!(chunk_end(511, 1000, 256), 512);
        assert_eq!(chunk_end(512, 1000, 256), 768);
        assert_eq!(chunk_end(768, 1000, 256), 1000);
    }
}
