//! One token for every row of the batch.

use super::message::{Failure, FinishReason};
use super::sequence::{Progress, Sequence};
use super::step::Scheduler;
use crate::engine::Engine;

impl<E: Engine> Scheduler<E> {
    /// The token that each row is fed next.
    pub(super) fn last_tokens(&self) -> Vec<u32> {
        self.rows.iter().filter_map(|row| row.tokens.last().copied()).collect()
    }

    /// A pass of the rows and nothing else.
    pub(super) fn decode_alone(&mut self) {
        let tokens = self.last_tokens();
        if tokens.is_empty() {
            return;
        }
        let began = (self.options.clock)();
        match self.engine.decode(&mut self.batch, &tokens) {
            Ok(logits) => {
                let took = (self.options.clock)().saturating_duration_since(began);
                self.pace.note_alone(tokens.len(), took);
                self.take_tokens(logits);
            }
            Err(error) => {
                // Which row the engine failed on is unknown, and so is what the others' KV holds now.
                tracing::error!(%error, rows = tokens.len(), "decode failed");
                self.fail_rows(&Failure::Engine(error.to_string()));
            }
        }
    }

    /// Chooses each row's next token, and lets rows that ended leave.
    pub(super) fn take_tokens(&mut self, logits: Vec<Vec<f32>>) {
        self.note_decoded(logits.len());
        let mut ended: Vec<Option<Result<FinishReason, Failure>>> = vec![None; self.rows.len()];
        let mut rows = std::mem::take(&mut self.rows);
        for (at, (row, logits)) in rows.iter_mut().zip(logits).enumerate() {
            let in_kv = row.tokens.len();
            match row.choose(logits) {
                Ok(Progress::Ended(reason)) => ended[at] = Some(Ok(reason)),
                Err(failure) => ended[at] = Some(Err(failure)),
                Ok(Progress::Going) if row.kept_tokens + self.options.block_tokens <= in_kv => {
                    let batch = std::mem::replace(&mut self.batch, self.engine.empty());
                    self.keep_blocks(row, &batch, at, in_kv);
                    self.batch = batch;
                }
                Ok(Progress::Going) => {}
            }
        }
        self.rows = rows;
        self.leave(ended);
    }

    fn note_decoded(&self, rows: usize) {
        let mut status = self.shared.status.lock();
        status.completion_tokens += rows as u64;
        status.batch_sizes.note(rows);
    }

    /// Takes the rows with an end out of the batch and says it.
    fn leave(&mut self, ended: Vec<Option<Result<FinishReason, Failure>>>) {
        if ended.iter().all(Option::is_none) {
            return;
        }
        let keep: Vec<usize> = (0..ended.len()).filter(|at| ended[*at].is_none()).collect();
        let batch = std::mem::replace(&mut self.batch, self.engine.empty());
        for (at, (row, end)) in std::mem::take(&mut self.rows).into_iter().zip(ended).enumerate() {
            match end {
                Some(Ok(reason)) => self.finish(row, &batch, at, reason),
                Some(Err(failure)) => {
                    tracing::warn!(%failure, "a sequence failed");
                    self.fail_one(row, failure);
                }
                None => self.rows.push(row),
            }
        }
        self.batch = batch;
        self.filter(&keep);
    }

    /// Ends one sequence badly; the others go on.
    pub(super) fn fail_one(&mut self, mut sequence: Sequence, failure: Failure) {
        sequence.fail(failure);
        self.release(&mut sequence);
        self.shared.status.lock().failed += 1;
    }

    fn filter(&mut self, keep: &[usize]) {
        if let Err(error) = self.engine.filter(&mut self.batch, keep) {
            tracing::error!(%error, "rows could not leave the batch");
            self.fail_rows(&Failure::Engine(error.to_string()));
        }
    }

    /// Says the end of a sequence that went well and keeps what it computed. `kv` holds it as `row`.
    pub(super) fn finish(&mut self, mut sequence: Sequence, kv: &E::Kv, row: usize, reason: FinishReason) {
        sequence.finish(reason, (self.options.clock)());
        self.keep_everything(&mut sequence, kv, row);
        self.hold(&sequence, true);
        self.release(&mut sequence);
        self.shared.status.lock().finished += 1;
    }

    fn fail_rows(&mut self, failure: &Failure) {
        self.batch = self.engine.empty();
        for row in std::mem::take(&mut self.rows) {
            self.fail_one(row, failure.clone());
        }
    }

    /// Frees rows whose client left; what they computed stays in the cache.
    pub(super) fn drop_abandoned_rows(&mut self) -> usize {
        let keep: Vec<usize> = (0..self.rows.len()).filter(|at| !self.rows[*at].is_abandoned()).collect();
        let dropped = self.rows.len() - keep.len();
        if dropped == 0 {
            return 0;
        }
        let batch = std::mem::replace(&mut self.batch, self.engine.empty());
        for (at, mut row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            if row.is_abandoned() && !keep.contains(&at) {
                self.keep_everything(&mut row, &batch, at);
                self.hold(&row, false);
                self.release(&mut row);
            } else {
                self.rows.push(row);
            }
        }
        self.batch = batch;
        self.filter(&keep);
        dropped
    }
}
