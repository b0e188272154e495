//! A block file that is only bytes: for tools and fuzzers, without a store.

use crate::disk::codec::{LENGTH_BYTES, decode, header_bytes};
use crate::error::ReadError;
use crate::key::BlockKey;

/// Checks the bytes of one file of a block as reading it from a store would, and says which block it is of.
///
/// # Errors
/// What is wrong with them.
pub fn check_block_bytes(bytes: &[u8]) -> Result<BlockKey, ReadError> {
    let file_bytes = bytes.len() as u64;
    let too_short = |expected: usize| ReadError::Length { found: file_bytes, expected: expected as u64 };
    let (field, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| too_short(LENGTH_BYTES))?;
    let length = header_bytes(*field, file_bytes)?;
    let (head, mut data) =
        rest.split_at_checked(length).ok_or_else(|| too_short(LENGTH_BYTES.saturating_add(length)))?;
    let header = decode(head, file_bytes)?;
    for tensor in &header.tensors {
        let (this, others) =
            data.split_at_checked(tensor.bytes).ok_or_else(|| too_short(bytes.len() + tensor.bytes))?;
        if blake3::hash(this) != tensor.checksum {
            return Err(ReadError::Checksum(format!("tensor {:?}", tensor.name)));
        }
        data = others;
    }
    Ok(header.key())
}
