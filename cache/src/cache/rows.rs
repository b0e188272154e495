//! Blocks that are on disk and not written by this process: found at start, waiting for a parent, or lost and found.

use std::sync::Arc;
use std::time::Instant;

use prefixd_migrations::{Row, SnapshotRow};

use crate::cache::PrefixCache;
use crate::ghosts::Left;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::policy::{BlockFacts, Usage};
use crate::retention::Keep;
use crate::snapshot::Record;
use crate::tree::{DiskCopy, DiskWindow, NodeFacts};

impl PrefixCache {
    /// Puts every block on disk where it belongs: those whose chain is complete into the tree, whatever computed them, the
    /// others aside.
    pub(super) fn take_rows(&mut self, mut rows: Vec<(BlockKey, Row)>) {
        rows.sort_by_key(|(_, row)| row.start);
        for (key, row) in rows {
            self.clock.at_least(row.last_use_us);
            self.take_row(key, row);
        }
    }

    fn take_row(&mut self, key: BlockKey, row: Row) {
        if !self.belongs(&row) {
            self.put_aside(key, row);
            return;
        }
        let facts = NodeFacts {
            fingerprint: Fingerprint::from_bytes(row.fingerprint),
            parent: row.parent.map(BlockKey::from_bytes),
            tenant: Tenant::from_bytes(row.tenant),
            start: row.start as usize,
            tokens: Arc::from(&row.tokens[..]),
            bytes: row.all_bytes(),
            usage: usage(&row),
            keep: Keep::of(&row),
        };
        let copy = self.lower.next_copy();
        self.tree.add(key, facts);
        self.tree
            .set_disk(&key, DiskCopy::Stored { copy, bytes: row.all_bytes(), window: row.window.into() });
    }

    /// Puts every snapshot on disk behind the chain that it names. Those whose blocks are not here leave first, whatever
    /// computed them.
    pub(super) fn take_snapshot_rows(&mut self, rows: Vec<(BlockKey, SnapshotRow)>) {
        for (key, row) in rows {
            self.clock.at_least(row.last_use_us);
            let copy = self.lower.next_copy();
            let (parent, tenant) = (row.parent.map(BlockKey::from_bytes), Tenant::from_bytes(row.tenant));
            let chain =
                parent.unwrap_or_else(|| BlockKey::root(&Fingerprint::from_bytes(row.fingerprint), &tenant));
            let bytes = row.allocated_bytes;
            let record = Record {
                parent,
                tenant,
                start: row.start as usize,
                tokens: Arc::from(&row.tokens[..]),
                kind: None,
                bytes,
                last_use_us: row.last_use_us,
                pinned_until_us: row.pinned_until_us,
                live: parent.is_none_or(|parent| self.tree.get(&parent).is_some()),
                resident: None,
                disk: DiskCopy::Stored { copy, bytes, window: DiskWindow::Inseparable },
                due_us: None,
                unreadable_until_us: 0,
                chain,
            };
            self.snapshots.add(key, record);
        }
    }

    /// Whether a block's place in the tree is there.
    fn belongs(&self, row: &Row) -> bool {
        let block_tokens = self.options.block_tokens;
        let ours = row.fingerprint == *self.options.fingerprint.as_bytes();
        let fits = (row.start as usize).is_multiple_of(block_tokens) && row.tokens.len() <= block_tokens;
        let follows = row.parent.is_none_or(|parent| {
            self.tree.get(&BlockKey::from_bytes(parent)).is_some_and(|node| {
                (!ours || node.tokens.len() == block_tokens)
                    && node.start + node.tokens.len() == row.start as usize
                    && *node.tenant.as_bytes() == row.tenant
                    && *node.fingerprint.as_bytes() == row.fingerprint
            })
        });
        // How long the blocks of others are is theirs to say.
        follows && (!ours || fits)
    }

    pub(super) fn put_aside(&mut self, key: BlockKey, row: Row) {
        let facts = BlockFacts {
            usage: usage(&row),
            start: row.start as usize,
            tokens: row.tokens.len(),
            bytes: row.all_bytes(),
        };
        let keep = Keep::of(&row);
        let worth = (!keep.is_pinned(self.clock.now_us())).then(|| self.tree.worth(&facts, &keep));
        self.orphans.insert(key, row, worth);
    }

    /// A block came into the tree: what was waiting for it follows.
    pub(super) fn reunite(&mut self, parent: BlockKey) {
        let mut parents = vec![parent];
        while let Some(parent) = parents.pop() {
            for key in self.orphans.waiting_for(&parent) {
                let Some(row) = self.orphans.remove(&key) else { continue };
                self.take_row(key, row);
                if self.tree.get(&key).is_some() {
                    parents.push(key);
                }
            }
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
        let DiskCopy::Stored { copy: held, bytes, window } = node.disk else { return };
        if held != copy {
            return;
        }
        let row = Row {
            fingerprint: *self.options.fingerprint.as_bytes(),
            tenant: *node.tenant.as_bytes(),
            parent: node.parent.map(|parent| *parent.as_bytes()),
            start: node.start as u64,
            file_bytes: 0,
            allocated_bytes: bytes - window.bytes(),
            last_use_us: node.usage.last_use_us,
            reuse: node.usage.reuse,
            hits: node.usage.hits,
            window: window.into(),
            priority: node.keep.priority,
            pinned_until_us: node.keep.pinned_until_us,
            ttl_us: node.keep.ttl_us,
            tokens: node.tokens.to_vec(),
        };
        self.tree.set_disk(key, DiskCopy::None);
        self.tree.prune(key);
        self.put_aside(*key, row);
        if self.lower.aside.is_empty() {
            self.lower.aside_since = Instant::now();
        }
        self.lower.aside.push(*key);
    }

    /// Gives up reads that stall, and takes blocks that could not be read back after a while.
    pub(super) fn look_after_reads(&mut self) {
        let lower = &mut self.lower;
        if lower.tier.is_stuck() {
            lower.unreadable = Some("the cache's disk does not answer reads".into());
            lower.aside_since = Instant::now();
            return;
        }
        if lower.unreadable.is_none() || lower.aside_since.elapsed() < self.read_retry {
            return;
        }
        lower.unreadable = None;
        let mut rows: Vec<(BlockKey, Row)> = std::mem::take(&mut lower.aside)
            .into_iter()
            .filter_map(|key| self.orphans.remove(&key).map(|row| (key, row)))
            .collect();
        rows.sort_by_key(|(_, row)| row.start);
        for (key, row) in rows {
            self.take_row(key, row);
            if self.tree.get(&key).is_some() {
                self.reunite(key);
            }
        }
    }
}

fn usage(row: &Row) -> Usage {
    Usage { last_use_us: row.last_use_us, reuse: row.reuse, hits: row.hits }
}
