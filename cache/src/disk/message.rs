//! What the cache's owner and the eviction service say to each other.
//!
//! The channels have no bound of their own: writes are bounded by the bytes that may be queued, everything else by the
//! number of blocks on disk, and each report answers one command. So neither side ever waits for the other.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::block::Block;
use crate::disk::files::FileId;
use crate::disk::index::Written;
use crate::key::BlockKey;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tree::DiskWindow;

/// To the service. Carried out in the order of sending.
pub(crate) enum Command {
    /// Make a block or a snapshot durable.
    Write { block: Arc<Block>, copy: u64, usage: Usage, keep: Keep, written: Written },
    /// Remove blocks and snapshots: rows, then files.
    Remove(Vec<BlockKey>),
    /// Remove the window parts of blocks: rows, then files.
    DropWindows(Vec<BlockKey>),
    /// Bring recency and retention into the index.
    Touch(Vec<(BlockKey, Usage, Keep)>),
    /// Move a damaged file out of the way, if it is still the one that was read.
    Quarantine { key: BlockKey, copy: u64, file: Option<FileId> },
    /// Remove everything.
    Clear,
    /// Say when all before it is done.
    Barrier(Sender<()>),
    /// End.
    Stop,
}

/// From the service.
#[derive(Debug)]
pub(crate) enum Report {
    /// A block or snapshot is durable.
    Written { key: BlockKey, copy: u64, queued_bytes: u64, allocated_bytes: u64, window: DiskWindow },
    /// A block is not on disk. `short_bytes` is what must be freed before the free-space floor allows it.
    Failed { key: BlockKey, copy: u64, queued_bytes: u64, reason: String, short_bytes: u64 },
    /// A file could not be removed; its row is gone.
    Stuck { bytes: u64, reason: String },
    /// A damaged file is in quarantine, or (`bytes` 0) was gone or replaced already.
    Quarantined { key: BlockKey, copy: u64, bytes: u64 },
    /// Allocated bytes of the index.
    Index { bytes: u64 },
    /// Everything is removed; what is left could not be.
    Cleared { other_bytes: u64 },
}
