//! Between the tree and the disk: what goes out, and what comes back as done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::block::Block;
use crate::cache::PrefixCache;
use crate::cache::lower::Queueing;
use crate::ghosts::Left;
use crate::key::BlockKey;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tier::Event;
use crate::tree::{DiskCopy, DiskWindow};

/// Recency goes to the index in batches: at least so many blocks, or after so long.
const TOUCH_BATCH: usize = 512;
const TOUCH_AFTER: Duration = Duration::from_secs(5);

impl PrefixCache {
    /// Queues a block for disk, after those of its ancestors that are not there: a block without its parent is of no use
    /// after a restart.
    pub(super) fn persist(&mut self, key: &BlockKey) {
        // Without it every insert would walk to the root for nothing.
        if !self.lower.keeps() {
            return;
        }
        let mut missing = Vec::new();
        let mut next = Some(*key);
        while let Some(key) = next {
            let Some(node) = self.tree.get(&key) else { break };
            let (DiskCopy::None, Some(block)) = (node.disk, &node.resident) else { break };
            missing.push((Arc::clone(block), node.usage, node.keep));
            next = node.parent;
        }
        let keys: Vec<BlockKey> = missing.iter().rev().map(|(block, ..)| block.key).collect();
        for (at, (block, usage, keep)) in missing.into_iter().rev().enumerate() {
            // A copy that lay aside is written anew.
            self.orphans.remove(&block.key);
            match self.write(block, usage, keep) {
                Writing::Queued => {}
                Writing::Unwanted => return,
                // What stands on a block that waits for room waits as well: `flush` must know of it.
                Writing::Refused => {
                    self.lower.unwritten.extend(&keys[at..]);
                    return;
                }
            }
        }
    }

    /// Writes a block anew whose stored copy lost its window part, now that it is in RAM with it.
    pub(super) fn mend(&mut self, key: &BlockKey) {
        let Some(node) = self.tree.get(key) else { return };
        let lacks = matches!(node.disk, DiskCopy::Stored { window: DiskWindow::Dropped, .. });
        if let Some(block) = node.resident.clone().filter(|block| lacks && block.has_window_part()) {
            self.write(block, node.usage, node.keep);
        }
    }

    /// Queues a block, if the budgets allow it.
    fn write(&mut self, block: Arc<Block>, usage: Usage, keep: Keep) -> Writing {
        let key = block.key;
        let fits = self.make_disk_room(self.lower.tier.estimated_bytes(&block));
        let now_us = self.clock.now_us();
        if !fits {
            self.lower.writes.dropped_blocks += 1;
            return Writing::Unwanted;
        }
        match self.lower.queue(block, usage, keep, now_us) {
            Queueing::Queued { copy } => {
                self.tree.set_disk(&key, DiskCopy::Queued { copy });
                Writing::Queued
            }
            Queueing::Full => Writing::Refused,
            Queueing::OverDaily => Writing::Unwanted,
        }
    }

    /// Takes what the tier below has to say.
    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.lower.tier.event() {
            self.take_event(event);
        }
    }

    fn take_event(&mut self, event: Event) {
        let lower = &mut self.lower;
        match event {
            Event::Written { key, copy, queued_bytes, allocated_bytes, window } => {
                lower.unqueue(queued_bytes);
                lower.writes.written_blocks += 1;
                lower.writes.written_bytes += allocated_bytes;
                lower.degraded = None;
                lower.short_bytes = 0;
                if self.snapshots.get(&key).is_some() {
                    return self.note_written_snapshot(&key, copy, allocated_bytes);
                }
                if self.tree.get(&key).is_some_and(|node| node.disk == DiskCopy::Queued { copy }) {
                    self.tree.set_disk(&key, DiskCopy::Stored { copy, bytes: allocated_bytes, window });
                }
            }
            Event::Failed { key, copy, queued_bytes, reason, short_bytes } => {
                lower.unqueue(queued_bytes);
                lower.writes.failed_blocks += 1;
                lower.degraded = Some(reason);
                lower.short_bytes = short_bytes;
                if self.snapshots.get(&key).is_some() {
                    return self.lose_snapshot(&key, copy);
                }
                if self.tree.get(&key).is_some_and(|node| node.disk == DiskCopy::Queued { copy }) {
                    lower.unwritten.insert(key);
                    self.tree.set_disk(&key, DiskCopy::None);
                    self.tree.prune(&key);
                }
            }
            Event::Stuck { bytes, reason } => {
                lower.other_bytes += bytes;
                lower.degraded = Some(reason);
            }
            Event::Quarantined { key, copy, bytes } => {
                lower.other_bytes += bytes;
                lower.quarantined += u64::from(bytes > 0);
                if self.snapshots.get(&key).is_some() {
                    return self.lose_snapshot(&key, copy);
                }
                self.lose_copy(&key, copy, Left::Quarantined);
            }
            Event::Index { bytes } => lower.index_bytes = bytes,
            Event::Cleared { other_bytes } => lower.other_bytes = other_bytes,
        }
    }

    /// Remembers that a block's or snapshot's recency is to reach the index.
    pub(super) fn note_use(&mut self, key: &BlockKey) {
        let copy = self.tree.get(key).map(|node| node.disk);
        let copy = copy.or_else(|| self.snapshots.get(key).map(|record| record.disk));
        let on_disk = copy.is_some_and(|copy| copy != DiskCopy::None);
        if on_disk {
            self.lower.touched.insert(*key);
        }
    }

    /// Sends recency to the index when there is enough of it, or it is old enough, or `now` says so.
    pub(super) fn send_uses(&mut self, when: Sending) {
        let lower = &mut self.lower;
        let due = lower.touched.len() >= TOUCH_BATCH || lower.touches_sent.elapsed() >= TOUCH_AFTER;
        if lower.touched.is_empty() || (when == Sending::WhenDue && !due) {
            return;
        }
        lower.touches_sent = Instant::now();
        // Those being written have had their row made already: they follow, in the order of commands.
        let uses: Vec<(BlockKey, Usage, Keep)> = lower
            .touched
            .drain()
            .filter_map(|key| {
                if let Some(record) = self.snapshots.get(&key) {
                    let usage = Usage { last_use_us: record.last_use_us, ..Usage::default() };
                    let keep = Keep { pinned_until_us: record.pinned_until_us, ..Keep::default() };
                    return (record.disk != DiskCopy::None).then_some((key, usage, keep));
                }
                let node = self.tree.get(&key)?;
                (node.disk != DiskCopy::None).then_some((key, node.usage, node.keep))
            })
            .collect();
        lower.tier.touch(uses);
    }
}

/// What became of a block that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Queued,
    /// The queue is full, or the disk fails: tried again later.
    Refused,
    /// No budget has room for it: it stays in RAM.
    Unwanted,
}

/// When to send recency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    WhenDue,
    Now,
}
