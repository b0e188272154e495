//! An engine that says what its prompt tells it to: the tokens between `<script>` and `<go>`, then `<|end|>`.

use std::ops::Range;

use prefixd_cache::{Dtype, Fingerprint, Memory, Part, Payload, TensorBytes};
use prefixd_engine::{
    Engine, EngineError, EngineInfo, ImportBlock, OwnState, ReuseRule, RowLogits, RowWork, StateSpec,
};

use super::model::{END, GO, SCRIPT, START, VOCAB};

/// The logit of the token to say; the others have 0. No draw at a client's usual temperature takes another.
const LIKELY: f32 = 40.0;
/// The one tensor of a block: its tokens.
const TOKENS: &str = "tokens";

pub struct EchoEngine(EngineInfo);

impl EchoEngine {
    pub fn new() -> Self {
        Self(EngineInfo {
            fingerprint: Fingerprint::from_bytes([7; 32]),
            vocab: VOCAB,
            context_tokens: 4096,
            state: StateSpec::own([OwnState { rule: ReuseRule::All, token_bytes: 4, row_bytes: 0 }]),
            rows_bytes: None,
            backend: "echo".into(),
            kv_format: "tokens".into(),
            memory: Memory::default(),
        })
    }
}

fn logits(row: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; VOCAB];
    logits[next(row) as usize] = LIKELY;
    logits
}

fn next(row: &[u32]) -> u32 {
    let Some(go) = row.iter().rposition(|token| *token == GO) else { return END };
    let Some(script) = row[..go].iter().rposition(|token| *token == SCRIPT) else { return END };
    let header = "assistant\n".len();
    // The first message behind the script: an answer may begin further ones.
    let answer = row[go..].iter().position(|token| *token == START).map_or(go + 1, |at| go + at + 1 + header);
    // A chunk of the prompt may end before the answer begins.
    let at = row.len().checked_sub(answer);
    at.and_then(|at| row[script + 1..go].get(at)).copied().unwrap_or(END)
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

    fn append(
        &mut self,
        batch: &mut Self::Kv,
        row: usize,
        blocks: &[ImportBlock<'_>],
        _: usize,
    ) -> Result<(), EngineError> {
        for block in blocks {
            let tokens = block.payload.tensor(TOKENS).expect("what was exported");
            let token = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            batch[row].extend(tokens.data.chunks_exact(4).map(token).take(block.used_tokens));
        }
        Ok(())
    }

    fn step(&mut self, batch: &mut Self::Kv, work: &[RowWork<'_>]) -> Result<Vec<RowLogits>, EngineError> {
        let step = |work: &RowWork<'_>| {
            let row = &mut batch[work.row];
            row.extend(work.tokens);
            // Nobody wants more of this engine than the last token's.
            (0..work.wanted.count(1)).map(|_| logits(row)).collect()
        };
        Ok(work.iter().map(step).collect())
    }

    fn trim(&mut self, batch: &mut Self::Kv, row: usize, tokens: usize) -> Result<(), EngineError> {
        batch[row].truncate(tokens);
        Ok(())
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

    fn export(&mut self, batch: &Self::Kv, row: usize, range: Range<usize>) -> Result<Payload, EngineError> {
        let tokens = &batch[row][range];
        let data: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let tensor = TensorBytes {
            name: TOKENS.into(),
            part: Part::Full,
            dtype: Dtype::U32,
            shape: vec![tokens.len()],
            data: data.into(),
        };
        Ok(Payload { tensors: vec![tensor] })
    }

    fn snapshot(&mut self, _: &Self::Kv, _: usize) -> Result<Payload, EngineError> {
        Err(EngineError::Input("this engine has no recurrent layers".into()))
    }

    fn resume(&mut self, _: &mut Self::Kv, _: usize, _: &Payload) -> Result<(), EngineError> {
        Err(EngineError::Input("this engine has no recurrent layers".into()))
    }
}
