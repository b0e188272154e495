//! A store as a whole, in numbers.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Inspector, StoredBlock, WindowState};

/// A store as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreSummary {
    /// Its directory.
    pub dir: String,
    /// The process that uses it, when it is only read.
    pub used_by: Option<String>,
    /// Blocks.
    pub blocks: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Allocated bytes of blocks, window parts included.
    pub bytes: u64,
    /// Of these, bytes of window parts.
    pub window_bytes: u64,
    /// Blocks whose window part was dropped.
    pub dropped_windows: u64,
    /// Blocks that a pin keeps.
    pub pinned_blocks: u64,
    /// Blocks whose parent is not there: no lookup finds them.
    pub orphan_blocks: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Their allocated bytes.
    pub snapshot_bytes: u64,
    /// Snapshots that are pinned.
    pub pinned_snapshots: u64,
    /// Snapshots whose parent is not there: no lookup finds them.
    pub orphan_snapshots: u64,
    /// Tenants.
    pub tenants: u64,
    /// What computed the blocks and snapshots.
    pub fingerprints: Vec<FingerprintSummary>,
    /// Files in quarantine.
    pub quarantine_files: u64,
    /// Allocated bytes of those.
    pub quarantine_bytes: u64,
    /// Allocated bytes of everything else that is no block and no snapshot: lock, directories, files that are not ours.
    pub other_bytes: u64,
    /// Allocated bytes of the index.
    pub index_bytes: u64,
}

/// What of a store is of one fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FingerprintSummary {
    /// 64 hexadecimal digits.
    pub fingerprint: String,
    /// Blocks.
    pub blocks: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Allocated bytes of blocks.
    pub bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Allocated bytes of snapshots.
    pub snapshot_bytes: u64,
}

impl Inspector {
    /// The store as a whole.
    pub fn summary(&self) -> StoreSummary {
        let (blocks, snapshots) = (self.blocks(), self.snapshots());
        let mut fingerprints: BTreeMap<&str, FingerprintSummary> = BTreeMap::new();
        for block in &blocks {
            let entry = fingerprints.entry(&block.fingerprint).or_default();
            entry.blocks += 1;
            entry.tokens += block.tokens;
            entry.bytes += block.bytes;
        }
        for snapshot in &snapshots {
            let entry = fingerprints.entry(&snapshot.fingerprint).or_default();
            entry.snapshots += 1;
            entry.snapshot_bytes += snapshot.bytes;
        }
        let named = |(fingerprint, summary): (&str, FingerprintSummary)| FingerprintSummary {
            fingerprint: fingerprint.to_owned(),
            ..summary
        };
        let tenants: HashSet<_> = self.stored.values().map(|stored| stored.facts().tenant).collect();
        let count =
            |wanted: &dyn Fn(&StoredBlock) -> bool| blocks.iter().filter(|b| wanted(b)).count() as u64;
        StoreSummary {
            dir: self.directory.root().display().to_string(),
            used_by: self.used_by.clone(),
            blocks: blocks.len() as u64,
            tokens: blocks.iter().map(|block| block.tokens).sum(),
            bytes: blocks.iter().map(|block| block.bytes).sum(),
            window_bytes: blocks.iter().map(|block| block.window_bytes).sum(),
            dropped_windows: count(&|block| block.window == WindowState::Dropped),
            pinned_blocks: count(&|block| block.pinned),
            orphan_blocks: count(&|block| block.orphan),
            snapshots: snapshots.len() as u64,
            snapshot_bytes: snapshots.iter().map(|snapshot| snapshot.bytes).sum(),
            pinned_snapshots: snapshots.iter().filter(|snapshot| snapshot.pinned).count() as u64,
            orphan_snapshots: snapshots.iter().filter(|snapshot| snapshot.orphan).count() as u64,
            tenants: tenants.len() as u64,
            fingerprints: fingerprints.into_iter().map(named).collect(),
            quarantine_files: self.listing.quarantine_files,
            quarantine_bytes: self.listing.quarantine_bytes,
            other_bytes: self.listing.other_bytes - self.listing.quarantine_bytes,
            index_bytes: self.directory.index_bytes(),
        }
    }
}
