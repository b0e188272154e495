//! An engine without a model, for tests of everything around the model: its KV is a digest of tokens.
//!
//! 1. A token's entry digests all tokens before it, and logits digest every entry of the row, so one wrong, missing,
//!    swapped or foreign entry changes the answer.
//! 2. It has a full layer and a sliding-window layer: logits read every full entry, and window entries only within
//!    the window. Window entries that no block brought are poison, as they would be in a real cache.
//! 3. A hook sees every call before it happens; it may block (a slow engine) or fail (a broken one).

use std::ops::Range;

use prefixd_cache::{Dtype, Fingerprint, Part, Payload, TensorBytes};

use super::{DecodedAndPrefilled, Engine, EngineError, EngineInfo, ImportBlock};

/// What the engine is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimCall {
    /// A prefill of this many tokens onto a row that holds `row_tokens`.
    Prefill {
        /// Tokens in the row.
        row_tokens: usize,
        /// Tokens to append.
        tokens: usize,
    },
    /// A decode step of this many rows.
    Decode {
        /// Rows in the batch.
        rows: usize,
    },
    /// An import of this many tokens.
    Import {
        /// Tokens of all blocks together.
        tokens: usize,
    },
}

/// Sees every call; may block or fail it.
pub type SimHook = Box<dyn FnMut(SimCall) -> Result<(), EngineError> + Send>;

/// See the module's documentation.
pub struct SimEngine {
    info: EngineInfo,
    hook: Option<SimHook>,
}

/// One row: an entry per token and layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimRow {
    full: Vec<u64>,
    window: Vec<u64>,
}

const POISON: u64 = u64::MAX;

impl SimEngine {
    /// An engine of that vocabulary and window.
    pub fn new(vocab: usize, context_tokens: usize, window_tokens: usize) -> Self {
        let identity = format!("sim v1, vocabulary {vocab}, window {window_tokens}");
        let info = EngineInfo {
            fingerprint: Fingerprint::from_bytes(*blake3::hash(identity.as_bytes()).as_bytes()),
            vocab,
            context_tokens,
            window_tokens: Some(window_tokens),
            kv_bytes_per_token: 16,
            backend: "sim".into(),
            kv_format: "digest".into(),
        };
        Self { info, hook: None }
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
        let window = self.info.window_tokens.unwrap_or(usize::MAX);
        let visible = &row.window[row.window.len().saturating_sub(window)..];
        let mut hasher = blake3::Hasher::new();
        for entry in row.full.iter().chain(visible) {
            hasher.update(&entry.to_le_bytes());
        }
        let mut reader = hasher.finalize_xof();
        let mut bytes = vec![0; self.info.vocab * 2];
        reader.fill(&mut bytes);
        bytes.chunks_exact(2).map(|pair| f32::from(u16::from_le_bytes([pair[0], pair[1]])) / 8192.0).collect()
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
    let data = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    TensorBytes { name: name.into(), part, dtype: Dtype::U64, shape: vec![entries.len()], data }
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

    fn import(&mut self, blocks: &[ImportBlock<'_>]) -> Result<Self::Kv, EngineError> {
        self.announce(SimCall::Import { tokens: blocks.iter().map(|block| block.used_tokens).sum() })?;
        let mut row = SimRow::default();
        for block in blocks {
            let full = entries(block.payload, "full", block.block_tokens)?
                .ok_or_else(|| EngineError::Block("the full layer is missing".into()))?;
            let window = entries(block.payload, "window", block.block_tokens)?
                .unwrap_or_else(|| vec![POISON; block.block_tokens]);
            row.full.extend(&full[..block.used_tokens]);
            row.window.extend(&window[..block.used_tokens]);
        }
        Ok(vec![row])
    }

    fn prefill(&mut self, row: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let [only] = row.as_mut_slice() else {
            return Err(EngineError::Backend(format!("prefill works on one row, found {}", row.len())));
        };
        self.announce(SimCall::Prefill { row_tokens: only.full.len(), tokens: tokens.len() })?;
        for token in tokens {
            only.push(*token);
        }
        Ok(self.logits(only))
    }

    fn decode(&mut self, batch: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        if batch.len() != tokens.len() {
            return Err(EngineError::Backend(format!("{} tokens for {} rows", tokens.len(), batch.len())));
        }
        self.announce(SimCall::Decode { rows: batch.len() })?;
        batch.iter_mut().zip(tokens).for_each(|(row, token)| row.push(*token));
        Ok(batch.iter().map(|row| self.logits(row)).collect())
    }

    fn decode_and_prefill(
        &mut self,
        batch: &mut Self::Kv,
        tokens: &[u32],
        row: &mut Self::Kv,
        chunk: &[u32],
    ) -> Result<DecodedAndPrefilled, EngineError> {
        let (mut decoded, mut prefilled) = (batch.clone(), row.clone());
        let logits = (self.decode(&mut decoded, tokens)?, self.prefill(&mut prefilled, chunk)?);
        (*batch, *row) = (decoded, prefilled);
        Ok(logits)
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
            .ok_or_else(|| EngineError::Backend(format!("row {row} of a batch of {}", batch.len())))
    }

    fn export(&mut self, batch: &Self::Kv, row: usize, range: Range<usize>) -> Result<Payload, EngineError> {
        let found = batch.get(row).filter(|row| range.end <= row.full.len());
        let row = found.ok_or_else(|| EngineError::Backend(format!("no tokens {range:?} in row {row}")))?;
        let tensors = vec![
            tensor("full", Part::Full, &row.full[range.clone()]),
            tensor("window", Part::Window, &row.window[range]),
        ];
        Ok(Payload { tensors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(warm, row);
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
