//! The seam between scheduling and computing: an engine turns tokens into logits and KV rows into host bytes.
//!
//! The scheduler knows engines by this trait alone; [`sim::SimEngine`] stands in where a test is about scheduling,
//! and the MLX engine does the real work. An engine lives, works and is dropped on the scheduler thread.
//!
//! 1. A row's logits depend on the row's tokens alone: not on chunk borders, on its neighbours in a batch, or on
//!    whether its prefix was computed or imported.
//! 2. Every method returns with its work done: nothing lazy is left behind.

use std::ops::Range;

use prefixd_cache::{Fingerprint, Payload};

mod constraint;
mod sampler;
pub mod sim;
mod wishes;

pub use constraint::{Allowed, Constraint, ConstraintError, Ending};
pub use sampler::{Sampler, Sampling, SamplingError, TokenChoice};
pub use wishes::Wishes;

/// What the scheduler and the API know of a loaded model.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// Identity of everything that decides the bytes of a block besides its tokens.
    pub fingerprint: Fingerprint,
    /// Logits per token.
    pub vocab: usize,
    /// The longest sequence, prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// The widest sliding window in tokens; `None` when every layer sees everything.
    pub window_tokens: Option<usize>,
    /// KV bytes that one more token costs (full layers; window layers stop growing).
    pub kv_bytes_per_token: u64,
    /// What computes: `cpu`, `metal`, `cuda`, `sim`.
    pub backend: String,
    /// The KV setting as the user writes it: `k8v4`, `16`, ...
    pub kv_format: String,
}

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

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The compute backend failed.
    #[error("compute backend: {0}")]
    Backend(String),
    /// A block does not fit this model.
    #[error("block does not fit this model: {0}")]
    Block(String),
}

/// The logits of each decoding row, and those of the prefilled row's last token.
pub type DecodedAndPrefilled = (Vec<Vec<f32>>, Vec<f32>);

/// Turns tokens into logits. `Kv` is a batch of rows; a batch of one row is what prefill works on.
pub trait Engine {
    /// KV state of a batch of rows, in row order.
    type Kv;

    /// What is loaded.
    fn info(&self) -> &EngineInfo;

    /// A batch without rows.
    fn empty(&self) -> Self::Kv;

    /// A batch of one row without tokens.
    fn start(&mut self) -> Result<Self::Kv, EngineError>;

    /// A batch of one row that holds the blocks' tokens, in order from position 0.
    fn import(&mut self, blocks: &[ImportBlock<'_>]) -> Result<Self::Kv, EngineError>;

    /// Appends `tokens` to the only row. Returns the logits `[vocab]` of the last of them.
    fn prefill(&mut self, row: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;

    /// Appends one token to each row. Returns each row's logits `[vocab]`.
    fn decode(&mut self, batch: &mut Self::Kv, tokens: &[u32]) -> Result<Vec<Vec<f32>>, EngineError>;

    /// What [`decode`](Self::decode) of `batch` and [`prefill`](Self::prefill) of `row` would do and return, in one pass
    /// over the weights. When it fails, neither batch has changed.
    fn decode_and_prefill(
        &mut self,
        batch: &mut Self::Kv,
        tokens: &[u32],
        row: &mut Self::Kv,
        chunk: &[u32],
    ) -> Result<DecodedAndPrefilled, EngineError>;

    /// Moves the rows of `rows` behind those of `batch`.
    fn extend(&mut self, batch: &mut Self::Kv, rows: Self::Kv) -> Result<(), EngineError>;

    /// Keeps the rows named by `keep`, in that order; the others are freed.
    fn filter(&mut self, batch: &mut Self::Kv, keep: &[usize]) -> Result<(), EngineError>;

    /// A copy of one row, as a batch of its own.
    fn extract(&mut self, batch: &Self::Kv, row: usize) -> Result<Self::Kv, EngineError>;

    /// The bytes of a row's tokens in `range`. Window layers still hold every token that the last call appended, and
    /// at least one block before them.
    fn export(&mut self, batch: &Self::Kv, row: usize, range: Range<usize>) -> Result<Payload, EngineError>;
}
