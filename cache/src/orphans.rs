//! Blocks on disk that have no place in the tree: their parent is lost, or they could not be read just now. They count to
//! the budget and leave in one order with all others; one whose parent comes back returns to the tree.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use prefixd_migrations::Row;

use crate::key::BlockKey;
use crate::policy::Worth;

/// Place in the order of eviction: least worth first, and of equals the deepest.
type Rank = (Worth, Reverse<u64>, BlockKey);

#[derive(Debug, Default)]
pub(crate) struct Orphans {
    rows: HashMap<BlockKey, (Row, Option<Worth>)>,
    /// Those that may be evicted.
    coldest: BTreeSet<Rank>,
    /// By the parent they wait for.
    waiting: HashMap<BlockKey, Vec<BlockKey>>,
    bytes: u64,
}

impl Orphans {
    /// Without a worth it is pinned.
    pub fn insert(&mut self, key: BlockKey, row: Row, worth: Option<Worth>) {
        self.remove(&key);
        self.bytes += row.all_bytes();
        self.coldest.extend(rank(key, &row, worth));
        if let Some(parent) = row.parent {
            self.waiting.entry(BlockKey::from_bytes(parent)).or_default().push(key);
        }
        self.rows.insert(key, (row, worth));
    }

    pub fn remove(&mut self, key: &BlockKey) -> Option<Row> {
        let (row, worth) = self.rows.remove(key)?;
        self.bytes -= row.all_bytes();
        if let Some(rank) = rank(*key, &row, worth) {
            self.coldest.remove(&rank);
        }
        if let Some(parent) = row.parent.map(BlockKey::from_bytes)
            && let Some(waiting) = self.waiting.get_mut(&parent)
        {
            waiting.retain(|other| other != key);
            if waiting.is_empty() {
                self.waiting.remove(&parent);
            }
        }
        Some(row)
    }

    /// The blocks that wait for `parent`.
    pub fn waiting_for(&self, parent: &BlockKey) -> Vec<BlockKey> {
        self.waiting.get(parent).cloned().unwrap_or_default()
    }

    /// The one to leave first, with its worth.
    pub fn coldest(&self) -> Option<(BlockKey, Worth)> {
        self.coldest.first().map(|(worth, _, key)| (*key, *worth))
    }

    pub fn rows(&self) -> impl Iterator<Item = (&BlockKey, &Row)> {
        self.rows.iter().map(|(key, (row, _))| (key, row))
    }

    /// Those that were pinned when they came and whose pin has ended since.
    pub fn unpinned(&self, now_us: u64) -> Vec<BlockKey> {
        let ended = |row: &Row, worth: &Option<Worth>| worth.is_none() && row.pinned_until_us <= now_us;
        self.rows.iter().filter(|(_, (row, worth))| ended(row, worth)).map(|(key, _)| *key).collect()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn rank(key: BlockKey, row: &Row, worth: Option<Worth>) -> Option<Rank> {
    worth.map(|worth| (worth, Reverse(row.start), key))
}
