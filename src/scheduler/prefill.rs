//! Computes prompts in chunks, one chunk a step, the prompts taking turns.
//!
//! While no row decodes, a chunk ends at an absolute multiple of the prefill step (or at the prompt's end), whatever it
//! starts at, so that the borders of a warm prefill are borders of the cold one. While rows decode, a chunk rides along
//! in their pass, as small as [`Pace`](super::pace::Pace) says; with `exact` it stays whole and has a pass of its own.

use super::message::Failure;
use super::sequence::{Progress, Sequence};
use super::step::Scheduler;
use crate::engine::{Engine, EngineError};

/// A sequence whose prompt is being computed, in a batch of its own.
pub(super) struct Prefilling<Kv> {
    pub sequence: Sequence,
    pub kv: Kv,
    /// Tokens of the prompt that are in KV.
    pub done_tokens: usize,
}

/// Where the chunk that starts at `at` ends.
fn chunk_end(at: usize, prompt_tokens: usize, step_tokens: usize) -> usize {
    ((at / step_tokens + 1) * step_tokens).min(prompt_tokens)
}

impl<E: Engine> Scheduler<E> {
    /// A chunk of the prompt in turn, a token for every row, or both: in one pass where that keeps the rows' pace.
    pub(super) fn compute(&mut self) {
        if self.rows.is_empty() || self.options.exact {
            if let Some(current) = self.prefilling.pop_front() {
                self.prefill_alone(current);
            }
            return self.decode_alone();
        }
        match self.pace.tokens_beside(self.rows.len()) {
            Some(tokens) if !self.prefilling.is_empty() => self.prefill_beside(tokens),
            _ => self.decode_alone(),
        }
    }

    fn prefill_alone(&mut self, mut current: Prefilling<E::Kv>) {
        let prompt = &current.sequence.request.prompt;
        let end = chunk_end(current.done_tokens, prompt.len(), self.options.prefill_step_tokens);
        let computed = self.engine.prefill(&mut current.kv, &prompt[current.done_tokens..end]);
        self.go_on(current, end, computed);
    }

    /// Up to `tokens` tokens of the prompt in turn, in one pass with a token for every row.
    fn prefill_beside(&mut self, tokens: usize) {
        let Some(mut current) = self.prefilling.pop_front() else { return };
        let began = (self.options.clock)();
        let (prompt, from) = (&current.sequence.request.prompt, current.done_tokens);
        let end = (from + tokens.min(self.options.prefill_step_tokens)).min(prompt.len());
        let last = self.last_tokens();
        let computed =
            self.engine.decode_and_prefill(&mut self.batch, &last, &mut current.kv, &prompt[from..end]);
        match computed {
            Ok((decoded, prefilled)) => {
                let took = (self.options.clock)().saturating_duration_since(began);
                self.pace.note_beside(last.len(), end - from, took);
                // The rows first: a prompt that is done joins them.
                self.take_tokens(decoded);
                self.go_on(current, end, Ok(prefilled));
            }
            // The rows are as they were, and show at the next step whether they were the cause.
            Err(error) => self.go_on(current, end, Err(error)),
        }
    }

    /// The prompt is computed up to `end`.
    fn go_on(&mut self, mut current: Prefilling<E::Kv>, end: usize, computed: Result<Vec<f32>, EngineError>) {
        match computed {
            Ok(logits) => {
                current.done_tokens = end;
                self.keep_blocks(&mut current.sequence, &current.kv, 0, end);
                if end < current.sequence.prompt_tokens() {
                    self.prefilling.push_back(current);
                } else {
                    self.join(current, logits);
                }
            }
            Err(error) => {
                tracing::error!(%error, "prefill failed");
                self.fail_one(current.sequence, Failure::Engine(error.to_string()));
            }
        }
    }

    /// The prompt is computed: the first token, then a row of the batch.
    fn join(&mut self, current: Prefilling<E::Kv>, logits: Vec<f32>) {
        let Prefilling { mut sequence, kv, .. } = current;
        sequence.announce((self.options.clock)());
        self.shared.status.lock().completion_tokens += 1;
        match sequence.choose(logits) {
            Ok(Progress::Going) => {}
            Ok(Progress::Ended(reason)) => return self.finish(sequence, &kv, 0, reason),
            Err(failure) => {
                tracing::warn!(%failure, "a sequence failed");
                return self.fail_one(sequence, failure);
            }
        }
        match self.engine.extend(&mut self.batch, kv) {
            Ok(()) => self.rows.push(sequence),
            Err(error) => {
                sequence.fail(Failure::Engine(error.to_string()));
                self.release(&mut sequence);
                self.fail_all(&Failure::Engine(error.to_string()));
            }
        }
    }

    pub(super) fn drop_abandoned_prefills(&mut self) -> usize {
        let before = self.prefilling.len();
        for mut prefilling in std::mem::take(&mut self.prefilling) {
            if prefilling.sequence.is_abandoned() {
                self.release(&mut prefilling.sequence);
            } else {
                self.prefilling.push_back(prefilling);
            }
        }
        before - self.prefilling.len()
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
