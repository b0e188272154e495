//! One block or snapshot with what its headers say.

use serde::Serialize;

use super::stored::Stored;
use super::{Inspector, StoredBlock, StoredSnapshot, WindowState};
use crate::disk::codec::Header;
use crate::error::ReadError;
use crate::key::BlockKey;
use crate::payload::Part;

/// What a key names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Detail {
    /// A block.
    Block(BlockDetail),
    /// A snapshot.
    Snapshot(SnapshotDetail),
}

/// One block with what its headers say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockDetail {
    /// The block.
    #[serde(flatten)]
    pub block: StoredBlock,
    /// Blocks that follow it directly.
    pub children: u64,
    /// The snapshots that stand behind it.
    pub snapshots_behind: Vec<StoredSnapshot>,
    /// Its token ids.
    pub token_ids: Vec<u32>,
    /// Its tensors, by file and offset.
    pub tensors: Vec<TensorDetail>,
}

/// One snapshot with what its header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotDetail {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: StoredSnapshot,
    /// The ids of its tokens: those behind its parent.
    pub token_ids: Vec<u32>,
    /// Its tensors, by offset.
    pub tensors: Vec<TensorDetail>,
}

/// One tensor of a block or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorDetail {
    /// Its name.
    pub name: String,
    /// `full`, `window` or `state`.
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

impl Inspector {
    /// One block or snapshot with its tensors and tokens.
    ///
    /// # Errors
    /// Its header cannot be read, or the window part's.
    pub fn show(&self, key: &BlockKey) -> Result<Detail, ReadError> {
        let stored = self.stored.get(key).ok_or(ReadError::Gone)?;
        let reading = self.reading();
        let header = reading.header(key, stored.part())?;
        let row = match stored {
            Stored::Block(row) => row,
            Stored::Snapshot(row) => {
                return Ok(Detail::Snapshot(SnapshotDetail {
                    snapshot: self.stored_snapshot(key, stored),
                    token_ids: row.tokens.clone(),
                    tensors: tensors(&[header]),
                }));
            }
        };
        let behind = self.stored.values().filter(|other| other.facts().parent == Some(*key));
        let children = behind.filter(|other| !other.is_snapshot()).count() as u64;
        let mut snapshots_behind = self.snapshots();
        snapshots_behind.retain(|snapshot| snapshot.parent == Some(key.to_string()));
        let block = self.stored_block(key, row, snapshots_behind.len() as u64);
        let mut headers = vec![header];
        if block.window == WindowState::Apart {
            headers.push(reading.header(key, Part::Window)?);
        }
        let (token_ids, tensors) = (row.tokens.clone(), tensors(&headers));
        Ok(Detail::Block(BlockDetail { block, children, snapshots_behind, token_ids, tensors }))
    }
}

fn tensors(headers: &[Header]) -> Vec<TensorDetail> {
    let tensors = headers.iter().flat_map(|header| &header.tensors);
    let detail = tensors.map(|tensor| TensorDetail {
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
    });
    detail.collect()
}
