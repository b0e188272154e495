//! The bytes of a block's files: safetensors files whose headers say what the block is. `FORMAT.md` has the tables.
//!
//! 1. Tensors of full layers and of sliding-window layers lie in files of their own, so that the window part can be left
//!    unread, and removed, by itself. Format 1 had both in one file; it is read, and not written any more. A snapshot is one
//!    file.
//! 2. Every fact of the header is under one checksum, every tensor under its own.
//! 3. Decoding allocates no more than the file is long, whatever the header claims.
//!
//! Only bytes: no files here.

mod facts;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use crate::block::Block;
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::payload::{Part, Payload};

/// Version of the file format.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// What the files of blocks say: snapshots came with version 3 and changed nothing in them, so older builds read them.
const BLOCK_FORMAT: u32 = 2;
/// A header longer than this is refused before it is read.
pub(crate) const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Length field in front of the header.
pub(crate) const LENGTH_BYTES: usize = 8;

const METADATA: &str = "__metadata__";
const TENSOR: &str = "tensor.";

/// A block ready to be written: its header, and the order of its tensors behind it.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Length field and header.
    pub head: Vec<u8>,
    /// Indices into the payload's tensors, in file order.
    pub order: Vec<usize>,
    /// Length of the file.
    pub file_bytes: u64,
}

/// Which tensors a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Those of full layers; `window` says whether the block has others.
    Full { window: bool },
    /// Those of sliding-window layers.
    Window,
    /// All, as format 1 had them.
    All,
    /// Those of recurrent layers: a snapshot.
    Snapshot,
}

impl Contents {
    /// Whether a file of it is one of a block's, or a snapshot's, with that part.
    pub fn is_of(self, part: Part) -> bool {
        match self {
            Self::Full { .. } | Self::All => part == Part::Full,
            Self::Window => part == Part::Window,
            Self::Snapshot => part == Part::State,
        }
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    pub parent: Option<BlockKey>,
    pub start: usize,
    pub tokens: Vec<u32>,
    pub contents: Contents,
    /// In file order.
    pub tensors: Vec<TensorEntry>,
    /// Length field and header.
    pub head_bytes: u64,
}

/// One tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorEntry {
    pub name: String,
    pub part: Part,
    /// Place in the payload.
    pub order: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: usize,
    pub checksum: blake3::Hash,
}

/// Lays one part of a block out.
///
/// # Errors
/// Says what about the payload cannot be written: a name twice, a shape that contradicts the bytes.
pub(crate) fn encode(fingerprint: &Fingerprint, block: &Block, part: Part) -> Result<Encoded, String> {
    let Payload { tensors } = &block.payload;
    let order: Vec<usize> = (0..tensors.len()).filter(|index| tensors[*index].part == part).collect();
    let mut texts = facts::texts(fingerprint, block, part);
    let (mut infos, mut offset) = (Vec::with_capacity(order.len()), 0);
    for &index in &order {
        let tensor = &tensors[index];
        let end = offset + tensor.data.len();
        let info =
            TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (offset, end) };
        let text = facts::tensor_text(index, part, &blake3::hash(&tensor.data));
        let name = &tensor.name;
        let taken = tensors[..index].iter().any(|other| other.name == *name);
        if taken || name == METADATA || texts.insert(format!("{TENSOR}{name}"), text).is_some() {
            return Err(format!("tensor name {name:?} is taken"));
        }
        infos.push((name.clone(), info));
        offset = end;
    }
    Metadata::new(None, infos.clone()).map_err(|error| format!("tensors do not fit safetensors: {error}"))?;
    let check = facts::digest(&texts, infos.iter().map(|(name, info)| (name.as_str(), info)));
    texts.insert(facts::CHECK.into(), check.to_hex().to_string());
    let mut json: Map<String, Value> = Map::new();
    json.insert(METADATA.into(), texts.into_iter().map(|(name, text)| (name, Value::String(text))).collect());
    for (name, info) in infos {
        json.insert(name, serde_json::to_value(info).map_err(|error| error.to_string())?);
    }
    let mut header = serde_json::to_vec(&json).map_err(|error| error.to_string())?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    let head_bytes = head.len() as u64;
    Ok(Encoded { head, order, file_bytes: head_bytes + offset as u64 })
}

/// Bytes that a block will take on disk, about: what the budget reckons with until the file is written.
pub(crate) fn estimated_bytes(block: &Block) -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let header = 1_024 + 8 * block.tokens.len() as u64;
    let (files, headers) = if block.has_window_part() { (2, 2 * header) } else { (1, header) };
    let texts = 256 * block.payload.tensors.len() as u64;
    (block.payload.bytes() + headers + texts).next_multiple_of(PAGE_BYTES) + (files - 1) * PAGE_BYTES
}

/// The header's length, from the length field and the length of the file.
pub(crate) fn header_bytes(field: [u8; LENGTH_BYTES], file_bytes: u64) -> Result<usize, ReadError> {
    let claimed = u64::from_le_bytes(field);
    let room = file_bytes.saturating_sub(LENGTH_BYTES as u64);
    if claimed > room {
        let expected = claimed.saturating_add(LENGTH_BYTES as u64);
        return Err(ReadError::Length { found: file_bytes, expected });
    }
    if claimed > MAX_HEADER_BYTES {
        return Err(ReadError::Header(format!("{claimed} bytes long, expected at most {MAX_HEADER_BYTES}")));
    }
    Ok(claimed as usize)
}

/// Reads a header (without its length field) of a file that is `file_bytes` long.
pub(crate) fn decode(header: &[u8], file_bytes: u64) -> Result<Header, ReadError> {
    let parsed: Metadata =
        serde_json::from_slice(header).map_err(|error| ReadError::Header(error.to_string()))?;
    let head_bytes = (LENGTH_BYTES + header.len()) as u64;
    let expected = head_bytes.saturating_add(parsed.data_len() as u64);
    if expected != file_bytes {
        return Err(ReadError::Length { found: file_bytes, expected });
    }
    let empty = HashMap::new();
    let texts: BTreeMap<String, String> =
        parsed.metadata().as_ref().unwrap_or(&empty).iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let contents = facts::contents(&texts)?;
    let infos = parsed.tensors();
    facts::check_digest(&texts, infos.iter().map(|(name, info)| (name.as_str(), *info)))?;
    let mut by_offset = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let (order, part, checksum) =
            facts::parse_tensor(&name, facts::text(&texts, &format!("{TENSOR}{name}"))?)?;
        let (begin, end) = info.data_offsets;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let entry = TensorEntry { name, part, order, dtype, shape, bytes: end - begin, checksum };
        by_offset.push(((begin, end, part, order), entry));
    }
    by_offset.sort_by_key(|(place, _)| *place);
    let tensors: Vec<TensorEntry> = by_offset.into_iter().map(|(_, entry)| entry).collect();
    check_order(&tensors, contents)?;
    facts::identity(&texts, contents, tensors, head_bytes)
}

fn check_order(tensors: &[TensorEntry], contents: Contents) -> Result<(), ReadError> {
    let fits = |tensor: &TensorEntry| {
        contents.is_of(tensor.part) || (contents == Contents::All && tensor.part == Part::Window)
    };
    if let Some(tensor) = tensors.iter().find(|tensor| !fits(tensor)) {
        let reason =
            format!("tensor {:?} of the {:?} part in a file of {contents:?}", tensor.name, tensor.part);
        return Err(ReadError::Header(reason));
    }
    if !tensors.is_sorted_by_key(|tensor| tensor.part) {
        return Err(ReadError::Header("a window tensor comes before a full one".into()));
    }
    let places: BTreeSet<usize> = tensors.iter().map(|tensor| tensor.order).collect();
    let whole = matches!(contents, Contents::All | Contents::Snapshot);
    if places.len() < tensors.len() || (whole && !are_all(places.iter().copied())) {
        return Err(ReadError::Header("tensors are not numbered from 0".into()));
    }
    Ok(())
}

/// Whether sorted places are 0, 1, 2, ...
pub(crate) fn are_all(places: impl Iterator<Item = usize>) -> bool {
    places.enumerate().all(|(number, place)| number == place)
}

impl Header {
    /// The key that the header's own facts give.
    pub fn key(&self) -> BlockKey {
        let (fingerprint, tenant, parent) = (&self.fingerprint, &self.tenant, self.parent.as_ref());
        match self.contents {
            Contents::Snapshot => BlockKey::snapshot(fingerprint, tenant, parent, self.start, &self.tokens),
            _ => BlockKey::derive(fingerprint, tenant, parent, &self.tokens),
        }
    }
}
