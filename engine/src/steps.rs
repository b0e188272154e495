//! The steps that checks, measurements and tests take most, each in terms of [`Engine::step`].

use crate::contract::Engine;
use crate::error::EngineError;
use crate::work::{RowLogits, RowWork, Wanted};

/// Steps over a batch of one row, or over all rows alike. The scheduler has no use for them: its steps are ragged.
pub trait Steps: Engine {
    /// Appends `tokens` to the first row. Returns the logits `[vocab]` of the last of them.
    fn prefill(&mut self, row: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        only(self.step(row, &[RowWork { row: 0, tokens, wanted: Wanted::Last }])?.pop())
    }

    /// Appends `tokens` to the first row. Returns the logits of every one of them.
    fn score(&mut self, row: &mut Self::Kv, tokens: &[u32]) -> Result<RowLogits, EngineError> {
        let mut logits = self.step(row, &[RowWork { row: 0, tokens, wanted: Wanted::All }])?;
        Ok(logits.pop().unwrap_or_default())
    }

    /// Appends one token to each of the first rows, as many as there are tokens. Returns each row's logits `[vocab]`.
    fn decode(&mut self, batch: &mut Self::Kv, tokens: &[u32]) -> Result<RowLogits, EngineError> {
        let work: Vec<RowWork<'_>> = tokens
            .chunks(1)
            .enumerate()
            .map(|(row, tokens)| RowWork { row, tokens, wanted: Wanted::Last })
            .collect();
        self.step(batch, &work)?.into_iter().map(|logits| only(Some(logits))).collect()
    }
}

impl<E: Engine + ?Sized> Steps for E {}

fn only(logits: Option<RowLogits>) -> Result<Vec<f32>, EngineError> {
    let last = logits.and_then(|mut logits| logits.pop());
    last.ok_or_else(|| EngineError::Backend("a step brought no logits back".into()))
}
