//! What a pass brought to rows that decode, and how rows leave the batch.

use prefixd_engine::{Engine, RowLogits};

use super::message::{Failure, FinishReason};
use super::sequence::{Progress, Row, Sequence};
use super::step::Scheduler;

/// How a row's sequence ended, if it did.
pub(super) type End = Option<Result<FinishReason, Failure>>;

impl<E: Engine> Scheduler<E> {
    /// Chooses a row's next token.
    pub(super) fn take_token(&mut self, row: usize, logits: RowLogits) -> End {
        let sequence = &mut self.rows[row].sequence;
        let in_kv = sequence.tokens.len();
        match sequence.choose(logits) {
            Ok(Progress::Ended(reason)) => Some(Ok(reason)),
            Err(failure) => Some(Err(failure)),
            Ok(Progress::Going) => {
                self.keep_blocks(row, in_kv);
                None
            }
        }
    }

    pub(super) fn note_decoded(&self, rows: usize) {
        if rows > 0 {
            let mut status = self.shared.status.lock();
            status.completion_tokens += rows as u64;
            status.batch_sizes.note(rows);
        }
    }

    /// Takes the rows with an end out of the batch, says it and keeps what they computed.
    pub(super) fn leave(&mut self, ended: Vec<End>) {
        for (row, end) in ended.iter().enumerate() {
            if let Some(Ok(reason)) = end {
                self.rows[row].sequence.finish(*reason, (self.options.clock)());
                self.keep_everything(row);
            }
        }
        for (sequence, end) in self.take_out(ended) {
            match end {
                Ok(_) => {
                    self.hold(&sequence, true);
                    self.release(sequence);
                    self.shared.status.lock().finished += 1;
                }
                Err(failure) => {
                    tracing::warn!(%failure, "a sequence failed");
                    self.fail_one(sequence, failure);
                }
            }
        }
    }

    /// Removes rows by what is said of them, in the batch and beside it.
    fn take_out<T>(&mut self, said: Vec<Option<T>>) -> Vec<(Sequence, T)> {
        if said.iter().all(Option::is_none) {
            return Vec::new();
        }
        let keep: Vec<usize> = (0..said.len()).filter(|row| said[*row].is_none()).collect();
        let mut out = Vec::new();
        for (row, said) in self.rows.drain(..).collect::<Vec<Row>>().into_iter().zip(said) {
            match said {
                Some(said) => out.push((row.sequence, said)),
                None => self.rows.push(row),
            }
        }
        if let Err(error) = self.engine.filter(&mut self.batch, &keep) {
            tracing::error!(%error, "rows could not leave the batch");
            self.batch = self.engine.empty();
            for row in self.rows.drain(..).collect::<Vec<Row>>() {
                self.fail_one(row.sequence, Failure::Engine(error.to_string()));
            }
        }
        out
    }

    /// Ends one sequence badly; the others go on.
    pub(super) fn fail_one(&mut self, mut sequence: Sequence, failure: Failure) {
        sequence.fail(failure);
        self.release(sequence);
        self.shared.status.lock().failed += 1;
    }

    /// Frees rows whose client left; what they computed stays in the cache.
    pub(super) fn drop_abandoned_rows(&mut self) -> usize {
        let abandoned: Vec<Option<bool>> =
            self.rows.iter().map(|row| row.sequence.is_abandoned().then_some(row.is_decoding())).collect();
        for (row, abandoned) in abandoned.iter().enumerate() {
            if *abandoned == Some(true) {
                self.keep_everything(row);
            }
        }
        let gone = self.take_out(abandoned);
        let dropped = gone.len();
        for (sequence, decoding) in gone {
            if decoding {
                self.hold(&sequence, false);
            }
            self.release(sequence);
        }
        dropped
    }
}
