//! What a restore brought: blocks in RAM, contiguous from position 0, the snapshot at their end where the model needs one,
//! and where and why it stopped.

use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::error::ReadError;
use crate::key::BlockKey;
use crate::lookup::Tier;

/// The outcome of [`PrefixCache::restore`](crate::PrefixCache::restore). Every block in it is verified.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The blocks, contiguous from position 0.
    pub blocks: Vec<RestoredBlock>,
    /// Tokens they give: the end of the usable prefix. 0 when the lookup's snapshot did not come.
    pub tokens: usize,
    /// The state after these tokens, where the model needs one; its tokens are those behind the last whole block.
    pub snapshot: Option<Arc<Block>>,
    /// The first block, or the snapshot, that could not be had, and why.
    pub failure: Option<(BlockKey, ReadError)>,
    /// Bytes read from disk.
    pub read_bytes: u64,
    /// From the call of `restore` to the call of `done`.
    pub elapsed: Duration,
    /// Of that, reading files. Blocks are read and verified on several threads at once, so `elapsed` is divided between
    /// `read` and `verify` in proportion to the time that the threads together gave to each: both are wall time, and
    /// their sum is `elapsed`. Waiting for a reader is in both alike. Zero when no block was to be read.
    pub read: Duration,
    /// The rest: checking lengths, headers, identities and checksums.
    pub verify: Duration,
    /// Every block that failed, with the copy that was read.
    pub(crate) failures: Vec<FailedCopy>,
}

/// One block of a [`Restored`].
#[derive(Clone, Debug)]
pub struct RestoredBlock {
    /// The block. Without its window tensors when `has_window` is false.
    pub block: Arc<Block>,
    /// Position of its first token.
    pub start: usize,
    /// Tokens of it to use, from its first.
    pub used_tokens: usize,
    /// The tier it came from.
    pub tier: Tier,
    /// Whether the tensors of sliding-window layers are there, if the block has any.
    pub has_window: bool,
}

/// One copy on disk that could not be used.
#[derive(Clone, Debug)]
pub(crate) struct FailedCopy {
    pub key: BlockKey,
    /// Which writing of the block; a later one may be sound.
    pub copy: u64,
    pub error: ReadError,
}
