//! Version 1: the first index. Frozen.
//!
//! Row, little-endian, `148 + 4 n` bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | fingerprint |
//! | 32 | 32 | tenant |
//! | 64 | 32 | parent key; zeros for the first block of a prompt |
//! | 96 | 8 | position of the first token |
//! | 104 | 8 | length of the file in bytes |
//! | 112 | 8 | bytes allocated for it |
//! | 120 | 8 | length of the file's header and full part in bytes |
//! | 128 | 8 | last use, microseconds since 1970 |
//! | 136 | 4 | uses, fading with time, f32 |
//! | 140 | 4 | uses |
//! | 144 | 4 | n, the number of tokens |
//! | 148 | 4 n | token ids, u32 each |

use crate::MigrationError;

const HEAD_BYTES: usize = 148;

/// What the index knows of one block file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What computed the block.
    pub fingerprint: [u8; 32],
    /// Whose prefix it is.
    pub tenant: [u8; 32],
    /// The block before it.
    pub parent: Option<[u8; 32]>,
    /// Position of its first token.
    pub start: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Bytes the file system allocated for it.
    pub allocated_bytes: u64,
    /// Length of the file up to the end of its full part, in bytes.
    pub full_bytes: u64,
    /// Last use, microseconds since 1970.
    pub last_use_us: u64,
    /// Uses, each counting half after some time.
    pub reuse: f32,
    /// Uses.
    pub hits: u32,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

impl Row {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 * self.tokens.len());
        bytes.extend(self.fingerprint);
        bytes.extend(self.tenant);
        bytes.extend(self.parent.unwrap_or_default());
        for number in [self.start, self.file_bytes, self.allocated_bytes, self.full_bytes, self.last_use_us] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.reuse.to_le_bytes());
        bytes.extend(self.hits.to_le_bytes());
        bytes.extend((self.tokens.len() as u32).to_le_bytes());
        self.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        bytes
    }

    /// Reads a row; `None` for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let (fingerprint, tenant, parent) = (cursor.take()?, cursor.take()?, cursor.take::<32>()?);
        let mut number = || cursor.take().map(u64::from_le_bytes);
        let (start, file_bytes, allocated_bytes, full_bytes, last_use_us) =
            (number()?, number()?, number()?, number()?, number()?);
        let reuse = f32::from_le_bytes(cursor.take()?);
        let hits = u32::from_le_bytes(cursor.take()?);
        let count = u32::from_le_bytes(cursor.take()?) as usize;
        let parent = (parent != [0; 32]).then_some(parent);
        let sound = cursor.0.len() == count.checked_mul(4)?
            && count > 0
            && parent.is_none() == (start == 0)
            && reuse.is_finite();
        let tokens =
            cursor.0.chunks_exact(4).filter_map(|four| Some(u32::from_le_bytes(four.try_into().ok()?)));
        sound.then(|| Self {
            fingerprint,
            tenant,
            parent,
            start,
            file_bytes,
            allocated_bytes,
            full_bytes,
            last_use_us,
            reuse,
            hits,
            tokens: tokens.collect(),
        })
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

/// From an unversioned database: nothing in it has a layout that anybody promised, so it starts empty.
pub(crate) fn migrate(db: &sled::Db) -> Result<(), MigrationError> {
    for name in db.tree_names() {
        if name == b"__sled__default" {
            db.clear()?;
        } else if name != crate::META_TREE.as_bytes() {
            db.drop_tree(name)?;
        }
    }
    db.open_tree("blocks")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            fingerprint: [1; 32],
            tenant: [2; 32],
            parent: Some([3; 32]),
            start: 256,
            file_bytes: 1_000,
            allocated_bytes: 4_096,
            full_bytes: 900,
            last_use_us: 5,
            reuse: 1.5,
            hits: 6,
            tokens: vec![7, 8],
        }
    }

    #[test]
    fn a_row_round_trips() {
        assert_eq!(Row::decode(&row().encode()), Some(row()));
    }

    #[test]
    fn rows_of_another_length_or_that_contradict_themselves_are_refused() {
        let bytes = row().encode();
        for len in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(Row::decode(&[bytes.clone(), vec![0]].concat()), None);
        assert_eq!(Row::decode(&Row { parent: None, ..row() }.encode()), None);
        assert_eq!(Row::decode(&Row { tokens: vec![], ..row() }.encode()), None);
        assert_eq!(Row::decode(&Row { reuse: f32::NAN, ..row() }.encode()), None);
    }
}
