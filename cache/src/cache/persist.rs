//! Between the tree and the disk: what goes out, what comes back as done, and what was there when the cache was opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prefixd_migrations::Row;

use crate::cache::PrefixCache;
use crate::disk::{Command, Queueing, Report, estimated_bytes};
use crate::ghosts::Left;
use crate::key::{BlockKey, Tenant};
use crate::policy::{BlockFacts, Usage};
use crate::tree::{DiskCopy, NodeFacts};

/// Recency goes to the index in batches: at least so many blocks, or after so long.
const TOUCH_BATCH: usize = 512;
const TOUCH_AFTER: Duration = Duration::from_secs(5);

impl PrefixCache {
    /// Puts every block on disk where it belongs: those whose chain is complete into the tree, the others aside.
    pub(super) fn take_rows(&mut self, mut rows: Vec<(BlockKey, Row)>) {
        rows.sort_by_key(|(_, row)| row.start);
        for (key, row) in rows {
            self.clock.at_least(row.last_use_us);
            self.take_row(key, row);
        }
    }

    fn take_row(&mut self, key: BlockKey, row: Row) {
        if !self.belongs(&row) {
            self.stray(key, row);
            return;
        }
        let facts = NodeFacts {
            parent: row.parent.map(BlockKey::from_bytes),
            tenant: Tenant::from_bytes(row.tenant),
            start: row.start as usize,
            tokens: Arc::from(&row.tokens[..]),
            bytes: row.allocated_bytes,
            usage: usage(&row),
        };
        let copy = self.disk.as_mut().map_or(0, crate::disk::DiskTier::next_copy);
        self.tree.add(key, facts);
        self.tree.set_disk(&key, DiskCopy::Stored { copy, bytes: row.allocated_bytes });
    }

    /// Whether a block's place in the tree is there.
    fn belongs(&self, row: &Row) -> bool {
        let block_tokens = self.options.block_tokens;
        row.fingerprint == *self.options.fingerprint.as_bytes()
            && (row.start as usize).is_multiple_of(block_tokens)
            && row.tokens.len() <= block_tokens
            && row.parent.is_none_or(|parent| {
                self.tree.get(&BlockKey::from_bytes(parent)).is_some_and(|node| {
                    node.tokens.len() == block_tokens
                        && node.start + block_tokens == row.start as usize
                        && *node.tenant.as_bytes() == row.tenant
                })
            })
    }

    fn stray(&mut self, key: BlockKey, row: Row) {
        let facts = BlockFacts {
            usage: usage(&row),
            start: row.start as usize,
            tokens: row.tokens.len(),
            bytes: row.allocated_bytes,
        };
        let score = self.tree.score(&facts);
        if let Some(disk) = &mut self.disk {
            disk.strays.insert(key, row, score, &self.options.fingerprint);
        }
    }

    /// A block came into the tree: what was waiting for it follows.
    pub(super) fn reunite(&mut self, parent: BlockKey) {
        let mut parents = vec![parent];
        while let Some(parent) = parents.pop() {
            let Some(disk) = &mut self.disk else { return };
            for key in disk.strays.waiting_for(&parent) {
                let Some(row) = self.disk.as_mut().and_then(|disk| disk.strays.remove(&key)) else {
                    continue;
                };
                self.take_row(key, row);
                if self.tree.get(&key).is_some() {
                    parents.push(key);
                }
            }
        }
    }

    /// Queues a block for disk, after those of its ancestors that are not there: a block without its parent is of no use
    /// after a restart.
    pub(super) fn persist(&mut self, key: &BlockKey) {
        if self.disk.is_none() {
            return;
        }
        let mut missing = Vec::new();
        let mut next = Some(*key);
        while let Some(key) = next {
            let Some(node) = self.tree.get(&key) else { break };
            let (DiskCopy::None, Some(block)) = (node.disk, &node.resident) else { break };
            missing.push((Arc::clone(block), node.usage));
            next = node.parent;
        }
        for (block, usage) in missing.into_iter().rev() {
            let key = block.key;
            // A copy that lay aside is written anew.
            if let Some(disk) = &mut self.disk {
                disk.strays.remove(&key);
            }
            let fits = self.make_disk_room(estimated_bytes(&block));
            let Some(disk) = &mut self.disk else { return };
            if !fits {
                disk.writes.dropped_blocks += 1;
                return;
            }
            match disk.queue(block, usage) {
                Queueing::Queued { copy } => self.tree.set_disk(&key, DiskCopy::Queued { copy }),
                Queueing::Full => return,
            }
        }
    }

    /// Takes what the service has to say.
    pub(super) fn take_reports(&mut self) {
        while let Some(report) = self.disk.as_ref().and_then(crate::disk::DiskTier::report) {
            self.take_report(report);
        }
    }

    fn take_report(&mut self, report: Report) {
        let Some(disk) = &mut self.disk else { return };
        match report {
            Report::Written { key, copy, queued_bytes, allocated_bytes } => {
                disk.unqueue(queued_bytes);
                disk.writes.written_blocks += 1;
                disk.writes.written_bytes += allocated_bytes;
                disk.degraded = None;
                disk.short_bytes = 0;
                if self.tree.get(&key).is_some_and(|node| node.disk == DiskCopy::Queued { copy }) {
                    self.tree.set_disk(&key, DiskCopy::Stored { copy, bytes: allocated_bytes });
                }
            }
            Report::Failed { key, copy, queued_bytes, reason, short_bytes } => {
                disk.unqueue(queued_bytes);
                disk.writes.failed_blocks += 1;
                disk.degraded = Some(reason);
                disk.short_bytes = short_bytes;
                if self.tree.get(&key).is_some_and(|node| node.disk == DiskCopy::Queued { copy }) {
                    disk.unwritten.insert(key);
                    self.tree.set_disk(&key, DiskCopy::None);
                    self.tree.prune(&key);
                }
            }
            Report::Stuck { bytes, reason } => {
                disk.other_bytes += bytes;
                disk.degraded = Some(reason);
            }
            Report::Quarantined { key, copy, bytes } => {
                disk.other_bytes += bytes;
                disk.quarantined += u64::from(bytes > 0);
                self.lose_copy(&key, copy, Left::Quarantined);
            }
            Report::Index { bytes } => disk.index_bytes = bytes,
            Report::Cleared { other_bytes } => disk.other_bytes = other_bytes,
        }
    }

    /// A copy on disk turned out to be of no use. Another copy, written since, is not meant.
    pub(super) fn lose_copy(&mut self, key: &BlockKey, copy: u64, why: Left) {
        let Some(node) = self.tree.get(key) else { return };
        if !matches!(node.disk, DiskCopy::Stored { copy: held, .. } if held == copy) {
            return;
        }
        let resident = node.resident.is_some();
        self.tree.set_disk(key, DiskCopy::None);
        if resident {
            self.persist(key);
        } else {
            self.ghosts.remember(*key, why);
            self.tree.prune(key);
        }
    }

    /// The file system failed on a copy that may be sound: it lies aside until it is written anew or evicted.
    pub(super) fn set_aside(&mut self, key: &BlockKey, copy: u64) {
        let Some(node) = self.tree.get(key) else { return };
        let DiskCopy::Stored { copy: held, bytes } = node.disk else { return };
        if held != copy {
            return;
        }
        let row = Row {
            fingerprint: *self.options.fingerprint.as_bytes(),
            tenant: *node.tenant.as_bytes(),
            parent: node.parent.map(|parent| *parent.as_bytes()),
            start: node.start as u64,
            file_bytes: 0,
            allocated_bytes: bytes,
            full_bytes: 0,
            last_use_us: node.usage.last_use_us,
            reuse: node.usage.reuse,
            hits: node.usage.hits,
            tokens: node.tokens.to_vec(),
        };
        self.tree.set_disk(key, DiskCopy::None);
        self.tree.prune(key);
        self.stray(*key, row);
    }

    /// Remembers that a block's recency is to reach the index.
    pub(super) fn note_use(&mut self, key: &BlockKey) {
        let stored = self.tree.get(key).is_some_and(|node| matches!(node.disk, DiskCopy::Stored { .. }));
        if stored && let Some(disk) = &mut self.disk {
            disk.touched.insert(*key);
        }
    }

    /// Sends recency to the index when there is enough of it, or it is old enough, or `now` says so.
    pub(super) fn send_uses(&mut self, when: Sending) {
        let Some(disk) = &mut self.disk else { return };
        let due = disk.touched.len() >= TOUCH_BATCH || disk.touches_sent.elapsed() >= TOUCH_AFTER;
        if disk.touched.is_empty() || (when == Sending::WhenDue && !due) {
            return;
        }
        disk.touches_sent = Instant::now();
        let uses: Vec<(BlockKey, Usage)> = disk
            .touched
            .drain()
            .filter_map(|key| {
                let node = self.tree.get(&key)?;
                matches!(node.disk, DiskCopy::Stored { .. }).then_some((key, node.usage))
            })
            .collect();
        disk.send(Command::Touch(uses));
    }
}

/// When to send recency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    WhenDue,
    Now,
}

fn usage(row: &Row) -> Usage {
    Usage { last_use_us: row.last_use_us, reuse: row.reuse, hits: row.hits }
}
