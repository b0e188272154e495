//! What the tier says to its service. The service answers with [`Event`](crate::tier::Event)s.
//!
//! The channels have no bound of their own: writes are bounded by the bytes that may be queued, everything else by the
//! number of blocks on disk, and each event answers one command. So neither side ever waits for the other.

use crossbeam_channel::Sender;

use crate::disk::files::FileId;
use crate::key::BlockKey;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tier::Put;

/// Carried out in the order of sending.
pub(crate) enum Command {
    /// Make a block or a snapshot durable.
    Write(Put),
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
