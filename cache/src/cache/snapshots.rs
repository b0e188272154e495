//! Snapshots: taken in, and found at the end of a chain.
//!
//! A lookup of a model that needs them ends at the deepest snapshot that the chain leads to; what of the chain lies behind it is
//! of no use.

use std::sync::Arc;

use crate::block::Block;
use crate::cache::{Lease, PrefixCache};
use crate::key::{BlockKey, Tenant};
use crate::lookup::{Hit, Lookup, Miss, SnapshotHit};
use crate::payload::{Part, Payload};
use crate::snapshot::{Record, SnapshotKind};
use crate::tree::DiskCopy;

impl PrefixCache {
    /// Whether the snapshot after the lease's chain and `tokens` is known already; then nothing needs exporting, and this is
    /// a use of it.
    pub fn has_snapshot(&mut self, lease: &Lease, tokens: &[u32], kind: SnapshotKind) -> bool {
        let key = self.snapshot_key(lease, tokens);
        let now_us = self.clock.now_us();
        if self.snapshots.get(&key).is_none_or(|record| record.tier(now_us).is_none()) {
            return false;
        }
        self.renew_snapshot(&key, kind);
        self.supersede_snapshots(lease, tokens, kind);
        true
    }

    /// Adds the snapshot after the lease's chain and `tokens`, fewer than a block's: what the recurrent layers hold there.
    /// The next lookup finds it.
    pub fn insert_snapshot(&mut self, lease: &Lease, tokens: &[u32], payload: Payload, kind: SnapshotKind) {
        let end = lease.tokens() + tokens.len();
        if end == 0 || tokens.len() >= self.options.block_tokens || payload.tensors.is_empty() {
            return;
        }
        let mut payload = payload;
        payload.tensors.iter_mut().for_each(|tensor| tensor.part = Part::State);
        let (key, parent, tenant) = (self.snapshot_key(lease, tokens), lease.end(), lease.tenant());
        let block =
            Arc::new(Block { key, parent, tenant, start: lease.tokens(), tokens: tokens.to_vec(), payload });
        if self.snapshots.get(&key).is_some() {
            self.snapshots.change(&key, |record| {
                record.resident.get_or_insert(block);
            });
        } else {
            let chain = parent.unwrap_or_else(|| BlockKey::root(&self.options.fingerprint, &tenant));
            let record = Record {
                parent,
                tenant,
                start: block.start,
                tokens: Arc::from(tokens),
                kind: Some(kind),
                bytes: block.bytes(),
                last_use_us: 0,
                pinned_until_us: 0,
                live: true,
                resident: Some(block),
                disk: DiskCopy::None,
                due_us: None,
                unreadable_until_us: 0,
                chain,
            };
            self.snapshots.add(key, record);
            self.counters.snapshots_taken += 1;
        }
        self.take_events();
        self.renew_snapshot(&key, kind);
        self.supersede_snapshots(lease, tokens, kind);
        self.evict_resident();
    }

    fn snapshot_key(&self, lease: &Lease, tokens: &[u32]) -> BlockKey {
        let fingerprint = &self.options.fingerprint;
        BlockKey::snapshot(fingerprint, &lease.tenant(), lease.end().as_ref(), lease.tokens(), tokens)
    }

    /// One more use of a snapshot that a sequence has just passed.
    fn renew_snapshot(&mut self, key: &BlockKey, kind: SnapshotKind) {
        let (now_us, due_us) = (self.clock.tick(), self.snapshot_due_us());
        self.snapshots.change(key, |record| {
            record.live = true;
            record.last_use_us = now_us;
            record.kind = Some(record.kind.map_or(kind, |known| known.min(kind)));
            record.due_us = due_us.filter(|_| record.disk == DiskCopy::None);
        });
        self.note_use(key);
        if kind == SnapshotKind::Anchor {
            self.persist_snapshot(key);
        }
    }

    /// When what is wanted on disk and may wait is written; `None` without a disk.
    pub(super) fn snapshot_due_us(&self) -> Option<u64> {
        self.lower.keeps().then(|| self.clock.now_us().saturating_add(self.snapshot_idle_us))
    }

    /// Older ones of the kind that the lease's chain leads past are not needed on disk any more, and leave first.
    fn supersede_snapshots(&mut self, lease: &Lease, tokens: &[u32], kind: SnapshotKind) {
        if !kind.is_superseded() {
            return;
        }
        let end = lease.tokens() + tokens.len();
        let root = BlockKey::root(&self.options.fingerprint, &lease.tenant());
        let mut older = Vec::new();
        for depth in 0..=lease.chain().len() {
            let chain = depth.checked_sub(1).map_or(&root, |at| &lease.chain()[at]);
            let next = lease.chain().get(depth).and_then(|key| self.tree.get(key));
            let rest = next.map_or(tokens, |node| &node.tokens);
            let along = self.snapshots.along(chain, rest);
            let same = along.filter(|(_, record)| record.kind == Some(kind) && record.end() < end);
            older.extend(same.map(|(key, _)| key));
        }
        for key in older {
            self.snapshots.change(&key, |record| {
                record.live = false;
                record.due_us = None;
            });
        }
    }

    /// The deepest snapshot after at most `most` tokens of `prompt` that a chain of its whole blocks leads to.
    pub(super) fn deepest_snapshot(
        &self,
        tenant: &Tenant,
        prompt: &[u32],
        chain: &[BlockKey],
        most: usize,
    ) -> Option<(usize, SnapshotHit)> {
        let (now_us, block_tokens) = (self.clock.now_us(), self.options.block_tokens);
        let root = BlockKey::root(&self.options.fingerprint, tenant);
        let most = most.min(prompt.len());
        (0..=chain.len().min(most / block_tokens)).rev().find_map(|depth| {
            let behind = depth.checked_sub(1).map_or(&root, |at| &chain[at]);
            let found = self.snapshots.along(behind, &prompt[depth * block_tokens..most]);
            let usable = found.filter_map(|(key, record)| {
                Some((record.end(), SnapshotHit { key, tier: record.tier(now_us)? }))
            });
            usable.max_by_key(|(end, _)| *end)
        })
    }

    /// Shortens what was found to the deepest point that has a snapshot, and can be restored otherwise.
    pub(super) fn cut_to_snapshot(&self, tenant: &Tenant, prompt: &[u32], mut lookup: Lookup) -> Lookup {
        let chain = self.whole_blocks(&lookup);
        let known = lookup.tokens;
        let mut most = known;
        let found = loop {
            let Some((end, hit)) = self.deepest_snapshot(tenant, prompt, &chain, most) else { break None };
            let mut hits = lookup.hits.clone();
            hits.retain(|hit| hit.start < end);
            if let Some(last) = hits.last_mut() {
                last.used_tokens = last.used_tokens.min(end - last.start);
            }
            most = self.cut_to_complete(&mut hits, end, lookup.miss).0;
            if most == end {
                break Some((end, hit, hits));
            }
        };
        (lookup.tokens, lookup.hits, lookup.snapshot) = match found {
            Some((end, hit, hits)) => (end, hits, Some(hit)),
            None => (0, Vec::new(), None),
        };
        let lost = known - lookup.tokens;
        lookup.no_state_tokens = lost;
        if lost >= self.options.block_tokens || (lost > 0 && lookup.miss == Miss::Nothing) {
            lookup.miss = Miss::NoState { at: lookup.tokens };
        }
        lookup
    }

    /// The blocks of a lookup that are used whole: the chain that snapshots stand behind.
    pub(super) fn whole_blocks(&self, lookup: &Lookup) -> Vec<BlockKey> {
        let whole = |hit: &&Hit| hit.used_tokens == self.options.block_tokens;
        lookup.hits.iter().take_while(whole).map(|hit| hit.key).collect()
    }

    /// A use of every snapshot of the chain that nothing has taken the place of: the conversation that it belongs to lives.
    pub(super) fn use_snapshots(
        &mut self,
        tenant: &Tenant,
        prompt: &[u32],
        chain: &[BlockKey],
        hit: Option<SnapshotHit>,
    ) {
        let (now_us, due_us) = (self.clock.tick(), self.snapshot_due_us());
        let root = BlockKey::root(&self.options.fingerprint, tenant);
        let mut used = Vec::new();
        if let Some(SnapshotHit { key, .. }) = hit {
            // Whatever took its place: somebody goes on from here.
            self.snapshots.change(&key, |record| {
                record.live = true;
                record.due_us = due_us.filter(|_| record.disk == DiskCopy::None);
            });
            used.push(key);
        }
        for depth in 0..=chain.len() {
            let behind = depth.checked_sub(1).map_or(&root, |at| &chain[at]);
            let rest = prompt.get(depth * self.options.block_tokens..).unwrap_or_default();
            let live = self.snapshots.along(behind, rest).filter(|(_, record)| record.live);
            used.extend(live.map(|(key, _)| key));
        }
        for key in used {
            self.snapshots.change(&key, |record| {
                record.last_use_us = now_us;
                record.due_us = record.due_us.and(due_us);
            });
            self.note_use(&key);
        }
    }
}
