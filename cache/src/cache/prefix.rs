//! Whole prefixes as their owner names them: which blocks hold one, and what is to become of those.
//!
//! 1. A prefix is named by its tokens or by the keys of its blocks; neither counts as a use.
//! 2. A block that something else stands on, or that a lease holds, is neither freed nor counted as freed.

use std::collections::HashSet;

use serde::Serialize;

use crate::cache::PrefixCache;
use crate::key::{BlockKey, Tenant};
use crate::tree::{DiskCopy, DiskWindow};

/// What [`PrefixCache::free`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Freed {
    /// Blocks that are gone from every tier.
    pub freed_blocks: u64,
    /// Bytes they took in RAM.
    pub freed_ram_bytes: u64,
    /// Bytes they took on disk.
    pub freed_disk_bytes: u64,
    /// Blocks that others need as well.
    pub kept_blocks: u64,
}

/// What [`PrefixCache::move_to_disk`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Moved {
    /// Blocks that left RAM just now.
    pub moved_blocks: u64,
    /// RAM that they took.
    pub moved_bytes: u64,
    /// Blocks on their way to disk; ask again.
    pub waiting_blocks: u64,
    /// Blocks that stay in RAM because the disk takes none at the moment.
    pub stuck_blocks: u64,
}

/// Where the blocks of a prefix are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PrefixSize {
    /// Blocks in RAM.
    pub resident_blocks: u64,
    /// Their bytes.
    pub resident_bytes: u64,
    /// Blocks on disk, those that are in RAM too included.
    pub disk_blocks: u64,
    /// Their allocated bytes.
    pub disk_bytes: u64,
    /// Blocks that a pin keeps.
    pub pinned_blocks: u64,
}

impl PrefixCache {
    /// The blocks that hold the first tokens of `prompt`, in order, as far as they are known. The last may hold more than
    /// the prompt asks for. Not a use.
    pub fn blocks_of(&self, tenant: &Tenant, prompt: &[u32]) -> Vec<BlockKey> {
        let mut keys: Vec<BlockKey> = Vec::new();
        for wanted in prompt.chunks(self.options.block_tokens) {
            let Some(key) = self.tree.covering(keys.last(), tenant, wanted) else { break };
            keys.push(key);
        }
        keys
    }

    /// Names these blocks as part of a living prefix: others of the same priority leave before them. Counts; give it back
    /// with [`unprefer`](Self::unprefer). Not kept over a restart.
    pub fn prefer(&mut self, keys: &[BlockKey]) {
        for key in keys {
            self.tree.prefer(key, true);
        }
    }

    /// Takes a [`prefer`](Self::prefer) back.
    pub fn unprefer(&mut self, keys: &[BlockKey]) {
        for key in keys {
            self.tree.prefer(key, false);
        }
    }

    /// Removes these blocks from every tier, files included, but for those in `shared`, those that something else stands
    /// on, and those that a lease or the operator's pin keeps. Other pins end.
    pub fn free(&mut self, keys: &[BlockKey], shared: &HashSet<BlockKey>) -> Freed {
        self.take_leases();
        self.take_events();
        let mut freed = Freed::default();
        for key in self.deepest_first(keys) {
            let Some(node) = self.tree.get(&key) else { continue };
            let forever = node.keep.pinned_until_us == u64::MAX;
            if shared.contains(&key) || !node.is_leaf() || node.pins > 0 || forever {
                freed.kept_blocks += u64::from(node.tier().is_some());
                continue;
            }
            freed.freed_blocks += u64::from(node.tier().is_some());
            freed.freed_ram_bytes += node.resident.as_ref().map_or(0, |block| block.bytes());
            if let DiskCopy::Stored { bytes, .. } = node.disk {
                freed.freed_disk_bytes += bytes;
            }
            self.discard(&key);
            self.discard_snapshots_behind(&key);
        }
        freed
    }

    /// Takes these blocks out of RAM, once they are on disk: those that are not are queued, and waited for by asking again.
    pub fn move_to_disk(&mut self, keys: &[BlockKey]) -> Moved {
        self.take_leases();
        self.take_events();
        let mut moved = Moved::default();
        for key in self.deepest_first(keys) {
            self.persist(&key);
            self.mend(&key);
            let Some(node) = self.tree.get(&key) else { continue };
            let Some(bytes) = node.resident.as_ref().map(|block| block.bytes()) else { continue };
            match node.disk {
                DiskCopy::Stored { window, .. } if window != DiskWindow::Dropped => {
                    self.tree.set_resident(&key, None);
                    moved.moved_blocks += 1;
                    moved.moved_bytes += bytes;
                }
                DiskCopy::Queued { .. } => moved.waiting_blocks += 1,
                DiskCopy::None | DiskCopy::Stored { .. } => moved.stuck_blocks += 1,
            }
            self.move_snapshots_to_disk(&key, &mut moved);
        }
        moved
    }

    /// Whether there is a disk tier at all.
    pub fn has_disk(&self) -> bool {
        self.lower.keeps()
    }

    /// RAM budget in bytes.
    pub fn resident_budget_bytes(&self) -> u64 {
        self.options.resident_bytes
    }

    /// Where these blocks are.
    pub fn size_of(&self, keys: &[BlockKey]) -> PrefixSize {
        let mut size = PrefixSize::default();
        for node in keys.iter().filter_map(|key| self.tree.get(key)) {
            if let Some(block) = &node.resident {
                size.resident_blocks += 1;
                size.resident_bytes += block.bytes();
            }
            if let DiskCopy::Stored { bytes, .. } = node.disk {
                size.disk_blocks += 1;
                size.disk_bytes += bytes;
            }
            size.pinned_blocks += u64::from(node.is_retained());
        }
        size
    }

    /// Only what is known, each once, a chain's end before its beginning.
    fn deepest_first(&self, keys: &[BlockKey]) -> Vec<BlockKey> {
        let mut known: Vec<(usize, BlockKey)> =
            keys.iter().filter_map(|key| self.tree.get(key).map(|node| (node.start, *key))).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        known.dedup();
        known.into_iter().map(|(_, key)| key).collect()
    }
}
