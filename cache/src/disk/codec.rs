//! The bytes of a block file: a safetensors file whose header says what the block is. `FORMAT.md` has the tables.
//!
//! 1. Tensors of full layers come first, those of window layers after them, so that the first part can be read alone.
//! 2. Every fact of the header is under one checksum, every tensor under its own.
//! 3. Decoding allocates no more than the file is long, whatever the header claims.
//!
//! Only bytes: no files here.

mod facts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use crate::block::Block;
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::payload::{Part, Payload};

/// Version of the file format.
pub(crate) const FORMAT_VERSION: u32 = 1;
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
    /// Length of the file up to the end of the full part.
    pub full_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    pub parent: Option<BlockKey>,
    pub start: usize,
    pub tokens: Vec<u32>,
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

/// Lays a block out.
///
/// # Errors
/// Says what about the payload cannot be written: a name twice, a shape that contradicts the bytes.
pub(crate) fn encode(fingerprint: &Fingerprint, block: &Block) -> Result<Encoded, String> {
    let Payload { tensors } = &block.payload;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|index| tensors[*index].part);
    let mut texts = facts::texts(fingerprint, block);
    let (mut infos, mut offset, mut full_bytes) = (Vec::with_capacity(tensors.len()), 0, 0);
    for &index in &order {
        let tensor = &tensors[index];
        let end = offset + tensor.data.len();
        let info =
            TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (offset, end) };
        let text = facts::tensor_text(index, tensor.part, &blake3::hash(&tensor.data));
        if tensor.name == METADATA || texts.insert(format!("{TENSOR}{}", tensor.name), text).is_some() {
            return Err(format!("tensor name {:?} is taken", tensor.name));
        }
        infos.push((tensor.name.clone(), info));
        offset = end;
        if tensor.part == Part::Full {
            full_bytes = end;
        }
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
    Ok(Encoded {
        head,
        order,
        full_bytes: head_bytes + full_bytes as u64,
        file_bytes: head_bytes + offset as u64,
    })
}

/// Bytes that a block will take on disk, about: what the budget reckons with until the file is written.
pub(crate) fn estimated_bytes(block: &Block) -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let header = 1_024 + 8 * block.tokens.len() as u64 + 256 * block.payload.tensors.len() as u64;
    (block.payload.bytes() + header).next_multiple_of(PAGE_BYTES)
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
    facts::check_format(&texts)?;
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
    if !tensors.is_sorted_by_key(|tensor| tensor.part) {
        return Err(ReadError::Header("a window tensor comes before a full one".into()));
    }
    let mut places: Vec<usize> = tensors.iter().map(|tensor| tensor.order).collect();
    places.sort_unstable();
    if !places.iter().copied().eq(0..tensors.len()) {
        return Err(ReadError::Header("tensors are not numbered from 0".into()));
    }
    facts::identity(&texts, tensors, head_bytes)
}

impl Header {
    /// The key that the header's own facts give.
    pub fn key(&self) -> BlockKey {
        BlockKey::derive(&self.fingerprint, &self.tenant, self.parent.as_ref(), &self.tokens)
    }

    /// Length of the file up to the end of the full part.
    pub fn full_bytes(&self) -> u64 {
        let full = self.tensors.iter().filter(|tensor| tensor.part == Part::Full);
        self.head_bytes + full.map(|tensor| tensor.bytes as u64).sum::<u64>()
    }
}
