//! One node of the prefix tree: a block's identity, its copies, and what stands on it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use prefixd_migrations::Window;

use super::pins::Pinned;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::lookup::Tier;
use crate::policy::{BlockFacts, Usage, Worth};
use crate::retention::Keep;

/// Blocks under one parent, sorted by their tokens.
pub(super) type Siblings = BTreeMap<Arc<[u32]>, BlockKey>;

/// What being part of a living prefix adds to a block's priority.
const PREFERRED_STEP: u8 = 10;

/// Place in the order of eviction: least worth first, and of equals the deepest, so that chains shrink from their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub worth: Worth,
    depth: Reverse<usize>,
    pub key: BlockKey,
}

/// A block's copy on disk. `copy` counts writings: an answer about an earlier one is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskCopy {
    None,
    /// On its way: the copy in RAM stays until the answer comes.
    Queued {
        copy: u64,
    },
    /// Durable, in `bytes` allocated bytes, those of the window part included.
    Stored {
        copy: u64,
        bytes: u64,
        window: DiskWindow,
    },
}

/// A stored block's window part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskWindow {
    /// The block has none, or it is inside the block's file: it leaves with the block.
    Inseparable,
    /// In a file of its own, of so many allocated bytes.
    Apart { bytes: u64 },
    /// Gone.
    Dropped,
}

impl DiskWindow {
    /// Allocated bytes of the file.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Apart { bytes } => bytes,
            Self::Inseparable | Self::Dropped => 0,
        }
    }
}

impl From<DiskWindow> for Window {
    /// For rows that never reach the index: which of two inseparable kinds it was, and a file's length, are not known.
    fn from(window: DiskWindow) -> Self {
        match window {
            DiskWindow::Inseparable => Self::None,
            DiskWindow::Apart { bytes } => Self::Apart { file_bytes: 0, allocated_bytes: bytes },
            DiskWindow::Dropped => Self::Dropped,
        }
    }
}

impl From<Window> for DiskWindow {
    fn from(window: Window) -> Self {
        match window {
            Window::None | Window::Inside => Self::Inseparable,
            Window::Apart { allocated_bytes, .. } => Self::Apart { bytes: allocated_bytes },
            Window::Dropped => Self::Dropped,
        }
    }
}

/// What a node is made from.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub fingerprint: Fingerprint,
    pub parent: Option<BlockKey>,
    pub tenant: Tenant,
    pub start: usize,
    pub tokens: Arc<[u32]>,
    /// Bytes of the block, for the policy.
    pub bytes: u64,
    pub usage: Usage,
    pub keep: Keep,
}

/// A block's bytes in RAM as the tree holds them, whatever they are.
pub(crate) trait Page: Send {
    /// Bytes they take.
    fn bytes(&self) -> u64;
}

pub(crate) struct Node<P> {
    /// What computed it, and all of its chain.
    pub fingerprint: Fingerprint,
    pub parent: Option<BlockKey>,
    pub tenant: Tenant,
    pub start: usize,
    pub tokens: Arc<[u32]>,
    pub resident: Option<P>,
    pub disk: DiskCopy,
    pub usage: Usage,
    pub keep: Keep,
    /// Whether the retention's pin holds; the tree ends it.
    pub(super) retained: bool,
    /// Leases on it.
    pub pins: u32,
    /// Living prefixes that it is named as part of.
    pub(super) preferring: u32,
    pub(super) children: Siblings,
    pub(super) children_on_disk: usize,
    pub(super) bytes: u64,
    pub(super) score: u64,
    /// Whether only a restore into the middle of a chain would need its window part.
    pub(super) interior: bool,
    pub(super) resident_rank: Option<Rank>,
    pub(super) disk_rank: Option<Rank>,
    pub(super) window_rank: Option<Rank>,
}

/// A node's places in the rank sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub resident: Option<Rank>,
    pub disk: Option<Rank>,
    pub window: Option<Rank>,
}

impl<P> Node<P> {
    pub(super) fn new(facts: NodeFacts) -> Self {
        Self {
            fingerprint: facts.fingerprint,
            parent: facts.parent,
            tenant: facts.tenant,
            start: facts.start,
            tokens: facts.tokens,
            resident: None,
            disk: DiskCopy::None,
            usage: facts.usage,
            keep: facts.keep,
            retained: false,
            pins: 0,
            preferring: 0,
            children: Siblings::new(),
            children_on_disk: 0,
            bytes: facts.bytes,
            score: 0,
            interior: false,
            resident_rank: None,
            disk_rank: None,
            window_rank: None,
        }
    }

    /// Whether a copy with the tensors of sliding-window layers is there, if the block has any.
    pub fn has_window(&self) -> bool {
        self.resident.is_some()
            || matches!(self.disk, DiskCopy::Stored { window, .. } if window != DiskWindow::Dropped)
    }

    /// The fastest tier that holds it; `None` for a hollow node.
    pub fn tier(&self) -> Option<Tier> {
        match (&self.resident, self.disk) {
            (Some(_), _) => Some(Tier::Resident),
            (None, DiskCopy::Stored { .. }) => Some(Tier::Disk),
            (None, _) => None,
        }
    }

    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether a retention pins it.
    pub fn is_retained(&self) -> bool {
        self.retained
    }

    /// Bytes of the block.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether neither a lease nor a retention pins it.
    pub fn is_free(&self) -> bool {
        self.pins == 0 && !self.retained
    }

    /// The retention's pin, if it holds.
    pub(super) fn pinned(&self, key: BlockKey) -> Option<Pinned> {
        self.retained.then(|| Pinned {
            key,
            account: self.tenant.account(),
            start: self.start,
            bytes: self.bytes,
            until_us: self.keep.pinned_until_us,
        })
    }

    pub(super) fn is_bare(&self) -> bool {
        self.resident.is_none() && self.disk == DiskCopy::None && self.children.is_empty() && self.pins == 0
    }

    /// The node's places among what may be dropped. A copy may be dropped
    /// - from RAM, when it is also stored (with its window part, if something pins the node), or when nothing stands on
    ///   the node, nothing pins it and nothing is being written;
    /// - from disk, when nothing pins the node, no child is on disk (a restart would lose it) and the node keeps a copy in
    ///   RAM or nothing stands on it.
    ///
    /// The window part on disk may be dropped when nothing pins the node and no restore to the end of a chain, or to
    /// where chains part, needs it.
    pub(super) fn places(&self, key: BlockKey) -> Places {
        let step = if self.preferring > 0 { PREFERRED_STEP } else { 0 };
        let worth = Worth { priority: self.keep.priority.saturating_add(step), score: self.score };
        let rank = Rank { worth, depth: Reverse(self.start), key };
        let unpinned = self.is_free();
        let loose = self.children.is_empty() && unpinned;
        let stored = matches!(self.disk, DiskCopy::Stored { .. });
        let held = self.resident.is_some();
        let lacks_window = matches!(self.disk, DiskCopy::Stored { window: DiskWindow::Dropped, .. });
        let spare = stored && (unpinned || !lacks_window);
        let resident = held && (spare || (self.disk == DiskCopy::None && loose));
        let disk = stored && unpinned && self.children_on_disk == 0 && (held || loose);
        let apart = matches!(self.disk, DiskCopy::Stored { window: DiskWindow::Apart { .. }, .. });
        let window = apart && self.interior && unpinned;
        Places {
            resident: resident.then_some(rank),
            disk: disk.then_some(rank),
            window: window.then_some(rank),
        }
    }

    pub(super) fn facts(&self) -> BlockFacts {
        BlockFacts { usage: self.usage, start: self.start, tokens: self.tokens.len(), bytes: self.bytes }
    }
}
