//! From the queue to a row: who may have one, and what of its prompt is known.
//!
//! A request whose prefix another row is computing right now stays in the queue until that row is past the common
//! part: several requests that share an uncached prefix compute it once. Of a model with recurrent layers the row takes a
//! snapshot where the two part.

use std::time::Instant;

use prefixd_engine::{Engine, StateSpec};

use super::batch::{Batch, Stage};
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
            let mut partings = Vec::new();
            let admitted = self.queue.take(|submission| room.verdict(submission, &mut partings));
            self.note_partings(&partings);
            let Some(submission) = admitted else { return };
            let now = (self.options.clock)();
            let mut sequence = Sequence::new(submission, now);
            sequence.usage.queue_ms = millis(sequence.submitted, now);
            self.shared.status.lock().prompt_tokens += sequence.prompt_tokens() as u64;
            self.begin(sequence, now);
        }
    }

    /// Rows that waiting requests share a beginning with take a snapshot at its end.
    fn note_partings(&mut self, partings: &[Parting]) {
        for Parting { row, tokens } in partings.iter().filter(|_| self.engine.info().state.has_snapshots()) {
            let row = self.batch.row_mut(*row);
            if let Stage::Prefilling { done_tokens, .. } = row.stage {
                row.sequence.snapshots.part(*tokens, done_tokens);
            }
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
        while let Some(came) = self.restores.take_arrived(&mut self.persist) {
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

/// Where the prompt of a request that waits parts from that of a row.
struct Parting {
    row: usize,
    tokens: usize,
}

impl<E: Engine> Room<'_, E> {
    fn verdict(&self, submission: &Submission, partings: &mut Vec<Parting>) -> Verdict {
        if self.is_being_computed(&submission.request, partings) {
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

    /// Another sequence is about to compute a whole block that this request shares and nobody has yet, or to take a snapshot
    /// within what they share.
    fn is_being_computed(&self, request: &Request, partings: &mut Vec<Parting>) -> bool {
        let Some(block) = self.block_tokens else { return false };
        let is_ahead = |other: &Sequence, tokens: usize| {
            other.kept_tokens + block <= tokens || other.snapshots.has_between(block, tokens)
        };
        let computes = |other: &Sequence| {
            // Prompts are compared only where that can matter: this runs at every step.
            let most = other.prompt_tokens().min(request.prompt.len() - 1);
            if other.request.hold.read_only || !is_ahead(other, most) {
                return None;
            }
            let tokens = common_tokens(request, &other.request);
            is_ahead(other, tokens).then_some(tokens)
        };
        let rows = self.batch.rows().iter().enumerate().filter(|(_, row)| !row.is_decoding());
        let before = partings.len();
        partings.extend(rows.filter_map(|(row, of)| Some(Parting { row, tokens: computes(&of.sequence)? })));
        partings.len() > before || self.restores.sequences().any(|other| computes(other).is_some())
    }
}

/// Tokens that two prompts begin with alike and that may be reused; 0 for those of different tenants.
fn common_tokens(request: &Request, other: &Request) -> usize {
    if request.tenant != other.tenant {
        return 0;
    }
    let alike = request.prompt.iter().zip(&other.prompt).take_while(|(a, b)| a == b).count();
    alike.min(request.prompt.len() - 1)
}
