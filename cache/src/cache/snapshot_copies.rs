//! Copies of snapshots: written when it is worth it, pinned, and kept within a share of the budgets.
//!
//! 1. Anchors and pinned ones are written at once. The others are written when nobody has gone on from them for a while, when
//!    they leave RAM, and at the end.
//! 2. In RAM and on disk they take at most their share of the budget. Pinned ones leave last.

use crate::cache::lower::Queueing;
use crate::cache::{Moved, PrefixCache};
use crate::key::{Account, BlockKey, Tenant};
use crate::lookup::SnapshotHit;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::snapshot::Record;
use crate::tree::{DiskCopy, DiskWindow, Room};

impl PrefixCache {
    /// Pins the snapshot that a prompt with this beginning would go on from.
    pub(super) fn pin_snapshot(&mut self, tenant: &Tenant, prefix: &[u32], until_us: u64) {
        let block_tokens = self.options.block_tokens;
        let chain = self.blocks_of(tenant, &prefix[..prefix.len() / block_tokens * block_tokens]);
        let found = self.deepest_snapshot(tenant, prefix, &chain, prefix.len());
        let Some((_, SnapshotHit { key, .. })) = found else { return };
        let Some(record) = self.snapshots.get(&key) else { return };
        let (account, bytes) = (record.tenant.account(), record.bytes);
        let more_bytes = if record.is_pinned() { 0 } else { bytes };
        if !self.make_snapshot_pin_room(&account, more_bytes) {
            self.counters.refused_pins += 1;
            return;
        }
        self.snapshots.change(&key, |record| {
            record.pinned_until_us = record.pinned_until_us.max(until_us);
            record.live = true;
        });
        self.note_use(&key);
        self.persist_snapshot(&key);
    }

    /// As for blocks: beyond the share of the budget, pins of whoever has most end early for those who have less than their
    /// fair part.
    fn make_snapshot_pin_room(&mut self, account: &Account, more_bytes: u64) -> bool {
        let share_bytes = self.snapshot_limit_bytes(self.lasting_budget_bytes());
        let limit_bytes = (share_bytes as f64 * self.pin_share) as u64;
        loop {
            match self.snapshots.pins().room(account, more_bytes, limit_bytes) {
                Room::There => return true,
                Room::After(key) if self.pins_may_yield() => {
                    self.end_snapshot_pin(&key);
                    self.counters.yielded_pins += 1;
                }
                Room::After(_) | Room::None => return false,
            }
        }
    }

    fn end_snapshot_pin(&mut self, key: &BlockKey) {
        self.snapshots.change(key, |record| record.pinned_until_us = 0);
        self.note_use(key);
    }

    /// Ends the pins of the snapshots behind these blocks.
    pub(super) fn unpin_snapshots(&mut self, keys: &[BlockKey]) {
        for key in keys.iter().flat_map(|key| self.snapshots.behind(key)).collect::<Vec<_>>() {
            if self.snapshots.get(&key).is_some_and(Record::is_pinned) {
                self.end_snapshot_pin(&key);
            }
        }
    }

    /// The share of a budget that snapshots may take.
    pub(super) fn snapshot_limit_bytes(&self, budget_bytes: u64) -> u64 {
        (budget_bytes as f64 * self.snapshot_share) as u64
    }

    /// Queues a snapshot for disk, if the budgets allow it. It may wait for room in the queue.
    pub(super) fn persist_snapshot(&mut self, key: &BlockKey) {
        let Some(record) = self.snapshots.get(key) else { return };
        let (DiskCopy::None, Some(block)) = (record.disk, record.resident.clone()) else { return };
        let usage = Usage { last_use_us: record.last_use_us, ..Usage::default() };
        let keep = Keep { pinned_until_us: record.pinned_until_us, ..Keep::default() };
        let bytes = self.lower.tier.estimated_bytes(&block);
        let fits = self.make_snapshot_room(bytes) && self.make_disk_room(bytes);
        let (now_us, again_us) = (self.clock.now_us(), self.snapshot_due_us());
        let queued = if fits {
            self.lower.queue(block, usage, keep, now_us)
        } else {
            self.lower.writes.dropped_blocks += 1;
            Queueing::OverDaily
        };
        self.snapshots.change(key, |record| match queued {
            Queueing::Queued { copy } => (record.disk, record.due_us) = (DiskCopy::Queued { copy }, None),
            Queueing::Full => record.due_us = again_us,
            // No budget has room for it: it stays in RAM.
            Queueing::OverDaily => record.due_us = None,
        });
    }

    /// Makes room for one more within the share of the disk budget. False when what is pinned leaves none.
    fn make_snapshot_room(&mut self, bytes: u64) -> bool {
        let limit_bytes = self.snapshot_limit_bytes(self.lower.budget_bytes());
        self.shrink_snapshots(limit_bytes.saturating_sub(bytes), false) && bytes <= limit_bytes
    }

    /// Removes the coldest from disk until they take at most so many bytes, those being written included.
    fn shrink_snapshots(&mut self, most_bytes: u64, pinned_too: bool) -> bool {
        while self.snapshots.disk_stats().bytes + self.snapshots.queued_bytes() > most_bytes {
            let coldest = self.snapshots.coldest_disk();
            let pinned = |key: &BlockKey| self.snapshots.get(key).is_some_and(Record::is_pinned);
            let Some(key) = coldest.filter(|key| pinned_too || !pinned(key)) else { return false };
            self.drop_stored_snapshot(&key);
        }
        true
    }

    /// Takes a snapshot's copy off the disk.
    pub(super) fn drop_stored_snapshot(&mut self, key: &BlockKey) {
        self.snapshots.change(key, |record| record.disk = DiskCopy::None);
        self.counters.evicted_snapshots += 1;
        self.lower.tier.remove(vec![*key]);
    }

    /// Removes all copies of a snapshot.
    fn discard_snapshot(&mut self, key: &BlockKey) {
        let Some(record) = self.snapshots.get(key) else { return };
        let on_disk = record.disk != DiskCopy::None;
        self.snapshots.change(key, |record| {
            (record.resident, record.disk, record.due_us) = (None, DiskCopy::None, None);
            record.pinned_until_us = 0;
        });
        if on_disk {
            self.lower.tier.remove(vec![*key]);
        }
    }

    /// Removes the snapshots behind a block that is freed.
    pub(super) fn discard_snapshots_behind(&mut self, block: &BlockKey) {
        for key in self.snapshots.behind(block) {
            self.discard_snapshot(&key);
        }
    }

    /// Takes the snapshots behind a block out of RAM, once they are on disk. Those that something newer has taken the place of
    /// just leave.
    pub(super) fn move_snapshots_to_disk(&mut self, block: &BlockKey, moved: &mut Moved) {
        for key in self.snapshots.behind(block) {
            if self.snapshots.get(&key).is_some_and(|record| record.due_us.is_some()) {
                self.persist_snapshot(&key);
            }
            let Some(record) = self.snapshots.get(&key) else { continue };
            let Some(bytes) = record.resident.as_ref().map(|block| block.bytes()) else { continue };
            match record.disk {
                DiskCopy::Queued { .. } => moved.waiting_blocks += 1,
                DiskCopy::None if record.due_us.is_some() => moved.stuck_blocks += 1,
                DiskCopy::None | DiskCopy::Stored { .. } => {
                    self.snapshots.change(&key, |record| record.resident = None);
                    moved.moved_bytes += bytes;
                }
            }
        }
    }

    /// A block is gone: the snapshots behind it are of no use until it is computed again.
    pub(super) fn orphan_snapshots(&mut self, block: &BlockKey) {
        for key in self.snapshots.behind(block) {
            self.snapshots.change(&key, |record| record.live = false);
        }
    }

    /// Writes those that nobody has gone on from for a while.
    pub(super) fn write_due_snapshots(&mut self) {
        let (now_us, later_us) = (self.clock.now_us(), self.snapshot_due_us());
        while let Some(key) = self.snapshots.next_due(now_us) {
            let parent = self.snapshots.get(&key).and_then(|record| record.parent);
            let lives = parent.and_then(|parent| self.tree.get(&parent)).is_some_and(|node| node.pins > 0);
            if lives {
                self.snapshots.change(&key, |record| record.due_us = later_us);
            } else {
                self.persist_snapshot(&key);
            }
        }
    }

    /// Queues all that wait. Returns how many there were.
    pub(super) fn write_all_snapshots(&mut self) -> u64 {
        let waiting = self.snapshots.all_due();
        for key in &waiting {
            self.persist_snapshot(key);
        }
        waiting.len() as u64
    }

    /// Drops copies from RAM until the share holds; what waits for the disk is written first.
    pub(super) fn evict_resident_snapshots(&mut self) {
        let limit_bytes = self.snapshot_limit_bytes(self.options.resident_bytes);
        // Those that are being written leave when they are there.
        while self.snapshots.resident_stats().bytes - self.snapshots.queued_bytes() > limit_bytes {
            let Some(key) = self.snapshots.coldest_resident() else { return };
            if self.snapshots.get(&key).is_some_and(|record| record.due_us.is_some()) {
                self.persist_snapshot(&key);
            }
            let queued =
                self.snapshots.get(&key).is_some_and(|record| matches!(record.disk, DiskCopy::Queued { .. }));
            if !queued {
                self.snapshots.change(&key, |record| (record.resident, record.due_us) = (None, None));
                self.counters.evicted_snapshots += 1;
            }
        }
    }

    /// Keeps the share of the disk budget, whatever was pinned.
    pub(super) fn evict_disk_snapshots(&mut self) {
        self.shrink_snapshots(self.snapshot_limit_bytes(self.lower.budget_bytes()), true);
    }

    /// Ends pins whose time has come.
    pub(super) fn end_snapshot_pins(&mut self, now_us: u64) {
        while let Some((_, key)) = self.snapshots.pins().first().filter(|(until_us, _)| *until_us <= now_us) {
            self.end_snapshot_pin(&key);
        }
    }

    /// Removes those not used for the cache's lifetime.
    pub(super) fn expire_snapshots(&mut self, now_us: u64) {
        if self.idle_ttl_us == 0 {
            return;
        }
        let outlived = |record: &Record| {
            !record.is_pinned() && record.last_use_us.saturating_add(self.idle_ttl_us) <= now_us
        };
        let dead: Vec<BlockKey> =
            self.snapshots.iter().filter(|(_, record)| outlived(record)).map(|(key, _)| *key).collect();
        for key in &dead {
            self.discard_snapshot(key);
        }
    }

    /// A snapshot's copy is durable.
    pub(super) fn note_written_snapshot(&mut self, key: &BlockKey, copy: u64, bytes: u64) {
        self.counters.snapshots_written += 1;
        if self.snapshots.get(key).is_some_and(|record| record.disk == DiskCopy::Queued { copy }) {
            let window = DiskWindow::Inseparable;
            self.snapshots.change(key, |record| record.disk = DiskCopy::Stored { copy, bytes, window });
        }
    }

    /// A snapshot's copy on disk is not there or of no use. Another copy, written since, is not meant. What is in RAM is
    /// written again some time.
    pub(super) fn lose_snapshot(&mut self, key: &BlockKey, copy: u64) {
        let held = match self.snapshots.get(key).map(|record| record.disk) {
            Some(DiskCopy::Stored { copy, .. } | DiskCopy::Queued { copy }) => copy,
            Some(DiskCopy::None) | None => return,
        };
        if held == copy {
            let due_us = self.snapshot_due_us();
            self.snapshots.change(key, |record| {
                (record.disk, record.due_us) = (DiskCopy::None, due_us.filter(|_| record.resident.is_some()));
            });
        }
    }

    /// The file system failed on a copy that may be sound: it is left alone for a while.
    pub(super) fn leave_snapshot_alone(&mut self, key: &BlockKey) {
        let pause_us = u64::try_from(self.read_retry.as_micros()).unwrap_or(u64::MAX);
        let until_us = self.clock.now_us().saturating_add(pause_us);
        self.snapshots.change(key, |record| record.unreadable_until_us = until_us);
    }
}
