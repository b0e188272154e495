//! What stands below RAM: a place that blocks and snapshots are put into and loaded from, by its owner's commands.
//!
//! 1. Commands are carried out in the order of the calls, and every call returns at once.
//! 2. A [`put`](LowerTier::put) is answered by one [`Event`] about its copy: it is kept, or it is not and why.
//! 3. A [`load`](LowerTier::load) answers once, with what is kept, byte for byte, or with why not.
//! 4. What was removed before the load was asked for does not come.
//! 5. When a [`barrier`](LowerTier::barrier) is reached, all commands before it are carried out and their events are there.
//! 6. It decides nothing: what is put and what leaves is the owner's business.
//!
//! `laws` holds every implementation to this.

#[cfg(test)]
mod laws;
mod load;
mod noop;

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use prefixd_migrations::{Row, SnapshotRow};

use crate::block::Block;
use crate::key::BlockKey;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tree::DiskWindow;

pub(crate) use load::{Brought, Done, Expected, Item, Job, Kind, Source, answer};
pub(crate) use noop::Noop;

/// See the module's documentation. Dropping it finishes what was asked for.
pub(crate) trait LowerTier: Send {
    /// Makes a block or a snapshot durable.
    fn put(&mut self, put: Put);

    /// Brings the items into RAM. Those that are there already, or nowhere, need no tier: if there are no others `done` is
    /// called before this returns, else it is called once on a thread of the tier's. What comes after a failed item may be
    /// left out.
    fn load(&self, items: Vec<Item>, begun: Instant, done: Done);

    /// Removes blocks and snapshots.
    fn remove(&mut self, keys: Vec<BlockKey>);

    /// Removes the window parts of blocks.
    fn drop_windows(&mut self, keys: Vec<BlockKey>);

    /// Notes recency and retention of what is kept, for the next start.
    fn touch(&mut self, uses: Vec<(BlockKey, Usage, Keep)>);

    /// Removes everything.
    fn clear(&mut self);

    /// Tells when all commands so far are carried out.
    fn barrier(&mut self) -> Receiver<()>;

    /// The next thing that it has to say.
    fn event(&mut self) -> Option<Event>;

    /// Gives up loads that take too long. True while every load would.
    fn is_stuck(&self) -> bool;

    /// Bytes that a block will take here, more rather than less.
    fn estimated_bytes(&self, block: &Block) -> u64;
}

/// A block or a snapshot to be kept.
#[derive(Clone)]
pub(crate) struct Put {
    pub block: Arc<Block>,
    /// Which writing of the block.
    pub copy: u64,
    pub usage: Usage,
    pub keep: Keep,
    /// What will have been written today, this one included.
    pub written: Written,
}

/// Bytes written on one day, for the daily write budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Days since 1970.
    pub day: u64,
    pub bytes: u64,
}

/// What a tier has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A block or snapshot is durable.
    Written { key: BlockKey, copy: u64, queued_bytes: u64, allocated_bytes: u64, window: DiskWindow },
    /// A block is not kept. `short_bytes` is what must be freed before the free-space floor allows it.
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

/// What was found in a tier when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub blocks: Vec<(BlockKey, Row)>,
    pub snapshots: Vec<(BlockKey, SnapshotRow)>,
    pub quarantined: u64,
    pub written: Written,
    /// Allocated bytes of the index.
    pub index_bytes: u64,
    /// Allocated bytes of everything else.
    pub other_bytes: u64,
}
