//! The rows that are computed: their sequences, and their state in the engine.
//!
//! A sequence is a row from the moment its known prefix is there: while its prompt is computed and while it decodes.
//! Invariant: row `i` of the engine's batch belongs to the sequence of row `i` here. Both change in this file only.

use prefixd_engine::{Engine, EngineError, RowLogits, RowWork, Wanted};

use super::persist::Persist;
use super::sequence::Sequence;

/// A row of the batch.
pub(super) struct Row {
    pub sequence: Sequence,
    pub stage: Stage,
}

/// What a row's next tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// More of the prompt.
    Prefilling {
        /// Tokens of the prompt that are in KV.
        done_tokens: usize,
        /// When its last chunk was computed, counted in chunks: who waited longest is next.
        turn: u64,
    },
    /// The token that was chosen last.
    Decoding,
}

/// A part of a prompt that a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub row: usize,
    pub from: usize,
    pub to: usize,
}

/// One pass over the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    /// A token for every row that decodes.
    pub decode: bool,
    /// Part of a prompt.
    pub chunk: Option<Chunk>,
}

/// What a pass brought: rows and their logits, the chunk's last.
pub(super) struct Stepped {
    pub decoded: Vec<(usize, RowLogits)>,
    pub prefilled: Option<(Chunk, RowLogits)>,
}

/// The sequences of rows that an error of the engine took, if it did.
pub(super) type Lost = Option<(Vec<Sequence>, EngineError)>;

/// See the module's documentation.
pub(super) struct Batch<E: Engine> {
    kv: E::Kv,
    rows: Vec<Row>,
}

impl Row {
    /// Its prompt is done.
    pub fn is_decoding(&self) -> bool {
        self.stage == Stage::Decoding
    }

    /// The stage that its client left it in.
    pub fn abandoned(&self) -> Option<Stage> {
        self.sequence.is_abandoned().then_some(self.stage)
    }
}

impl<E: Engine> Batch<E> {
    pub fn new(engine: &E) -> Self {
        Self { kv: engine.empty(), rows: Vec::new() }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn row_mut(&mut self, row: usize) -> &mut Row {
        &mut self.rows[row]
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that decode.
    pub fn decoding(&self) -> usize {
        self.rows.iter().filter(|row| row.is_decoding()).count()
    }

    /// Takes a row in; `kv` holds it alone. Gives the sequence back when the engine cannot.
    pub fn join(&mut self, engine: &mut E, kv: E::Kv, row: Row) -> Result<(), Box<(Sequence, EngineError)>> {
        match engine.extend(&mut self.kv, kv) {
            Ok(()) => {
                self.rows.push(row);
                Ok(())
            }
            Err(error) => Err(Box::new((row.sequence, error))),
        }
    }

    /// One step of the engine; `None` when `pass` has nothing to do. When it fails, no row has changed.
    pub fn step(&mut self, engine: &mut E, pass: Pass) -> Result<Option<Stepped>, EngineError> {
        let mut work: Vec<RowWork<'_>> = Vec::new();
        for (row, of) in self.rows.iter().enumerate().filter(|(_, of)| pass.decode && of.is_decoding()) {
            let last = of.sequence.tokens.len() - 1;
            work.push(RowWork { row, tokens: &of.sequence.tokens[last..], wanted: Wanted::Last });
        }
        if let Some(Chunk { row, from, to }) = pass.chunk {
            let sequence = &self.rows[row].sequence;
            let wanted = if to == sequence.prompt_tokens() { Wanted::Last } else { Wanted::Nothing };
            work.push(RowWork { row, tokens: &sequence.tokens[from..to], wanted });
        }
        if work.is_empty() {
            return Ok(None);
        }
        let mut logits = engine.step(&mut self.kv, &work)?;
        let prefilled = pass.chunk.and_then(|chunk| Some((chunk, logits.pop()?)));
        let decoded = work.iter().map(|work| work.row).zip(logits).collect();
        Ok(Some(Stepped { decoded, prefilled }))
    }

    /// Keeps every whole block of a row's first `in_kv` tokens that is not kept yet.
    pub fn keep_blocks(&mut self, engine: &mut E, persist: &mut Persist, row: usize, in_kv: usize) {
        persist.keep_blocks(engine, &self.kv, row, &mut self.rows[row].sequence, in_kv);
    }

    /// Keeps what is to be kept of a prompt's first `in_kv` tokens, which are computed.
    pub fn keep_prefix(&mut self, engine: &mut E, persist: &mut Persist, row: usize, in_kv: usize) {
        persist.keep_prefix(engine, &self.kv, row, &mut self.rows[row].sequence, in_kv);
    }

    /// Keeps all that a row has in KV.
    pub fn keep_everything(&mut self, engine: &mut E, persist: &mut Persist, row: usize) {
        let of = &mut self.rows[row];
        let in_kv = match of.stage {
            Stage::Prefilling { done_tokens, .. } => done_tokens,
            // The last token was chosen, not computed.
            Stage::Decoding => of.sequence.tokens.len() - 1,
        };
        persist.keep_everything(engine, &self.kv, row, &mut of.sequence, in_kv);
    }

    /// Removes the rows of which something is said, by their numbers, and gives it back with their sequences. An error
    /// of the engine leaves no row: all sequences of rows that should have stayed come with it.
    pub fn take_out<T>(
        &mut self,
        engine: &mut E,
        mut said: impl FnMut(usize) -> Option<T>,
    ) -> (Vec<(Sequence, T)>, Lost) {
        let (mut out, mut stay, mut keep) = (Vec::new(), Vec::new(), Vec::new());
        for (at, row) in self.rows.drain(..).enumerate() {
            if let Some(said) = said(at) {
                out.push((row.sequence, said));
            } else {
                stay.push(row);
                keep.push(at);
            }
        }
        self.rows = stay;
        if out.is_empty() {
            return (out, None);
        }
        match engine.filter(&mut self.kv, &keep) {
            Ok(()) => (out, None),
            Err(error) => {
                let lost = self.take_all(engine);
                (out, Some((lost, error)))
            }
        }
    }

    /// Gives all sequences up.
    pub fn take_all(&mut self, engine: &E) -> Vec<Sequence> {
        self.kv = engine.empty();
        self.rows.drain(..).map(|row| row.sequence).collect()
    }
}
