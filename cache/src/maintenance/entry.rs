//! What is said about one block or one snapshot of a store.

use std::time::{SystemTime, UNIX_EPOCH};

use prefixd_migrations::{Row, Window};
use serde::{Serialize, Serializer};

use super::Inspector;
use super::stored::Stored;
use crate::key::BlockKey;

/// Where a block's window part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// The block has none.
    None,
    /// In the block's own file, as format 1 had it.
    Inside,
    /// In a file of its own.
    Apart,
    /// Gone.
    Dropped,
}

/// One block of a store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredBlock {
    /// Its key.
    #[serde(serialize_with = "as_text")]
    pub key: BlockKey,
    /// The block before it, 64 hexadecimal digits.
    pub parent: Option<String>,
    /// What computed it, 64 hexadecimal digits.
    pub fingerprint: String,
    /// Whose it is, 64 hexadecimal digits.
    pub tenant: String,
    /// Position of its first token.
    pub start: u64,
    /// Tokens in it.
    pub tokens: u64,
    /// Allocated bytes, the window part included.
    pub bytes: u64,
    /// Where the window part is.
    pub window: WindowState,
    /// Allocated bytes of the window part's file.
    pub window_bytes: u64,
    /// Last use, microseconds since 1970; while a server uses the store, the time it was written.
    pub last_use_us: u64,
    /// Uses; `None` while a server uses the store.
    pub hits: Option<u32>,
    /// 0 leaves first, 100 last.
    pub priority: u8,
    /// Whether eviction leaves it alone now.
    pub pinned: bool,
    /// Seconds without a use after which it is removed.
    pub ttl_s: Option<u64>,
    /// Whether its parent is not there: no lookup finds it.
    pub orphan: bool,
    /// Snapshots that stand behind it: at its end, or before the end of a block that follows it.
    pub snapshots: u64,
}

/// One snapshot of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredSnapshot {
    /// Its key.
    #[serde(serialize_with = "as_text")]
    pub key: BlockKey,
    /// The last whole block before it, 64 hexadecimal digits.
    pub parent: Option<String>,
    /// What computed it, 64 hexadecimal digits.
    pub fingerprint: String,
    /// Whose it is, 64 hexadecimal digits.
    pub tenant: String,
    /// Position behind that block.
    pub start: u64,
    /// Tokens from there to it.
    pub tokens: u64,
    /// Allocated bytes.
    pub bytes: u64,
    /// Last use, microseconds since 1970; while a server uses the store, the time it was written.
    pub last_use_us: u64,
    /// Whether it leaves last now.
    pub pinned: bool,
    /// Whether its parent is not there: no lookup finds it.
    pub orphan: bool,
}

impl Inspector {
    pub(super) fn stored_block(&self, key: &BlockKey, row: &Row, snapshots: u64) -> StoredBlock {
        let (window, window_bytes) = match row.window {
            Window::None => (WindowState::None, 0),
            Window::Inside => (WindowState::Inside, 0),
            Window::Apart { allocated_bytes, .. } => (WindowState::Apart, allocated_bytes),
            Window::Dropped => (WindowState::Dropped, 0),
        };
        let parent = row.parent.map(BlockKey::from_bytes);
        StoredBlock {
            key: *key,
            parent: parent.map(|parent| parent.to_string()),
            fingerprint: BlockKey::from_bytes(row.fingerprint).to_string(),
            tenant: BlockKey::from_bytes(row.tenant).to_string(),
            start: row.start,
            tokens: row.tokens.len() as u64,
            bytes: row.all_bytes(),
            window,
            window_bytes,
            last_use_us: row.last_use_us,
            hits: self.index.is_some().then_some(row.hits),
            priority: row.priority,
            pinned: row.pinned_until_us > now_us(),
            ttl_s: (row.ttl_us > 0).then_some(row.ttl_us / 1_000_000),
            orphan: parent.is_some_and(|parent| !self.stored.contains_key(&parent)),
            snapshots,
        }
    }

    pub(super) fn stored_snapshot(&self, key: &BlockKey, stored: &Stored) -> StoredSnapshot {
        let facts = stored.facts();
        StoredSnapshot {
            key: *key,
            parent: facts.parent.map(|parent| parent.to_string()),
            fingerprint: facts.fingerprint.to_string(),
            tenant: facts.tenant.to_string(),
            start: facts.start,
            tokens: facts.tokens.len() as u64,
            bytes: facts.bytes,
            last_use_us: facts.last_use_us,
            pinned: facts.is_pinned(now_us()),
            orphan: facts.parent.is_some_and(|parent| !self.stored.contains_key(&parent)),
        }
    }
}

pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn as_text<S: Serializer>(key: &BlockKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}
