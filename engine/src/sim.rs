//! An engine without a model, for tests of everything around the model: its KV is a digest of tokens.
//!
//! 1. A token's entry digests all tokens before it, and logits digest every entry of the row, so one wrong, missing,
//!    swapped or foreign entry changes the answer.
//! 2. It has a full layer and a sliding-window layer: logits read every full entry, and window entries only within
//!    the window. Window entries that no block brought are poison, as they would be in a real cache.
//! 3. A hook sees every call before it happens; it may block (a slow engine) or fail (a broken one).

use std::ops::Range;

use prefixd_cache::{Dtype, Fingerprint, Memory, Part, Payload, TensorBytes};

use crate::contract::{Engine, ImportBlock};
use crate::error::EngineError;
use crate::info::EngineInfo;
use crate::state::{OwnState, ReuseRule, StateSpec};
use crate::work::{RowLogits, RowWork, Wanted, check_work};

/// What the engine is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimCall {
    /// A step: what each row of it gets.
    Step(Vec<SimWork>),
    /// An import of this many tokens.
    Import {
        /// Tokens of all blocks together.
        tokens: usize,
    },
}

/// What one row of a step gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimWork {
    /// Tokens in the row.
    pub row_tokens: usize,
    /// Tokens to append.
    pub tokens: usize,
    /// The row's logits were wanted before: its prompt is done.
    pub decoding: bool,
}

impl SimCall {
    /// Rows of a step that decode.
    pub fn decoding(&self) -> usize {
        self.rows().filter(|row| row.decoding).count()
    }

    /// Tokens of prompts in a step.
    pub fn prefilling(&self) -> usize {
        self.rows().filter(|row| !row.decoding).map(|row| row.tokens).sum()
    }

    fn rows(&self) -> impl Iterator<Item = &SimWork> {
        match self {
            Self::Step(rows) => rows.iter(),
            Self::Import { .. } => [].iter(),
        }
    }
}

/// Sees every call; may block or fail it.
pub type SimHook = Box<dyn FnMut(SimCall) -> Result<(), EngineError> + Send>;

/// See the module's documentation.
pub struct SimEngine {
    info: EngineInfo,
    window_tokens: usize,
    hook: Option<SimHook>,
}

/// One row: an entry per token and layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimRow {
    full: Vec<u64>,
    window: Vec<u64>,
    decoding: bool,
}

const POISON: u64 = u64::MAX;

impl SimEngine {
    /// An engine of that vocabulary and window.
    pub fn new(vocab: usize, context_tokens: usize, window_tokens: usize) -> Self {
        let identity = format!("sim v1, vocabulary {vocab}, window {window_tokens}");
        let layers = [ReuseRule::All, ReuseRule::Last(window_tokens.saturating_sub(1))];
        let layers = layers.map(|rule| OwnState { rule, token_bytes: 8, row_bytes: 0 });
        let info = EngineInfo {
            fingerprint: Fingerprint::from_bytes(*blake3::hash(identity.as_bytes()).as_bytes()),
            vocab,
            context_tokens,
            state: StateSpec::own(layers),
            rows_bytes: None,
            backend: "sim".into(),
            kv_format: "digest".into(),
            memory: Memory::default(),
        };
        Self { info, window_tokens, hook: None }
    }

    /// The same engine, watched.
    #[must_use]
    pub fn with_hook(
        mut self,
        hook: impl FnMut(SimCall) -> Result<(), EngineError> + Send + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    fn announce(&mut self, call: SimCall) -> Result<(), EngineError> {
        self.hook.as_mut().map_or(Ok(()), |hook| hook(call))
    }

    fn logits(&self, row: &SimRow) -> Vec<f32> {
        let visible = &row.window[row.window.len().saturating_sub(self.window_tokens)..];
        let mut hasher = blake3::Hasher::new();
        for entry in row.full.iter().chain(visible) {
            hasher.update(&entry.to_le_bytes());
        }
        let mut reader = hasher.finalize_xof();
        let mut bytes = vec![0; self.info.vocab * 2];
        reader.fill(&mut bytes);
        bytes.chunks_exact(2).map(|pair| f32::from(u16::from_le_bytes([pair[0], pair[1]])) / 8192.0).collect()
    }

    /// Appends a work's tokens to its row.
    fn grow(&self, row: &mut SimRow, work: &RowWork<'_>) -> RowLogits {
        let unwanted = work.tokens.len() - work.wanted.count(work.tokens.len());
        let mut logits = RowLogits::new();
        for (at, token) in work.tokens.iter().enumerate() {
            row.push(*token);
            if at >= unwanted {
                logits.push(self.logits(row));
            }
        }
        row.decoding |= work.wanted != Wanted::Nothing;
        logits
    }
}

impl SimRow {
    fn push(&mut self, token: u32) {
        let previous = self.full.last().copied().unwrap_or(0);
        let entry = digest(&[previous, u64::from(token), self.full.len() as u64]);
        self.full.push(entry);
        self.window.push(entry.rotate_left(17));
    }
}

fn row_mut(batch: &mut [SimRow], row: usize) -> Result<&mut SimRow, EngineError> {
    let rows = batch.len();
    batch.get_mut(row).ok_or_else(|| EngineError::Input(format!("row {row} of a batch of {rows}")))
}

fn digest(words: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn tensor(name: &str, part: Part, entries: &[u64]) -> TensorBytes {
    let data: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    TensorBytes { name: name.into(), part, dtype: Dtype::U64, shape: vec![entries.len()], data: data.into() }
}

fn entries(payload: &Payload, name: &str, tokens: usize) -> Result<Option<Vec<u64>>, EngineError> {
    let Some(tensor) = payload.tensor(name) else { return Ok(None) };
    if tensor.data.len() != tokens * 8 {
        return Err(EngineError::Block(format!(
            "{name} has {} bytes; expected {}",
            tensor.data.len(),
            tokens * 8
        )));
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    Ok(Some(tensor.data.chunks_exact(8).map(word).collect()))
}

impl Engine for SimEngine {
    type Kv = Vec<SimRow>;

    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn empty(&self) -> Self::Kv {
        Vec::new()
    }

    fn start(&mut self) -> Result<Self::Kv, EngineError> {
        Ok(vec![SimRow::default()])
    }

    fn append(
        &mut self,
        batch: &mut Self::Kv,
        row: usize,
        blocks: &[ImportBlock<'_>],
        end_tokens: usize,
    ) -> Result<(), EngineError> {
        self.announce(SimCall::Import { tokens: blocks.iter().map(|block| block.used_tokens).sum() })?;
        let row = row_mut(batch, row)?;
        let mut grown = row.clone();
        for block in blocks {
            // Entries of the window layer that neither the next token sees nor an export may ask for.
            let kept = self.window_tokens.max(2 * block.block_tokens);
            let unseen_to = (end_tokens + 1).saturating_sub(kept);
            let full = entries(block.payload, "full", block.block_tokens)?
                .ok_or_else(|| EngineError::Block("the full layer is missing".into()))?;
            let window = entries(block.payload, "window", block.block_tokens)?
                .unwrap_or_else(|| vec![POISON; block.block_tokens]);
            let unseen = unseen_to.saturating_sub(grown.full.len()).min(block.used_tokens);
            grown.full.extend(&full[..block.used_tokens]);
            grown.window.extend(std::iter::repeat_n(POISON, unseen));
            grown.window.extend(&window[unseen..block.used_tokens]);
        }
        *row = grown;
        Ok(())
    }

    fn step(&mut self, batch: &mut Self::Kv, work: &[RowWork<'_>]) -> Result<Vec<RowLogits>, EngineError> {
        check_work(work, batch.len(), self.info.vocab)?;
        let call = |work: &RowWork<'_>| {
            let row = &batch[work.row];
            SimWork { row_tokens: row.full.len(), tokens: work.tokens.len(), decoding: row.decoding }
        };
        self.announce(SimCall::Step(work.iter().map(call).collect()))?;
        Ok(work.iter().map(|work| self.grow(&mut batch[work.row], work)).collect())
    }

    fn trim(&mut self, batch: &mut Self::Kv, row: usize, tokens: usize) -> Result<(), EngineError> {
        let row = row_mut(batch, row)?;
        let held = row.full.len();
        if tokens > held {
            return Err(EngineError::Input(format!("cannot trim a row of {held} tokens to {tokens}")));
        }
        row.full.truncate(tokens);
        row.window.truncate(tokens);
        Ok(())
    }

    fn extend(&mut self, batch: &mut Self::Kv, rows: Self::Kv) -> Result<(), EngineError> {
        batch.extend(rows);
        Ok(())
    }

    fn filter(&mut self, batch: &mut Self::Kv, keep: &[usize]) -> Result<(), EngineError> {
        *batch = keep.iter().filter_map(|row| batch.get(*row).cloned()).collect();
        Ok(())
    }

    fn extract(&mut self, batch: &Self::Kv, row: usize) -> Result<Self::Kv, EngineError> {
        batch
            .get(row)
            .map(|row| vec![row.clone()])
            .ok_or_else(|| EngineError::Input(format!("row {row} of a batch of {}", batch.len())))
    }

    fn export(&mut self, batch: &Self::Kv, row: usize, range: Range<usize>) -> Result<Payload, EngineError> {
        let found = batch.get(row).filter(|row| range.end <= row.full.len());
        let row = found.ok_or_else(|| EngineError::Input(format!("no tokens {range:?} in row {row}")))?;
        let tensors = vec![
            tensor("full", Part::Full, &row.full[range.clone()]),
            tensor("window", Part::Window, &row.window[range]),
        ];
        Ok(Payload { tensors })
    }

    fn snapshot(&mut self, _: &Self::Kv, _: usize) -> Result<Payload, EngineError> {
        Err(EngineError::Input("a snapshot of a model without recurrent layers".into()))
    }

    fn resume(&mut self, _: &mut Self::Kv, _: usize, _: &Payload) -> Result<(), EngineError> {
        Err(EngineError::Input("a snapshot for a model without recurrent layers".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Steps;

    fn blocks(payloads: &[Payload], used_tokens: usize) -> Vec<ImportBlock<'_>> {
        payloads.iter().map(|payload| ImportBlock { payload, block_tokens: 4, used_tokens }).collect()
    }

    #[test]
    fn an_imported_row_answers_as_the_computed_one() {
        let mut engine = SimEngine::new(64, 1000, 6);
        let mut row = engine.start().unwrap();
        let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let payloads = [engine.export(&row, 0, 0..4).unwrap(), engine.export(&row, 0, 4..8).unwrap()];
        let mut warm = engine.import(&blocks(&payloads, 4)).unwrap();
        assert_eq!(engine.prefill(&mut warm, &[9]).unwrap(), expected);
        assert_eq!(warm[0].full, row[0].full);
    }

    #[test]
    fn an_import_in_pieces_answers_as_one_at_once() {
        let mut engine = SimEngine::new(64, 1000, 6);
        let mut row = engine.start().unwrap();
        let tokens: Vec<u32> = (1..=20).collect();
        engine.prefill(&mut row, &tokens).unwrap();
        let payloads: Vec<Payload> =
            (0..5).map(|block| engine.export(&row, 0, block * 4..block * 4 + 4).unwrap()).collect();
        let mut whole = engine.import(&blocks(&payloads, 4)).unwrap();
        let mut pieces = engine.start().unwrap();
        for piece in payloads.chunks(2) {
            engine.append(&mut pieces, 0, &blocks(piece, 4), 20).unwrap();
        }
        assert_eq!(pieces, whole);
        let expected = engine.prefill(&mut row, &[21]).unwrap();
        assert_eq!(engine.prefill(&mut pieces, &[21]).unwrap(), expected);
        assert_eq!(engine.prefill(&mut whole, &[21]).unwrap(), expected);
        // A row that stops short of what was announced lacks what its window sees.
        let mut short = engine.start().unwrap();
        engine.append(&mut short, 0, &blocks(&payloads[..3], 4), 20).unwrap();
        let expected = engine.import(&blocks(&payloads[..3], 4)).unwrap();
        assert_ne!(short, expected);
    }

    #[test]
    fn a_step_that_fails_changes_no_row() {
        let mut calls = 0;
        let mut engine = SimEngine::new(64, 1000, 6).with_hook(move |call| {
            calls += usize::from(matches!(call, SimCall::Step(_)));
            if calls == 2 { Err(EngineError::OutOfMemory("planted".into())) } else { Ok(()) }
        });
        let mut batch = engine.start().unwrap();
        let other = engine.start().unwrap();
        engine.extend(&mut batch, other).unwrap();
        let work = |row, tokens| RowWork { row, tokens, wanted: Wanted::Last };
        engine.step(&mut batch, &[work(0, &[1, 2]), work(1, &[3])]).unwrap();
        let before = batch.clone();
        let failed = engine.step(&mut batch, &[work(0, &[4]), work(1, &[5, 6])]);
        assert_eq!(failed, Err(EngineError::OutOfMemory("planted".into())));
        assert!(engine.step(&mut batch, &[work(0, &[4]), work(1, &[64])]).is_err(), "outside the vocabulary");
        assert_eq!(batch, before);
    }

    #[test]
    fn a_trimmed_row_goes_on_as_one_that_was_never_longer() {
        let mut engine = SimEngine::new(64, 1000, 3);
        let (mut short, mut long) = (engine.start().unwrap(), engine.start().unwrap());
        engine.prefill(&mut short, &[1, 2, 3]).unwrap();
        engine.prefill(&mut long, &[1, 2, 3, 9, 8]).unwrap();
        engine.trim(&mut long, 0, 3).unwrap();
        assert_eq!(engine.decode(&mut long, &[4]).unwrap(), engine.decode(&mut short, &[4]).unwrap());
        assert!(engine.trim(&mut long, 0, 5).is_err());
    }

    #[test]
    fn a_window_part_is_needed_only_where_the_window_reaches() {
        let mut engine = SimEngine::new(64, 1000, 3);
        let mut row = engine.start().unwrap();
        let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let without_window = |range| {
            let mut payload = SimEngine::new(64, 1000, 3).export(&row, 0, range).unwrap();
            payload.tensors.retain(|tensor| tensor.part == Part::Full);
            payload
        };
        let second = engine.export(&row, 0, 4..8).unwrap();
        let mut fine = engine.import(&blocks(&[without_window(0..4), second], 4)).unwrap();
        assert_eq!(engine.prefill(&mut fine, &[9]).unwrap(), expected);
        let mut poisoned = engine.import(&blocks(&[without_window(0..4), without_window(4..8)], 4)).unwrap();
        assert_ne!(engine.prefill(&mut poisoned, &[9]).unwrap(), expected);
    }

    #[test]
    fn one_wrong_entry_anywhere_changes_the_answer() {
        let mut engine = SimEngine::new(64, 1000, 100);
        let mut row = engine.start().unwrap();
        let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5]).unwrap();
        for position in 0..5 {
            let mut broken = row.clone();
            broken[0].full[position] ^= 1;
            assert_ne!(engine.logits(&broken[0]), expected, "position {position}");
        }
    }
}
