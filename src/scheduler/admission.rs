//! From the queue to a row: who may have one, and what of its prompt is known.
//!
//! A request whose prefix another row is computing right now stays in the queue until that row is past the common
//! part: several requests that share an uncached prefix compute it once.

use std::time::Instant;

use prefixd_engine::{Engine, StateSpec};

use super::batch::Batch;
use super::handle::Submission;
use super::message::{Failure, Request};
use super::queue::Verdict;
use super::restores::{Came, Restores};
use super::sequence::{Sequence, millis};
use super::step::Scheduler;

impl<E: Engine> Scheduler<E> {
    /// Gives rows to waiting requests, in order, as long as there are rows and room.
    pub(super) fn admit(&mut self) {
        while self.occupied() < self.options.max_batch {
            let room = Room {
                restores: &self.restores,
                batch: &self.batch,
                state: &self.engine.info().state,
                live_bytes: self.options.live_bytes,
                block_tokens: self.persist.has_cache().then_some(self.options.block_tokens),
            };
            let Some(submission) = self.queue.take(|submission| room.verdict(submission)) else { return };
            let now = (self.options.clock)();
            let mut sequence = Sequence::new(submission, now);
            sequence.usage.queue_ms = millis(sequence.submitted, now);
            self.shared.status.lock().prompt_tokens += sequence.prompt_tokens() as u64;
            self.begin(sequence, now);
        }
    }

    /// Rows taken.
    pub(super) fn occupied(&self) -> usize {
        self.restores.len() + self.batch.rows().len()
    }

    /// Looks up and restores. `began`: when the sequence did so first.
    fn begin(&mut self, mut sequence: Sequence, began: Instant) {
        let asked = (self.options.clock)();
        if let Some(lookup) = self.persist.look_up(&mut sequence) {
            sequence.usage.restore_parts.lookup_ms += millis(asked, (self.options.clock)());
            sequence.note_lookup(&lookup);
            if lookup.tokens > 0 {
                let window = self.engine.info().state.window_tokens().unwrap_or(0);
                // The next token sees `window` tokens, itself included.
                let window_from =
                    if window == 0 { lookup.tokens } else { (lookup.tokens + 1).saturating_sub(window) };
                return self.restores.begin(&mut self.persist, sequence, &lookup, window_from, began);
            }
        }
        match self.engine.start() {
            Ok(kv) => self.begin_prefill(sequence, kv, began),
            Err(error) => self.fail_one(&sequence, &Failure::from(error)),
        }
    }

    /// Takes the blocks that have come.
    pub(super) fn take_restored(&mut self) {
        while let Some(came) = self.restores.take_arrived(&self.engine, &mut self.persist) {
            if let Came::Lost(sequence, began) = came {
                self.begin(*sequence, began);
            }
        }
    }
}

/// What is left for those who wait.
struct Room<'a, E: Engine> {
    restores: &'a Restores<E::Kv>,
    batch: &'a Batch<E>,
    state: &'a StateSpec,
    live_bytes: u64,
    /// Tokens of a block; `None` when there is no cache to wait for.
    block_tokens: Option<usize>,
}

impl<E: Engine> Room<'_, E> {
    fn verdict(&self, submission: &Submission) -> Verdict {
        if self.is_being_computed(&submission.request) {
            Verdict::PassOver
        } else if self.has_room_for(&submission.request) {
            Verdict::Admit
        } else {
            Verdict::Hold
        }
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.restores.sequences().chain(self.batch.rows().iter().map(|row| &row.sequence))
    }

    fn has_room_for(&self, request: &Request) -> bool {
        let grown = |request: &Request| self.state.row_bytes(request.prompt.len() + request.max_tokens);
        let taken = self.sequences().map(|sequence| grown(&sequence.request));
        let all = taken.fold(grown(request), u64::saturating_add);
        all <= self.live_bytes || self.sequences().next().is_none()
    }

    /// Another sequence is about to compute a whole block that this request shares and nobody has yet.
    fn is_being_computed(&self, request: &Request) -> bool {
        let Some(block) = self.block_tokens else { return false };
        let prompt = &request.prompt;
        let prefilling = self.batch.rows().iter().filter(|row| !row.is_decoding());
        prefilling.map(|row| &row.sequence).chain(self.restores.sequences()).any(|other| {
            let theirs = &other.request;
            let common = || {
                prompt.iter().zip(&theirs.prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1)
            };
            theirs.tenant == request.tenant
                && other.kept_tokens + block <= theirs.prompt.len()
                && other.kept_tokens + block <= common()
        })
    }
}
