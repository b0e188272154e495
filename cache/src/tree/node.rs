//! One node of the prefix tree: a block's identity, its copies, and what stands on it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::Block;
use crate::key::{BlockKey, Tenant};
use crate::lookup::Tier;
use crate::policy::{BlockFacts, Usage};

/// Blocks under one parent, sorted by their tokens.
pub(super) type Siblings = BTreeMap<Arc<[u32]>, BlockKey>;

/// Place in the order of eviction: lowest score first, and of equals the deepest, so that chains shrink from their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub score: u64,
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
    /// Durable, in `bytes` allocated bytes.
    Stored {
        copy: u64,
        bytes: u64,
    },
}

/// What a node is made from.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub parent: Option<BlockKey>,
    pub tenant: Tenant,
    pub start: usize,
    pub tokens: Arc<[u32]>,
    /// Bytes of the block, for the policy.
    pub bytes: u64,
    pub usage: Usage,
}

pub(crate) struct Node {
    pub parent: Option<BlockKey>,
    pub tenant: Tenant,
    pub start: usize,
    pub tokens: Arc<[u32]>,
    pub resident: Option<Arc<Block>>,
    pub disk: DiskCopy,
    pub usage: Usage,
    pub pins: u32,
    pub(super) children: Siblings,
    pub(super) children_on_disk: usize,
    pub(super) bytes: u64,
    pub(super) score: u64,
    pub(super) resident_rank: Option<Rank>,
    pub(super) disk_rank: Option<Rank>,
}

impl Node {
    pub(super) fn new(facts: NodeFacts) -> Self {
        Self {
            parent: facts.parent,
            tenant: facts.tenant,
            start: facts.start,
            tokens: facts.tokens,
            resident: None,
            disk: DiskCopy::None,
            usage: facts.usage,
            pins: 0,
            children: Siblings::new(),
            children_on_disk: 0,
            bytes: facts.bytes,
            score: 0,
            resident_rank: None,
            disk_rank: None,
        }
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

    pub(super) fn is_bare(&self) -> bool {
        self.resident.is_none() && self.disk == DiskCopy::None && self.children.is_empty() && self.pins == 0
    }

    /// The node's places among the copies in RAM and on disk that may be dropped. A copy may be dropped
    /// - from RAM, when it is also stored, or when nothing stands on the node, nothing pins it and nothing is being written;
    /// - from disk, when nothing pins the node, no child is on disk (a restart would lose it) and the node keeps a copy in
    ///   RAM or nothing stands on it.
    pub(super) fn places(&self, key: BlockKey) -> (Option<Rank>, Option<Rank>) {
        let rank = Rank { score: self.score, depth: Reverse(self.start), key };
        let loose = self.children.is_empty() && self.pins == 0;
        let stored = matches!(self.disk, DiskCopy::Stored { .. });
        let held = self.resident.is_some();
        let resident = held && (stored || (self.disk == DiskCopy::None && loose));
        let disk = stored && self.pins == 0 && self.children_on_disk == 0 && (held || loose);
        (resident.then_some(rank), disk.then_some(rank))
    }

    pub(super) fn facts(&self) -> BlockFacts {
        BlockFacts { usage: self.usage, start: self.start, tokens: self.tokens.len(), bytes: self.bytes }
    }
}
