//! Waiting for the disk: at shutdown, and where durability has to be known.

use std::time::Instant;

use crate::cache::PrefixCache;
use crate::cache::persist::Sending;
use crate::stats::FlushOutcome;

impl PrefixCache {
    /// Waits until everything that should be on disk is durable, at most until `deadline`. Blocks that the queue or the
    /// disk refused are tried once more, and snapshots that wait for their time are written now. Blocks the caller.
    pub fn flush(&mut self, deadline: Instant) -> FlushOutcome {
        if !self.lower.keeps() {
            return FlushOutcome::NoDisk;
        }
        self.send_uses(Sending::Now);
        loop {
            let tried = self.queue_unwritten() + self.write_all_snapshots();
            if !self.wait(deadline) {
                return FlushOutcome::Late { blocks: self.lower.writes.queued_blocks + self.unwritten() };
            }
            let left = self.unwritten();
            if left == 0 {
                return FlushOutcome::Durable;
            }
            // What a sound disk refused only because the queue was full goes in the next round.
            if let Some(reason) = &self.lower.degraded {
                return FlushOutcome::Incomplete { blocks: left, reason: reason.clone() };
            }
            if left >= tried {
                let reason = "no room in the write queue or the disk budget".into();
                return FlushOutcome::Incomplete { blocks: left, reason };
            }
        }
    }

    /// Blocks and snapshots that should be on disk and are not on their way.
    fn unwritten(&self) -> u64 {
        (self.lower.unwritten.len() + self.snapshots.all_due().len()) as u64
    }

    /// Queues what the disk has refused so far, parents first. Returns how many there were.
    fn queue_unwritten(&mut self) -> u64 {
        let tree = &self.tree;
        self.lower.unwritten.retain(|key| tree.get(key).is_some_and(|node| node.resident.is_some()));
        let mut keys: Vec<_> = self.lower.unwritten.iter().copied().collect();
        keys.sort_by_key(|key| tree.get(key).map_or(0, |node| node.start));
        for key in &keys {
            self.persist(key);
        }
        keys.len() as u64
    }

    /// Waits for the commands sent so far. False when the deadline comes first.
    pub(super) fn wait(&mut self, deadline: Instant) -> bool {
        let done = self.lower.tier.barrier().recv_deadline(deadline).is_ok();
        self.take_events();
        done
    }
}
