//! Keeping the tiers within their budgets.

use crate::cache::PrefixCache;
use crate::ghosts::Left;
use crate::key::BlockKey;
use crate::retention::Keep;
use crate::tree::{DiskCopy, DiskWindow};

/// Between two looks at all lifetimes: they are minutes at least.
const EXPIRE_EVERY_US: u64 = 10_000_000;

impl PrefixCache {
    /// Drops copies from RAM until the budget holds or nothing more may go.
    pub(crate) fn evict_resident(&mut self) {
        self.take_leases();
        self.evict_resident_snapshots();
        while self.tree.resident_stats().bytes + self.snapshots.resident_stats().bytes
            > self.options.resident_bytes
        {
            let Some(key) = self.tree.coldest_resident() else { return };
            self.tree.set_resident(&key, None);
            self.counters.evicted_resident += 1;
            self.forget_if_bare(&key);
        }
    }

    /// Drops copies from disk until the budget holds, and what the free-space floor asks for, or nothing more may go.
    pub(super) fn evict_disk(&mut self) {
        self.evict_disk_snapshots();
        let short_bytes = std::mem::take(&mut self.lower.short_bytes);
        self.free_disk(0, short_bytes);
    }

    /// Makes room for `bytes` more within the disk budget. False when there is none to be had; then nothing has left.
    pub(super) fn make_disk_room(&mut self, bytes: u64) -> bool {
        // With everything else gone.
        self.lower.used_bytes(0) + bytes <= self.lower.budget_bytes() && self.free_disk(bytes, 0)
    }

    /// Removes the coldest blocks until `bytes` more fit the budget and at least `at_least` bytes are freed.
    fn free_disk(&mut self, bytes: u64, at_least: u64) -> bool {
        self.take_leases();
        let (mut removed, mut freed) = (Vec::new(), 0);
        let mut windows = Vec::new();
        let enough = loop {
            let used = self.used_disk_bytes();
            if used + bytes <= self.lower.budget_bytes() && freed >= at_least {
                break true;
            }
            // Window parts in the middle of chains first: nearly all restores go on without them.
            if let Some(key) = self.tree.coldest_window() {
                freed += self.drop_window(&key);
                windows.push(key);
                continue;
            }
            let (orphan, block) = (self.orphans.coldest(), self.tree.coldest_disk());
            let orphan_first = match (orphan, block) {
                (None, None) => {
                    let Some(key) = self.snapshots.coldest_disk() else { break false };
                    self.drop_stored_snapshot(&key);
                    freed += used - self.used_disk_bytes();
                    continue;
                }
                (Some((_, orphan)), Some((_, block))) => orphan <= block,
                (Some(_), None) => true,
                (None, Some(_)) => false,
            };
            let Some((key, _)) = (if orphan_first { orphan } else { block }) else { break false };
            if orphan_first {
                self.orphans.remove(&key);
            } else {
                self.tree.set_disk(&key, DiskCopy::None);
                self.forget_if_bare(&key);
            }
            removed.push(key);
            self.counters.evicted_disk += 1;
            freed += used - self.used_disk_bytes();
        };
        if !windows.is_empty() {
            self.lower.tier.drop_windows(windows);
        }
        if !removed.is_empty() {
            self.lower.tier.remove(removed);
        }
        enough
    }

    /// Allocated bytes of the tier: blocks and snapshots, whatever computed them, and all else.
    fn used_disk_bytes(&self) -> u64 {
        let blocks = self.tree.disk_stats().bytes + self.tree.other_stats().bytes + self.orphans.bytes();
        self.lower.used_bytes(blocks + self.snapshots.disk_stats().bytes)
    }

    /// Takes a block's window part off the disk's account. The copy counts as another one: a read of the window part
    /// that is under way may fail and says nothing about what stays. Returns the bytes.
    fn drop_window(&mut self, key: &BlockKey) -> u64 {
        let Some(node) = self.tree.get(key) else { return 0 };
        let DiskCopy::Stored { bytes, window: DiskWindow::Apart { bytes: freed }, .. } = node.disk else {
            return 0;
        };
        let copy = self.lower.next_copy();
        let bytes = bytes - freed;
        self.tree.set_disk(key, DiskCopy::Stored { copy, bytes, window: DiskWindow::Dropped });
        self.counters.dropped_windows += 1;
        freed
    }

    /// Removes all copies of a leaf that nothing needs any more.
    pub(super) fn discard(&mut self, key: &BlockKey) {
        let Some(node) = self.tree.get(key) else { return };
        let on_disk = node.disk != DiskCopy::None;
        self.tree.set_resident(key, None);
        self.tree.set_disk(key, DiskCopy::None);
        self.tree.prune(key);
        self.lower.unwritten.remove(key);
        if on_disk {
            self.lower.tier.remove(vec![*key]);
        }
    }

    /// Removes what has outlived its lifetime, and ends pins whose time has come. Looks at all blocks, so not often.
    pub(super) fn expire(&mut self) {
        let now_us = self.clock.now_us();
        self.tree.end_pins(now_us);
        self.end_snapshot_pins(now_us);
        if now_us < self.expire_at_us {
            return;
        }
        self.expire_at_us = now_us.saturating_add(EXPIRE_EVERY_US);
        self.expire_snapshots(now_us);
        for key in self.tree.outlived(now_us, self.idle_ttl_us) {
            let free = self.tree.get(&key).is_some_and(|node| node.is_leaf() && node.is_free());
            if free {
                self.discard(&key);
                self.ghosts.remember(key, Left::Expired);
                self.counters.expired_blocks += 1;
            }
        }
        for key in self.orphans.unpinned(now_us) {
            if let Some(row) = self.orphans.remove(&key) {
                self.put_aside(key, row);
            }
        }
        let dead: Vec<BlockKey> = self
            .orphans
            .rows()
            .filter(|(_, row)| {
                let dies_us = Keep::of(row).dies_us(row.last_use_us, self.idle_ttl_us);
                dies_us.is_some_and(|dies_us| dies_us <= now_us)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in &dead {
            self.orphans.remove(key);
        }
        if !dead.is_empty() {
            self.counters.expired_blocks += dead.len() as u64;
            self.lower.tier.remove(dead);
        }
    }

    /// Counts and remembers a node that lost its last copy to make room, and takes it out if nothing stands on it.
    fn forget_if_bare(&mut self, key: &BlockKey) {
        if self.tree.get(key).is_some_and(|node| node.tier().is_none()) {
            self.counters.evicted_blocks += 1;
            self.ghosts.remember(*key, Left::Evicted);
            self.orphan_snapshots(key);
            self.lower.unwritten.remove(key);
            self.tree.prune(key);
        }
    }
}
