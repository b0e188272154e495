//! Blocks on disk that no lookup can find now: computed under another fingerprint, or waiting for a lost parent.
//! They count to the budget, take part in eviction, and one whose parent comes back returns to the tree.

use std::collections::{BTreeSet, HashMap, HashSet};

use prefixd_migrations::Row;

use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::policy::Worth;

#[derive(Debug, Default)]
pub(crate) struct Strays {
    rows: HashMap<BlockKey, (Row, Option<Worth>)>,
    /// Those that may be evicted, coldest first.
    coldest: BTreeSet<(Worth, BlockKey)>,
    /// Blocks of our fingerprint by the parent they wait for.
    waiting: HashMap<BlockKey, Vec<BlockKey>>,
    /// First blocks of other fingerprints, by [`neutral_key`].
    foreign: HashSet<BlockKey>,
    bytes: u64,
}

impl Strays {
    /// Without a worth it is pinned.
    pub fn insert(&mut self, key: BlockKey, row: Row, worth: Option<Worth>, ours: &Fingerprint) {
        self.remove(&key);
        self.bytes += row.all_bytes();
        if let Some(worth) = worth {
            self.coldest.insert((worth, key));
        }
        if row.fingerprint != *ours.as_bytes() {
            if row.parent.is_none() {
                self.foreign.insert(neutral_key(&Tenant::from_bytes(row.tenant), &row.tokens));
            }
        } else if let Some(parent) = row.parent {
            self.waiting.entry(BlockKey::from_bytes(parent)).or_default().push(key);
        }
        self.rows.insert(key, (row, worth));
    }

    pub fn remove(&mut self, key: &BlockKey) -> Option<Row> {
        let (row, worth) = self.rows.remove(key)?;
        self.bytes -= row.all_bytes();
        if let Some(worth) = worth {
            self.coldest.remove(&(worth, *key));
        }
        if let Some(parent) = row.parent.map(BlockKey::from_bytes)
            && let Some(waiting) = self.waiting.get_mut(&parent)
        {
            waiting.retain(|other| other != key);
            if waiting.is_empty() {
                self.waiting.remove(&parent);
            }
        }
        if row.parent.is_none() {
            self.foreign.remove(&neutral_key(&Tenant::from_bytes(row.tenant), &row.tokens));
        }
        Some(row)
    }

    /// The blocks that wait for `parent`.
    pub fn waiting_for(&self, parent: &BlockKey) -> Vec<BlockKey> {
        self.waiting.get(parent).cloned().unwrap_or_default()
    }

    /// Whether the first block of a prompt is here under another fingerprint.
    pub fn has_foreign(&self, tenant: &Tenant, tokens: &[u32]) -> bool {
        !self.foreign.is_empty() && self.foreign.contains(&neutral_key(tenant, tokens))
    }

    /// The one to leave first, with its worth.
    pub fn coldest(&self) -> Option<(BlockKey, Worth)> {
        self.coldest.first().map(|(worth, key)| (*key, *worth))
    }

    pub fn rows(&self) -> impl Iterator<Item = (&BlockKey, &Row)> {
        self.rows.iter().map(|(key, (row, _))| (key, row))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Names a prompt's first block whatever computed it.
fn neutral_key(tenant: &Tenant, tokens: &[u32]) -> BlockKey {
    BlockKey::derive(&Fingerprint::from_bytes([0; 32]), tenant, None, tokens)
}
