//! What a recurrent model needs beside keys and values: its state after exactly so many tokens of a prefix.

use std::sync::Arc;

use crate::block::Block;
use crate::key::{BlockKey, Tenant};
use crate::lookup::Tier;
use crate::tree::DiskCopy;

/// Where in a conversation a snapshot was taken: how soon it goes to disk, and which later one makes it needless there.
///
/// Snapshots are large and most live for a turn. So those that only their own conversation needs wait, and a newer one of
/// the same kind that goes on from the same prefix takes their place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnapshotKind {
    /// What other conversations begin with as well, or somebody named: the end of tools and system text, a mark, a
    /// context. Written at once.
    Anchor,
    /// A place where prompts part, or that an edited prompt may go on from. Written when its conversation has been idle.
    Junction,
    /// The end of the last message of a user: what is told of the answers behind it may change with the next one. Written
    /// when its conversation has been idle, unless a newer one of the kind comes first.
    Message,
    /// The end of a prompt's last message, where it is not a user's: a tool's result. Written likewise.
    Result,
    /// The end of a request. Written likewise.
    End,
}

impl SnapshotKind {
    /// Whether a newer one of the kind takes its place.
    pub(crate) fn is_superseded(self) -> bool {
        matches!(self, Self::Message | Self::Result | Self::End)
    }
}

/// Place in the order of eviction: the lowest leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pinned: bool,
    live: bool,
    last_use_us: u64,
    pub key: BlockKey,
}

/// One snapshot, wherever it is.
#[derive(Debug)]
pub(crate) struct Record {
    /// The last whole block before it.
    pub parent: Option<BlockKey>,
    pub tenant: Tenant,
    /// Where its tokens begin: behind that block.
    pub start: usize,
    /// The tokens from there to it; fewer than a block's.
    pub tokens: Arc<[u32]>,
    /// What it is for. Not kept over a restart.
    pub kind: Option<SnapshotKind>,
    /// Bytes of its tensors.
    pub bytes: u64,
    pub last_use_us: u64,
    /// 0: not pinned.
    pub pinned_until_us: u64,
    /// A newer one has taken its place, or the blocks before it are gone: it leaves first.
    pub live: bool,
    pub resident: Option<Arc<Block>>,
    pub disk: DiskCopy,
    /// When it is to be written; `None`: not at all, or it is on its way.
    pub due_us: Option<u64>,
    /// Until then the copy on disk is left alone: it could not be read.
    pub unreadable_until_us: u64,
    /// What its chain of whole blocks is called: the parent's key, or that of none.
    pub(crate) chain: BlockKey,
}

impl Record {
    /// Tokens before it.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    pub fn is_pinned(&self) -> bool {
        self.pinned_until_us > 0
    }

    /// The fastest tier that it can be had from at `now_us`.
    pub fn tier(&self, now_us: u64) -> Option<Tier> {
        match (&self.resident, self.disk) {
            (Some(_), _) => Some(Tier::Resident),
            (None, DiskCopy::Stored { .. }) if self.unreadable_until_us <= now_us => Some(Tier::Disk),
            (None, _) => None,
        }
    }

    fn rank(&self, key: BlockKey) -> Rank {
        Rank { pinned: self.is_pinned(), live: self.live, last_use_us: self.last_use_us, key }
    }

    /// Its place among the copies in RAM that may leave. One that is being written stays until it is there.
    pub(crate) fn resident_rank(&self, key: BlockKey) -> Option<Rank> {
        let leaves = self.resident.is_some() && !matches!(self.disk, DiskCopy::Queued { .. });
        leaves.then(|| self.rank(key))
    }

    /// Its place among the copies on disk that may leave.
    pub(crate) fn disk_rank(&self, key: BlockKey) -> Option<Rank> {
        matches!(self.disk, DiskCopy::Stored { .. }).then(|| self.rank(key))
    }
}
