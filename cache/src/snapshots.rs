//! Every known snapshot, by the chain of whole blocks that it stands behind.
//!
//! 1. A snapshot is found by its tokens: its chain's key says those up to the last whole block's end, and those behind it are
//!    compared. The prefix tree may change as it likes; no snapshot moves.
//! 2. Snapshots of other fingerprints are here too: no chain leads to them, and they make room like others.
//! 3. The rank sets hold exactly what may leave. A record without a copy is gone.
//!
//! One thread owns it; no I/O happens here.

use std::collections::{BTreeSet, HashMap};

use crate::key::BlockKey;
use crate::snapshot::{Rank, Record};
use crate::stats::TierStats;
use crate::tree::{DiskCopy, Pinned, Pins};

#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    records: HashMap<BlockKey, Record>,
    behind: HashMap<BlockKey, Vec<BlockKey>>,
    resident_ranks: BTreeSet<Rank>,
    disk_ranks: BTreeSet<Rank>,
    /// Those that are to be written, and when.
    due: BTreeSet<(u64, BlockKey)>,
    pins: Pins,
    resident: TierStats,
    disk: TierStats,
    /// Bytes in RAM of those that are being written.
    queued_bytes: u64,
}

impl Snapshots {
    pub fn get(&self, key: &BlockKey) -> Option<&Record> {
        self.records.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&BlockKey, &Record)> {
        self.records.iter()
    }

    pub fn resident_stats(&self) -> TierStats {
        self.resident
    }

    pub fn disk_stats(&self) -> TierStats {
        self.disk
    }

    /// Bytes in RAM of those that are being written.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Those that stand behind this chain of whole blocks.
    pub fn behind(&self, chain: &BlockKey) -> Vec<BlockKey> {
        self.behind.get(chain).cloned().unwrap_or_default()
    }

    /// Of those behind a chain, the ones whose tokens `rest` begins with.
    pub fn along<'a>(
        &'a self,
        chain: &BlockKey,
        rest: &'a [u32],
    ) -> impl Iterator<Item = (BlockKey, &'a Record)> {
        let keys = self.behind.get(chain).into_iter().flatten();
        keys.filter_map(|key| self.records.get(key).map(|record| (*key, record)))
            .filter(|(_, record)| rest.starts_with(&record.tokens))
    }

    /// Adds one, unless it is there.
    pub fn add(&mut self, key: BlockKey, record: Record) {
        if !self.records.contains_key(&key) {
            self.behind.entry(record.chain).or_default().push(key);
            self.put(key, record);
        }
    }

    /// Changes one, with all that is counted and sorted of it. One that has no copy afterwards is gone.
    pub fn change(&mut self, key: &BlockKey, change: impl FnOnce(&mut Record)) {
        let Some(mut record) = self.records.remove(key) else { return };
        self.uncount(key, &record);
        change(&mut record);
        self.put(*key, record);
    }

    fn put(&mut self, key: BlockKey, record: Record) {
        if record.resident.is_none() && record.disk == DiskCopy::None {
            if let Some(others) = self.behind.get_mut(&record.chain) {
                others.retain(|other| *other != key);
                if others.is_empty() {
                    self.behind.remove(&record.chain);
                }
            }
            return;
        }
        self.resident_ranks.extend(record.resident_rank(key));
        self.disk_ranks.extend(record.disk_rank(key));
        self.due.extend(record.due_us.map(|due_us| (due_us, key)));
        if let Some(pin) = pinned(key, &record) {
            self.pins.insert(&pin);
        }
        for (tier, bytes) in
            [(&mut self.resident, resident_bytes(&record)), (&mut self.disk, disk_bytes(&record))]
        {
            if let Some(bytes) = bytes {
                tier.blocks += 1;
                tier.bytes += bytes;
            }
        }
        self.queued_bytes += queued_bytes(&record);
        self.records.insert(key, record);
    }

    fn uncount(&mut self, key: &BlockKey, record: &Record) {
        if let Some(rank) = record.resident_rank(*key) {
            self.resident_ranks.remove(&rank);
        }
        if let Some(rank) = record.disk_rank(*key) {
            self.disk_ranks.remove(&rank);
        }
        if let Some(due_us) = record.due_us {
            self.due.remove(&(due_us, *key));
        }
        if let Some(pin) = pinned(*key, record) {
            self.pins.remove(&pin);
        }
        for (tier, bytes) in
            [(&mut self.resident, resident_bytes(record)), (&mut self.disk, disk_bytes(record))]
        {
            if let Some(bytes) = bytes {
                tier.blocks -= 1;
                tier.bytes -= bytes;
            }
        }
        self.queued_bytes -= queued_bytes(record);
    }

    /// The copy in RAM to drop next, if any may be dropped.
    pub fn coldest_resident(&self) -> Option<BlockKey> {
        self.resident_ranks.first().map(|rank| rank.key)
    }

    /// The copy on disk to drop next, if any may be dropped.
    pub fn coldest_disk(&self) -> Option<BlockKey> {
        self.disk_ranks.first().map(|rank| rank.key)
    }

    /// The one to be written next, if its time has come.
    pub fn next_due(&self, now_us: u64) -> Option<BlockKey> {
        self.due.first().filter(|(due_us, _)| *due_us <= now_us).map(|(_, key)| *key)
    }

    /// All that are to be written.
    pub fn all_due(&self) -> Vec<BlockKey> {
        self.due.iter().map(|(_, key)| *key).collect()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn pinned(key: BlockKey, record: &Record) -> Option<Pinned> {
    record.is_pinned().then(|| Pinned {
        key,
        account: record.tenant.account(),
        start: record.end(),
        bytes: record.bytes,
        until_us: record.pinned_until_us,
    })
}

fn resident_bytes(record: &Record) -> Option<u64> {
    record.resident.as_ref().map(|block| block.bytes())
}

fn queued_bytes(record: &Record) -> u64 {
    let queued = matches!(record.disk, DiskCopy::Queued { .. });
    resident_bytes(record).filter(|_| queued).unwrap_or_default()
}

fn disk_bytes(record: &Record) -> Option<u64> {
    match record.disk {
        DiskCopy::Stored { bytes, .. } => Some(bytes),
        DiskCopy::None | DiskCopy::Queued { .. } => None,
    }
}
