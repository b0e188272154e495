//! Bringing the blocks of a lookup into RAM.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::PrefixCache;
use crate::error::ReadError;
use crate::ghosts::Left;
use crate::lookup::{Hit, Lookup, SnapshotHit, Tier};
use crate::restored::Restored;
use crate::tier::{Expected, Item, Kind, Source};
use crate::tree::{DiskCopy, DiskWindow};

impl PrefixCache {
    /// Brings the blocks of `lookup`, and its snapshot, into RAM and hands them to `done`, once: inline when all are resident, else from a
    /// reader thread. Never blocks. Of blocks that end at or before `window_from` only the full part is read.
    pub fn restore(&mut self, lookup: &Lookup, window_from: usize, done: Box<dyn FnOnce(Restored) + Send>) {
        let begun = Instant::now();
        let snapshot = lookup.snapshot.iter().map(|hit| self.snapshot_item(hit, lookup.tokens));
        let blocks = lookup.hits.iter().map(|hit| Item {
            hit: *hit,
            kind: Kind::Block,
            source: self.source(hit, window_from),
        });
        let items: Vec<Item> = snapshot.chain(blocks).collect();
        self.lower.tier.load(items, begun, done);
    }

    fn source(&self, hit: &Hit, window_from: usize) -> Source {
        let Some(node) = self.tree.get(&hit.key) else { return Source::Nowhere };
        match (&node.resident, node.disk) {
            (Some(block), _) => Source::Resident(Arc::clone(block)),
            // A lookup does not lead here unless the caller's window is wider than the cache was told.
            (None, DiskCopy::Stored { window: DiskWindow::Dropped, .. })
                if node.start + node.tokens.len() > window_from =>
            {
                Source::Nowhere
            }
            (None, DiskCopy::Stored { copy, .. }) => Source::Below {
                expected: Box::new(Expected {
                    key: hit.key,
                    fingerprint: self.options.fingerprint,
                    tenant: node.tenant,
                    parent: node.parent,
                    start: node.start,
                    tokens: Arc::clone(&node.tokens),
                }),
                copy,
                with_window: node.start + node.tokens.len() > window_from,
            },
            (None, DiskCopy::None | DiskCopy::Queued { .. }) => Source::Nowhere,
        }
    }

    fn snapshot_item(&self, hit: &SnapshotHit, end: usize) -> Item {
        let record = self.snapshots.get(&hit.key);
        let source = record.map_or(Source::Nowhere, |record| match (&record.resident, record.disk) {
            (Some(block), _) => Source::Resident(Arc::clone(block)),
            (None, DiskCopy::Stored { copy, .. }) => Source::Below {
                expected: Box::new(Expected {
                    key: hit.key,
                    fingerprint: self.options.fingerprint,
                    tenant: record.tenant,
                    parent: record.parent,
                    start: record.start,
                    tokens: Arc::clone(&record.tokens),
                }),
                copy,
                with_window: false,
            },
            (None, _) => Source::Nowhere,
        });
        // It holds no tokens of its own: those before it are the blocks'.
        let hit = Hit { key: hit.key, start: end, block_tokens: 0, used_tokens: 0, tier: hit.tier };
        Item { hit, kind: Kind::Snapshot, source }
    }

    /// Takes in what a restore brought: complete blocks from disk become resident, copies that could not be used are
    /// forgotten. Call it on receipt, whether or not the sequence still lives.
    pub fn absorb(&mut self, restored: &Restored) {
        self.take_events();
        for brought in restored.blocks.iter().filter(|brought| brought.tier == Tier::Disk) {
            let key = brought.block.key;
            let wanted = self.tree.get(&key).is_some_and(|node| node.resident.is_none());
            if wanted && brought.has_window {
                self.tree.set_resident(&key, Some(Arc::clone(&brought.block)));
            }
        }
        if let Some(block) = restored.snapshot.clone() {
            self.snapshots.change(&block.key.clone(), |record| {
                record.resident.get_or_insert(block);
            });
        }
        for failed in &restored.failures {
            if self.snapshots.get(&failed.key).is_some() {
                match failed.error {
                    ReadError::Io(_) => self.leave_snapshot_alone(&failed.key),
                    _ => self.lose_snapshot(&failed.key, failed.copy),
                }
                continue;
            }
            match failed.error {
                ReadError::Gone => self.lose_copy(&failed.key, failed.copy, Left::Evicted),
                ReadError::Io(_) => self.set_aside(&failed.key, failed.copy),
                _ => self.lose_copy(&failed.key, failed.copy, Left::Quarantined),
            }
        }
        let lower = &mut self.lower;
        lower.read_bytes += restored.read_bytes;
        let refused = restored.failures.iter().find(|failed| matches!(failed.error, ReadError::Io(_)));
        if let Some(failed) = refused {
            lower.unreadable = Some(failed.error.to_string());
        }
        for failed in &restored.failures {
            *match failed.error {
                ReadError::Gone => &mut lower.read_failures.gone,
                ReadError::Io(_) => &mut lower.read_failures.io,
                _ => &mut lower.read_failures.damaged,
            } += 1;
        }
        self.evict_resident();
    }
}
