//! An engine that says what its prompt tells it to: the tokens between `<script>` and `<go>`, then `<|end|>`.

use std::ops::Range;

use prefixd::engine::{DecodedAndPrefilled, Engine, EngineError, EngineInfo, ImportBlock};
use prefixd_cache::{Fingerprint, Payload};

use super::model::{END, GO, SCRIPT, START, VOCAB};

pub struct EchoEngine(EngineInfo);

impl EchoEngine {
    pub fn new() -> Self {
        Self(EngineInfo {
            fingerprint: Fingerprint::from_bytes([7; 32]),
            vocab: VOCAB,
            context_tokens: 4096,
            window_tokens: None,
            kv_bytes_per_token: 4,
            backend: "echo".into(),
            kv_format: "tokens".into(),
        })
    }
}

fn logits(row: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; VOCAB];
    logits[next(row) as usize] = 12.0;
    logits
}

fn next(row: &[u32]) -> u32 {
    let Some(go) = row.iter().rposition(|token| *token == GO) else { return END };
    let Some(script) = row[..go].iter().rposition(|token| *token == SCRIPT) else { return END };
    let header = "assistant\n".len();
    let answer =
        row[go..].iter().rposition(|token| *token == START).map_or(go + 1, |at| go + at + 1 + header);
    row[script + 1..go].get(row.len() - answer).copied().unwrap_or(END)
}

impl Engine for EchoEngine {
    type Kv = Vec<Vec<u32>>;

    fn info(&self) -> &EngineInfo {
        &self.0
    }

    fn empty(&self) -> Self::Kv {
        Vec::new()
    }

    fn start(&mut self) -> Result<Self::Kv, EngineError> {
        Ok(vec![Vec::new()])
    }

    fn import(&mut self, _: &[ImportBlock<'_>]) -> Result<Self::Kv, EngineError> {
        Err(EngineError::Block("this engine runs without a cache".into()))
    }

    fn prefill(&mut self, row: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        row[0].extend(tokens);
        Ok(logits(&row[0]))
    }

    fn decode(&mut self, batch: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        batch.iter_mut().zip(tokens).for_each(|(row, token)| row.push(*token));
        Ok(batch.iter().map(|row| logits(row)).collect())
    }

    fn decode_and_prefill(
        &mut self,
        batch: &mut Self::Kv,
        tokens: &[u32],
        row: &mut Self::Kv,
        chunk: &[u32],
    ) -> Result<DecodedAndPrefilled, EngineError> {
        Ok((self.decode(batch, tokens)?, self.prefill(row, chunk)?))
    }

    fn extend(&mut self, batch: &mut Self::Kv, rows: Self::Kv) -> Result<(), EngineError> {
        batch.extend(rows);
        Ok(())
    }

    fn filter(&mut self, batch: &mut Self::Kv, keep: &[usize]) -> Result<(), EngineError> {
        *batch = keep.iter().map(|row| batch[*row].clone()).collect();
        Ok(())
    }

    fn extract(&mut self, batch: &Self::Kv, row: usize) -> Result<Self::Kv, EngineError> {
        Ok(vec![batch[row].clone()])
    }

    fn export(&mut self, _: &Self::Kv, _: usize, _: Range<usize>) -> Result<Payload, EngineError> {
        Err(EngineError::Block("this engine runs without a cache".into()))
    }
}
