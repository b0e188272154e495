//! The trait that engines implement.

use std::ops::Range;

use prefixd_cache::Payload;

use crate::error::EngineError;
use crate::info::{EngineInfo, MemoryUse};
use crate::work::{RowLogits, RowWork};

/// One block to import: its payload and how many of its tokens, from the first, are wanted.
#[derive(Clone, Copy, Debug)]
pub struct ImportBlock<'a> {
    /// The tensors. Those of the window part may be missing where no window reaches.
    pub payload: &'a Payload,
    /// Tokens the block holds.
    pub block_tokens: usize,
    /// Tokens to use, at most `block_tokens`; fewer only in the last block.
    pub used_tokens: usize,
}

/// Turns tokens into logits. See the crate's documentation for what every method keeps to.
pub trait Engine {
    /// The state of a batch of rows, in row order.
    type Kv;

    /// What is loaded.
    fn info(&self) -> &EngineInfo;

    /// What its device's memory is used for now.
    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    /// A batch without rows.
    fn empty(&self) -> Self::Kv;

    /// A batch of one row without tokens.
    fn start(&mut self) -> Result<Self::Kv, EngineError>;

    /// A batch of one row that holds the blocks' tokens, in order from position 0.
    fn import(&mut self, blocks: &[ImportBlock<'_>]) -> Result<Self::Kv, EngineError> {
        let mut row = self.start()?;
        let tokens = blocks.iter().map(|block| block.used_tokens).sum();
        self.append(&mut row, 0, blocks, tokens)?;
        Ok(row)
    }

    /// Appends the blocks' tokens to a row, which holds whole blocks: an import in pieces. `end_tokens` is what the row
    /// will hold after the last piece; until then it takes no step. Of layers with a window, what no token behind
    /// `end_tokens` can see is left out.
    fn append(
        &mut self,
        batch: &mut Self::Kv,
        row: usize,
        blocks: &[ImportBlock<'_>],
        end_tokens: usize,
    ) -> Result<(), EngineError>;

    /// Appends tokens to rows, in one pass over the weights. Returns what each work wanted, in the order of `work`.
    fn step(&mut self, batch: &mut Self::Kv, work: &[RowWork<'_>]) -> Result<Vec<RowLogits>, EngineError>;

    /// Forgets a row's tokens from `tokens` on: guesses that were wrong.
    ///
    /// # Errors
    /// When the row holds fewer, or no longer holds what the next token would see.
    fn trim(&mut self, batch: &mut Self::Kv, row: usize, tokens: usize) -> Result<(), EngineError>;

    /// Moves the rows of `rows` behind those of `batch`.
    fn extend(&mut self, batch: &mut Self::Kv, rows: Self::Kv) -> Result<(), EngineError>;

    /// Keeps the rows named by `keep`, in that order; the others are freed.
    fn filter(&mut self, batch: &mut Self::Kv, keep: &[usize]) -> Result<(), EngineError>;

    /// A copy of one row, as a batch of its own.
    fn extract(&mut self, batch: &Self::Kv, row: usize) -> Result<Self::Kv, EngineError>;

    /// The bytes of a row's tokens in `range`. Window layers still hold every token that the last step appended, and
    /// at least one block before them.
    fn export(&mut self, batch: &Self::Kv, row: usize, range: Range<usize>) -> Result<Payload, EngineError>;

    /// What the `At` layers of a row hold now: its snapshot after all of its tokens.
    ///
    /// # Errors
    /// [`EngineError::Input`] when the model has no such layers, or the row no state.
    fn snapshot(&mut self, batch: &Self::Kv, row: usize) -> Result<Payload, EngineError>;

    /// Gives a row, which has just been imported and holds exactly so many tokens, the snapshot after these. Until then it
    /// takes no step where the model has `At` layers.
    ///
    /// # Errors
    /// [`EngineError::Input`] when the model has no such layers or the row needs no snapshot, [`EngineError::Block`] when this is
    /// none of the model's.
    fn resume(&mut self, batch: &mut Self::Kv, row: usize, snapshot: &Payload) -> Result<(), EngineError>;
}
