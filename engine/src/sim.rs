//! An engine without a model, for tests of everything around the model: its KV is a digest of tokens.
//!
//! 1. A token's entry digests all tokens before it, and logits digest every entry of the row, so one wrong, missing,
//!    swapped or foreign entry changes the answer.
//! 2. It has a full layer and a sliding-window layer: logits read every full entry, and window entries only within
//!    the window. Window entries that no block brought are poison, as they would be in a real cache.
//! 3. [`SimEngine::hybrid`] has a recurrent layer as well: one state, a digest of every token in order, which logits read. It
//!    lives in the row alone. A row that took its tokens from blocks has none, and takes no step until it is given one.
//! 4. A hook sees every call before it happens; it may block (a slow engine) or fail (a broken one).

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
    /// A row of this many tokens is given its snapshot.
    Resume {
        /// Tokens in the row.
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
            Self::Import { .. } | Self::Resume { .. } => [].iter(),
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

/// One row: an entry per token and layer, and the state of the recurrent layer if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimRow {
    full: Vec<u64>,
    window: Vec<u64>,
    state: State,
    decoding: bool,
}

/// What the recurrent layer holds of a row. Without such a layer it is computed and nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A digest of the row's tokens, in order.
    After(u64),
    /// The tokens came from blocks.
    Missing,
}

impl Default for State {
    fn default() -> Self {
        Self::After(0)
    }
}

const POISON: u64 = u64::MAX;

impl SimEngine {
    /// An engine of that vocabulary and window.
    pub fn new(vocab: usize, context_tokens: usize, window_tokens: usize) -> Self {
        let identity = format!("sim v1, vocabulary {vocab}, window {window_tokens}");
        Self::of(&identity, vocab, context_tokens, window_tokens, None)
    }

    /// The same with a recurrent layer beside the others.
    pub fn hybrid(vocab: usize, context_tokens: usize, window_tokens: usize) -> Self {
        let identity = format!("sim v1, recurrent, vocabulary {vocab}, window {window_tokens}");
        let recurrent = OwnState { rule: ReuseRule::At, token_bytes: 0, row_bytes: 8 };
        Self::of(&identity, vocab, context_tokens, window_tokens, Some(recurrent))
    }

    fn of(
        identity: &str,
        vocab: usize,
        context_tokens: usize,
        window_tokens: usize,
        recurrent: Option<OwnState>,
    ) -> Self {
        let layers = [ReuseRule::All, ReuseRule::Last(window_tokens.saturating_sub(1))];
        let layers = layers.map(|rule| OwnState { rule, token_bytes: 8, row_bytes: 0 });
        let info = EngineInfo {
            fingerprint: Fingerprint::from_bytes(*blake3::hash(identity.as_bytes()).as_bytes()),
            vocab,
            context_tokens,
            state: StateSpec::own(layers.into_iter().chain(recurrent)),
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

    fn is_hybrid(&self) -> bool {
        self.info.state.has_snapshots()
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
        if let (true, State::After(state)) = (self.is_hybrid(), row.state) {
            hasher.update(&state.to_le_bytes());
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
        if let State::After(state) = &mut self.state {
            *state = digest(&[!*state, u64::from(token)]);
        }
    }
}

fn row_mut(batch: &mut [SimRow], row: usize) -> Result<&mut SimRow, EngineError> {
    let rows = batch.len();
    batch.get_mut(row).ok_or_else(|| EngineError::Input(format!("row {row} of a batch of {rows}")))
}

/// The row, if its recurrent layer has a state.
fn with_state(batch: &[SimRow], row: usize) -> Result<(&SimRow, u64), EngineError> {
    let found = batch
        .get(row)
        .ok_or_else(|| EngineError::Input(format!("row {row} of a batch of {}", batch.len())))?;
    match found.state {
        State::After(state) => Ok((found, state)),
        State::Missing => Err(EngineError::Input(format!(
            "row {row} took its {} tokens from blocks and has no state of its recurrent layer; expected a snapshot first",
            found.full.len()
        ))),
    }
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
        grown.state = State::Missing;
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
        if self.is_hybrid() {
            work.iter().try_for_each(|work| with_state(batch, work.row).map(drop))?;
        }
        Ok(work.iter().map(|work| self.grow(&mut batch[work.row], work)).collect())
    }

    fn trim(&mut self, batch: &mut Self::Kv, row: usize, tokens: usize) -> Result<(), EngineError> {
        let row = row_mut(batch, row)?;
        let held = row.full.len();
        if tokens > held || (self.info.state.has_snapshots() && tokens < held) {
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

    fn snapshot(&mut self, batch: &Self::Kv, row: usize) -> Result<Payload, EngineError> {
        if !self.is_hybrid() {
            return Err(EngineError::Input("a snapshot of a model without recurrent layers".into()));
        }
        let (_, state) = with_state(batch, row)?;
        Ok(Payload { tensors: vec![tensor("state", Part::State, &[state])] })
    }

    fn resume(&mut self, batch: &mut Self::Kv, row: usize, snapshot: &Payload) -> Result<(), EngineError> {
        if !self.is_hybrid() {
            return Err(EngineError::Input("a snapshot for a model without recurrent layers".into()));
        }
        let tokens = row_mut(batch, row)?.full.len();
        self.announce(SimCall::Resume { tokens })?;
        let state = entries(snapshot, "state", 1)?;
        let state = state.ok_or_else(|| EngineError::Block("the snapshot lacks the tensor state".into()))?;
        let row = row_mut(batch, row)?;
        if row.state != State::Missing {
            return Err(EngineError::Input(
                "a snapshot for a row that did not take its tokens from blocks".into(),
            ));
        }
        row.state = State::After(state[0]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
