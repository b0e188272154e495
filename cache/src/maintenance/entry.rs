//! What is said about one block of a store.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use prefixd_migrations::{Row, Window};
use serde::{Serialize, Serializer};

use crate::disk::codec::Header;
use crate::key::BlockKey;
use crate::payload::Part;
use crate::retention::Keep;

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
}

impl StoredBlock {
    pub(super) fn new(key: BlockKey, row: &Row, from_index: bool, known: &HashSet<&BlockKey>) -> Self {
        let parent = row.parent.map(BlockKey::from_bytes);
        let (window, window_bytes) = match row.window {
            Window::None => (WindowState::None, 0),
            Window::Inside => (WindowState::Inside, 0),
            Window::Apart { allocated_bytes, .. } => (WindowState::Apart, allocated_bytes),
            Window::Dropped => (WindowState::Dropped, 0),
        };
        Self {
            key,
            parent: parent.map(|parent| parent.to_string()),
            fingerprint: BlockKey::from_bytes(row.fingerprint).to_string(),
            tenant: BlockKey::from_bytes(row.tenant).to_string(),
            start: row.start,
            tokens: row.tokens.len() as u64,
            bytes: row.all_bytes(),
            window,
            window_bytes,
            last_use_us: row.last_use_us,
            hits: from_index.then_some(row.hits),
            priority: row.priority,
            pinned: Keep::of(row).is_pinned(now_us()),
            ttl_s: (row.ttl_us > 0).then_some(row.ttl_us / 1_000_000),
            orphan: parent.is_some_and(|parent| !known.contains(&parent)),
        }
    }
}

/// One block with what its headers say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockDetail {
    /// The block.
    #[serde(flatten)]
    pub block: StoredBlock,
    /// Blocks that follow it directly.
    pub children: u64,
    /// Its token ids.
    pub token_ids: Vec<u32>,
    /// Its tensors, by file and offset.
    pub tensors: Vec<TensorDetail>,
}

/// One tensor of a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorDetail {
    /// Its name.
    pub name: String,
    /// `full` or `window`.
    pub part: &'static str,
    /// Element type.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
    /// blake3 of the bytes.
    pub checksum: String,
}

impl BlockDetail {
    pub(super) fn new(block: StoredBlock, row: &Row, headers: &[Header], children: u64) -> Self {
        let tensors = headers
            .iter()
            .flat_map(|header| &header.tensors)
            .map(|tensor| TensorDetail {
                name: tensor.name.clone(),
                part: match tensor.part {
                    Part::Full => "full",
                    Part::Window => "window",
                    Part::State => "state",
                },
                dtype: format!("{:?}", tensor.dtype),
                shape: tensor.shape.clone(),
                bytes: tensor.bytes as u64,
                checksum: tensor.checksum.to_hex().to_string(),
            })
            .collect();
        Self { block, children, token_ids: row.tokens.clone(), tensors }
    }
}

pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn as_text<S: Serializer>(key: &BlockKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}
