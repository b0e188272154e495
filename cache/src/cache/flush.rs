//! Waiting for the disk: at shutdown, and where durability has to be known.

use std::time::Instant;

use crossbeam_channel::bounded;

use crate::cache::PrefixCache;
use crate::cache::persist::Sending;
use crate::disk::Command;
use crate::stats::FlushOutcome;

impl PrefixCache {
    /// Waits until everything that should be on disk is durable, at most until `deadline`. Blocks that the queue or the
    /// disk refused are tried once more, and snapshots that wait for their time are written now. Blocks the caller.
    pub fn flush(&mut self, deadline: Instant) -> FlushOutcome {
        if self.disk.is_none() {
            return FlushOutcome::NoDisk;
        }
        self.send_uses(Sending::Now);
        loop {
            let tried = self.queue_unwritten() + self.write_all_snapshots();
            if !self.wait(deadline) {
                let blocks = self
                    .disk
                    .as_ref()
                    .map_or(0, |disk| disk.writes.queued_blocks + disk.unwritten.len() as u64)
                    + self.snapshots.all_due().len() as u64;
                return FlushOutcome::Late { blocks };
            }
            let Some(disk) = &self.disk else { return FlushOutcome::NoDisk };
            let left = (disk.unwritten.len() + self.snapshots.all_due().len()) as u64;
            if left == 0 {
                return FlushOutcome::Durable;
            }
            // What a sound disk refused only because the queue was full goes in the next round.
            if let Some(reason) = &disk.degraded {
                return FlushOutcome::Incomplete { blocks: left, reason: reason.clone() };
            }
            if left >= tried {
                let reason = "no room in the write queue or the disk budget".into();
                return FlushOutcome::Incomplete { blocks: left, reason };
            }
        }
    }

    /// Queues what the disk has refused so far, parents first. Returns how many there were.
    fn queue_unwritten(&mut self) -> u64 {
        let Some(disk) = &mut self.disk else { return 0 };
        let tree = &self.tree;
        disk.unwritten.retain(|key| tree.get(key).is_some_and(|node| node.resident.is_some()));
        let mut keys: Vec<_> = disk.unwritten.iter().copied().collect();
        keys.sort_by_key(|key| tree.get(key).map_or(0, |node| node.start));
        for key in &keys {
            self.persist(key);
        }
        keys.len() as u64
    }

    /// Waits for the commands sent so far. False when the deadline comes first.
    pub(super) fn wait(&mut self, deadline: Instant) -> bool {
        let (reached, wait) = bounded(1);
        if let Some(disk) = &self.disk {
            disk.send(Command::Barrier(reached));
        }
        let done = wait.recv_deadline(deadline).is_ok();
        self.take_reports();
        done
    }
}
