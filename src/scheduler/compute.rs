//! A round of computing: a piece of a restore, a chunk of a prompt, a token for every row that decodes.

use std::time::Instant;

use prefixd_engine::{Engine, RowLogits};

use super::batch::{Chunk, Pass, Row, Stage, Stepped};
use super::message::{Failure, FinishReason};
use super::restores::Imported;
use super::sequence::{Progress, Sequence, millis};
use super::step::Scheduler;

/// How a row's sequence ended, if it did.
type End = Option<Result<FinishReason, Failure>>;

impl<E: Engine> Scheduler<E> {
    /// Imports restored blocks: all that wait while no row decodes, else as many as keep the rows' pace. False when none.
    pub(super) fn import(&mut self) -> bool {
        let mut imported = false;
        while self.restores.can_import() {
            let Some(most_tokens) = self.prefills.import_tokens(self.batch.rows()) else { break };
            let began = (self.options.clock)();
            let Some(piece) = self.restores.import(&mut self.engine, most_tokens) else { break };
            imported = true;
            let took = (self.options.clock)().saturating_duration_since(began);
            self.prefills.note_import(self.batch.rows(), piece.tokens, took);
            match piece.outcome {
                Imported::More => {}
                Imported::Row(sequence, kv, began) => self.begin_prefill(sequence, kv, began),
                Imported::Failed(sequence, error) => self.fail_one(&sequence, &Failure::from(error)),
            }
            if self.batch.decoding() > 0 {
                break;
            }
        }
        imported
    }

    /// Puts a sequence into the batch; `kv` holds what was restored of it. `began`: when its restore did.
    pub(super) fn begin_prefill(&mut self, mut sequence: Sequence, kv: E::Kv, began: Instant) {
        sequence.prefill_began = (self.options.clock)();
        sequence.usage.restore_ms = millis(began, sequence.prefill_began);
        let done_tokens = sequence.usage.cached_tokens;
        self.shared.status.lock().cached_tokens += done_tokens as u64;
        let stage = self.prefills.queue(done_tokens);
        if let Err(refused) = self.batch.join(&mut self.engine, kv, Row { sequence, stage }) {
            let (sequence, error) = *refused;
            self.fail_one(&sequence, &Failure::from(error));
        }
    }

    /// The passes of this round. `imported`: blocks were imported in it.
    pub(super) fn compute(&mut self, imported: bool) {
        for pass in self.prefills.plan(self.batch.rows(), imported) {
            self.pass(pass);
        }
    }

    fn pass(&mut self, pass: Pass) {
        let began = (self.options.clock)();
        match self.batch.step(&mut self.engine, pass) {
            Ok(None) => {}
            Ok(Some(stepped)) => {
                let took = (self.options.clock)().saturating_duration_since(began);
                self.health.note_success();
                self.prefills.note_pass(stepped.decoded.len(), pass.chunk, took);
                self.take(stepped);
            }
            Err(error) => {
                tracing::error!(%error, rows = self.batch.rows().len(), "a step failed");
                self.health.note_failure(error.clone(), (self.options.clock)());
                let failure = Failure::from(error);
                // No row has changed. With a chunk it is the cause, or the next pass without it shows that it was not.
                let fails =
                    |at: usize, row: &Row| pass.chunk.map_or(row.is_decoding(), |chunk| chunk.row == at);
                let rows = self.batch.rows().iter().enumerate();
                let ends: Vec<End> =
                    rows.map(|(at, row)| fails(at, row).then(|| Err(failure.clone()))).collect();
                self.leave(ends);
            }
        }
    }

    /// Chooses the next tokens from what a pass brought, and lets rows that ended leave.
    fn take(&mut self, stepped: Stepped) {
        let Stepped { decoded, prefilled } = stepped;
        self.note_decoded(decoded.len());
        let mut ends: Vec<End> = vec![None; self.batch.rows().len()];
        for (row, logits) in decoded {
            ends[row] = self.take_token(row, logits);
        }
        if let Some((chunk, logits)) = prefilled {
            ends[chunk.row] = self.take_chunk(chunk, logits);
        }
        self.leave(ends);
    }

    fn note_decoded(&self, rows: usize) {
        if rows > 0 {
            let mut status = self.shared.status.lock();
            status.completion_tokens += rows as u64;
            status.batch_sizes.note(rows);
        }
    }

    /// A row's next token.
    fn take_token(&mut self, row: usize, logits: RowLogits) -> End {
        let sequence = &mut self.batch.row_mut(row).sequence;
        let in_kv = sequence.tokens.len();
        let end = end(sequence.choose(logits));
        if end.is_none() {
            self.batch.keep_blocks(&mut self.engine, &mut self.persist, row, in_kv);
        }
        end
    }

    /// A prompt is computed up to the end of `chunk`. At its own end, the first token follows.
    fn take_chunk(&mut self, chunk: Chunk, logits: RowLogits) -> End {
        self.batch.keep_prefix(&mut self.engine, &mut self.persist, chunk.row, chunk.to);
        let stage = self.prefills.queue(chunk.to);
        let row = self.batch.row_mut(chunk.row);
        if chunk.to < row.sequence.prompt_tokens() {
            row.stage = stage;
            return None;
        }
        row.stage = Stage::Decoding;
        row.sequence.announce((self.options.clock)());
        let end = end(row.sequence.choose(logits));
        self.shared.status.lock().completion_tokens += 1;
        end
    }

    /// Takes the rows with an end out of the batch, says it and keeps what they computed.
    fn leave(&mut self, mut ends: Vec<End>) {
        for (row, end) in ends.iter().enumerate() {
            if let Some(Ok(reason)) = end {
                self.batch.row_mut(row).sequence.finish(*reason, (self.options.clock)());
                self.batch.keep_everything(&mut self.engine, &mut self.persist, row);
            }
        }
        for (sequence, end) in self.take_out(|row| ends[row].take()) {
            match end {
                Ok(_) => {
                    self.persist.hold(&sequence, true);
                    self.shared.status.lock().finished += 1;
                }
                Err(failure) => self.fail_one(&sequence, &failure),
            }
        }
    }

    /// Frees rows whose client left; what they computed stays in the cache.
    pub(super) fn drop_abandoned_rows(&mut self) -> usize {
        let gone: Vec<Option<Stage>> = self.batch.rows().iter().map(Row::abandoned).collect();
        for (row, _) in gone.iter().enumerate().filter(|(_, stage)| stage.is_some()) {
            self.batch.keep_everything(&mut self.engine, &mut self.persist, row);
        }
        let left = self.take_out(|row| gone[row]);
        for (sequence, _) in left.iter().filter(|(_, stage)| *stage == Stage::Decoding) {
            self.persist.hold(sequence, false);
        }
        left.len()
    }

    /// Removes the rows of which something is said.
    fn take_out<T>(&mut self, said: impl FnMut(usize) -> Option<T>) -> Vec<(Sequence, T)> {
        let (out, lost) = self.batch.take_out(&mut self.engine, said);
        if let Some((sequences, error)) = lost {
            tracing::error!(%error, "rows could not leave the batch");
            for sequence in sequences {
                self.fail_one(&sequence, &Failure::from(error.clone()));
            }
        }
        out
    }
}

fn end(chosen: Result<Progress, Failure>) -> End {
    match chosen {
        Ok(Progress::Going) => None,
        Ok(Progress::Ended(reason)) => Some(Ok(reason)),
        Err(failure) => Some(Err(failure)),
    }
}
