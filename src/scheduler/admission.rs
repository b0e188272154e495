//! From the queue to a row: look up the known prefix, restore it, start the row.
//!
//! A request whose prefix another row is computing right now stays in the queue until that row is past the common
//! part: several requests that share an uncached prefix compute it once.

use std::sync::atomic::Ordering;
use std::time::Instant;

use prefixd_cache::{Lookup, RestoredBlock, Tier};
use prefixd_engine::{Engine, EngineError, ImportBlock};

use super::handle::Submission;
use super::message::Failure;
use super::sequence::{Row, Sequence, Stage, millis};
use super::step::Scheduler;

/// A sequence whose blocks are on their way.
pub(super) struct Restoring {
    pub ticket: u64,
    pub sequence: Sequence,
    wanted_tokens: usize,
    began: Instant,
}

impl<E: Engine> Scheduler<E> {
    /// Gives rows to waiting requests, in order, as long as there are rows and room.
    pub(super) fn admit(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() && self.occupied() < self.options.max_batch {
            if self.is_being_computed(&self.waiting[at]) {
                at += 1;
                continue;
            }
            if !self.has_room_for(&self.waiting[at]) {
                // Those behind wait too: a large request is not overtaken forever.
                return;
            }
            let Some(submission) = self.waiting.remove(at) else { return };
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let now = (self.options.clock)();
            let mut sequence = Sequence::new(submission, now);
            sequence.usage.queue_ms = millis(sequence.submitted, now);
            self.shared.status.lock().prompt_tokens += sequence.prompt_tokens() as u64;
            self.begin_restore(sequence, now);
        }
    }

    /// Rows taken.
    fn occupied(&self) -> usize {
        self.restoring.len() + self.rows.len()
    }

    fn has_room_for(&self, submission: &Submission) -> bool {
        let state = &self.engine.info().state;
        let grown =
            |request: &super::message::Request| state.row_bytes(request.prompt.len() + request.max_tokens);
        let taken: u64 = self
            .restoring
            .iter()
            .map(|restoring| &restoring.sequence)
            .chain(self.rows.iter().map(|row| &row.sequence))
            .fold(0, |sum, sequence| sum.saturating_add(grown(&sequence.request)));
        self.occupied() == 0 || taken.saturating_add(grown(&submission.request)) <= self.options.live_bytes
    }

    /// Another row is about to compute a whole block that this request shares and nobody has yet.
    fn is_being_computed(&self, submission: &Submission) -> bool {
        if self.cache.is_none() {
            return false;
        }
        let prompt = &submission.request.prompt;
        self.rows.iter().filter(|row| !row.is_decoding()).any(|other| {
            let theirs = &other.sequence.request;
            let common = || {
                prompt.iter().zip(&theirs.prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1)
            };
            let block = self.options.block_tokens;
            theirs.tenant == submission.request.tenant
                && other.sequence.kept_tokens + block <= theirs.prompt.len()
                && other.sequence.kept_tokens + block <= common()
        })
    }

    /// Looks up and restores. `began`: when the sequence did so first.
    fn begin_restore(&mut self, mut sequence: Sequence, began: Instant) {
        let asked = (self.options.clock)();
        let Some(lookup) = self.lookup(&mut sequence) else {
            return self.begin_prefill(sequence, &[], began);
        };
        sequence.usage.restore_parts.lookup_ms += millis(asked, (self.options.clock)());
        sequence.note_lookup(&lookup);
        if lookup.tokens == 0 {
            return self.begin_prefill(sequence, &[], began);
        }
        self.tickets += 1;
        let (ticket, sender) = (self.tickets, self.restored.0.clone());
        let window = self.engine.info().state.window_tokens().unwrap_or(0);
        // The next token sees `window` tokens, itself included.
        let window_from =
            if window == 0 { lookup.tokens } else { (lookup.tokens + 1).saturating_sub(window) };
        self.restoring.push(Restoring { ticket, sequence, wanted_tokens: lookup.tokens, began });
        if let Some(cache) = &mut self.cache {
            let done = Box::new(move |restored| {
                // A scheduler that is gone needs no blocks.
                sender.send((ticket, restored)).ok();
            });
            cache.restore(&lookup, window_from, done);
        }
    }

    /// Looks up the prompt and leases what was found. `None` without a cache.
    fn lookup(&mut self, sequence: &mut Sequence) -> Option<Lookup> {
        let cache = self.cache.as_mut()?;
        let request = &sequence.request;
        // One token is always computed: its logits choose the first token of the answer.
        let limit = request.prompt.len() - 1;
        let mut lookup = cache.lookup(&request.tenant, &request.prompt, limit);
        let step = self.options.prefill_step_tokens;
        if self.options.exact && !lookup.tokens.is_multiple_of(step) {
            lookup = cache.lookup(&request.tenant, &request.prompt, lookup.tokens - lookup.tokens % step);
        }
        let lease = cache.lease(&request.tenant, &lookup);
        sequence.kept_tokens = lease.tokens();
        sequence.lease = Some(lease);
        Some(lookup)
    }

    /// Starts the rows whose blocks have come.
    pub(super) fn take_restored(&mut self) {
        while let Ok((ticket, restored)) = self.restored.1.try_recv() {
            if let Some(cache) = &mut self.cache {
                cache.absorb(&restored);
            }
            // An abandoned sequence is gone already; what was read stays useful in RAM.
            let Some(at) = self.restoring.iter().position(|restoring| restoring.ticket == ticket) else {
                continue;
            };
            let Restoring { mut sequence, wanted_tokens, began, .. } = self.restoring.swap_remove(at);
            let parts = &mut sequence.usage.restore_parts;
            parts.read_ms += restored.read.as_secs_f64() * 1e3;
            parts.verify_ms += restored.verify.as_secs_f64() * 1e3;
            if restored.tokens < wanted_tokens {
                tracing::warn!(wanted_tokens, restored_tokens = restored.tokens, reason = ?restored.failure, "a block was lost; looking up again");
                self.give_back(&mut sequence);
                self.begin_restore(sequence, began);
                continue;
            }
            self.begin_prefill(sequence, &restored.blocks, began);
        }
    }

    /// Starts the row from `blocks` (none: an empty row) and queues its prefill. Blocks that do not fit are left out.
    fn begin_prefill(&mut self, mut sequence: Sequence, blocks: &[RestoredBlock], began: Instant) {
        let asked = (self.options.clock)();
        let (kv, imported) = match self.import(blocks) {
            Ok(kv) => (Ok(kv), blocks),
            Err(error) if !blocks.is_empty() => {
                tracing::warn!(%error, "restored blocks could not be imported; computing the whole prompt");
                (self.engine.start(), &[][..])
            }
            Err(error) => (Err(error), blocks),
        };
        match kv {
            Ok(kv) => {
                let tokens_of =
                    |tier| imported.iter().filter(move |b| b.tier == tier).map(|b| b.used_tokens).sum();
                let usage = &mut sequence.usage;
                usage.resident_tokens = tokens_of(Tier::Resident);
                usage.disk_tokens = tokens_of(Tier::Disk);
                usage.cached_tokens = usage.resident_tokens + usage.disk_tokens;
                let done_tokens = usage.cached_tokens;
                self.shared.status.lock().cached_tokens += done_tokens as u64;
                sequence.prefill_began = (self.options.clock)();
                usage.restore_ms = millis(began, sequence.prefill_began);
                usage.restore_parts.import_ms = millis(asked, sequence.prefill_began);
                match self.engine.extend(&mut self.batch, kv) {
                    Ok(()) => {
                        self.turns += 1;
                        let stage = Stage::Prefilling { done_tokens, turn: self.turns };
                        self.rows.push(Row { sequence, stage });
                    }
                    Err(error) => self.fail_one(sequence, Failure::Engine(error.to_string())),
                }
            }
            Err(error) => self.fail_one(sequence, Failure::Engine(error.to_string())),
        }
    }

    fn import(&mut self, blocks: &[RestoredBlock]) -> Result<E::Kv, EngineError> {
        if blocks.is_empty() {
            return self.engine.start();
        }
        let blocks: Vec<ImportBlock<'_>> = blocks
            .iter()
            .map(|restored| ImportBlock {
                payload: &restored.block.payload,
                block_tokens: restored.block.tokens.len(),
                used_tokens: restored.used_tokens,
            })
            .collect();
        self.engine.import(&blocks)
    }

    pub(super) fn drop_abandoned_restores(&mut self) -> usize {
        let mut dropped = 0;
        let mut at = 0;
        while at < self.restoring.len() {
            if self.restoring[at].sequence.is_abandoned() {
                let gone = self.restoring.swap_remove(at);
                self.release(gone.sequence);
                dropped += 1;
            } else {
                at += 1;
            }
        }
        dropped
    }
}
