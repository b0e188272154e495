//! Version 3: snapshots, in a tree of their own. Frozen. Rows of blocks are those of version 2.
//!
//! Row of a snapshot, little-endian, `152 + 4 n` bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | fingerprint |
//! | 32 | 32 | tenant |
//! | 64 | 32 | key of the last whole block before it; zeros where there is none |
//! | 96 | 8 | position behind that block: where its tokens begin |
//! | 104 | 8 | length of its file in bytes |
//! | 112 | 8 | bytes allocated for it |
//! | 120 | 8 | last use, microseconds since 1970 |
//! | 128 | 8 | pinned until, microseconds since 1970; 0 not pinned |
//! | 136 | 12 | reserved, 0 |
//! | 148 | 4 | n, the number of tokens behind the block; may be 0, but not where there is no block |
//! | 152 | 4 n | token ids, u32 each |

use crate::{MigrationError, SNAPSHOTS_TREE};

const HEAD_BYTES: usize = 152;

/// What the index knows of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// What computed it.
    pub fingerprint: [u8; 32],
    /// Whose prefix it is.
    pub tenant: [u8; 32],
    /// The last whole block before it.
    pub parent: Option<[u8; 32]>,
    /// Position behind that block.
    pub start: u64,
    /// Length of its file in bytes.
    pub file_bytes: u64,
    /// Bytes the file system allocated for it.
    pub allocated_bytes: u64,
    /// Last use, microseconds since 1970.
    pub last_use_us: u64,
    /// Evicted last before this time, microseconds since 1970.
    pub pinned_until_us: u64,
    /// The tokens between the block and it.
    pub tokens: Vec<u32>,
}

impl SnapshotRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 * self.tokens.len());
        bytes.extend(self.fingerprint);
        bytes.extend(self.tenant);
        bytes.extend(self.parent.unwrap_or_default());
        for number in
            [self.start, self.file_bytes, self.allocated_bytes, self.last_use_us, self.pinned_until_us]
        {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([0; 12]);
        bytes.extend((self.tokens.len() as u32).to_le_bytes());
        self.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        bytes
    }

    /// Reads a row; `None` for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, tokens) = bytes.split_at_checked(HEAD_BYTES)?;
        let array = |at: usize| <[u8; 32]>::try_from(&head[at..at + 32]).ok();
        let number = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
        let parent = array(64)?;
        let parent = (parent != [0; 32]).then_some(parent);
        let count = u32::from_le_bytes(head[148..].try_into().ok()?) as usize;
        let row = Self {
            fingerprint: array(0)?,
            tenant: array(32)?,
            parent,
            start: number(96)?,
            file_bytes: number(104)?,
            allocated_bytes: number(112)?,
            last_use_us: number(120)?,
            pinned_until_us: number(128)?,
            tokens: tokens.chunks_exact(4).map(token).collect(),
        };
        let sound = tokens.len() == count.checked_mul(4)?
            && head[136..148] == [0; 12]
            && parent.is_none() == (row.start == 0)
            && row.start + count as u64 > 0;
        sound.then_some(row)
    }
}

fn token(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// From version 2: no rows of snapshots yet. Those of blocks stay as they are.
pub(crate) fn migrate(db: &sled::Db) -> Result<(), MigrationError> {
    db.open_tree(SNAPSHOTS_TREE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> SnapshotRow {
        SnapshotRow {
            fingerprint: [1; 32],
            tenant: [2; 32],
            parent: Some([3; 32]),
            start: 256,
            file_bytes: 1_000,
            allocated_bytes: 4_096,
            last_use_us: 5,
            pinned_until_us: 6,
            tokens: vec![7, 70_000],
        }
    }

    #[test]
    fn a_row_round_trips() {
        for tokens in [vec![], vec![7], vec![7, 70_000]] {
            let row = SnapshotRow { tokens, ..row() };
            assert_eq!(row.encode().len(), HEAD_BYTES + 4 * row.tokens.len());
            assert_eq!(SnapshotRow::decode(&row.encode()), Some(row));
        }
        let first = SnapshotRow { parent: None, start: 0, ..row() };
        assert_eq!(SnapshotRow::decode(&first.encode()), Some(first));
    }

    #[test]
    fn rows_of_another_length_or_that_contradict_themselves_are_refused() {
        let bytes = row().encode();
        for len in 0..bytes.len() {
            assert_eq!(SnapshotRow::decode(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(SnapshotRow::decode(&[bytes.clone(), vec![0]].concat()), None);
        for at in [96, 136, 147, 148] {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!(SnapshotRow::decode(&wrong).is_none(), at != 96, "byte {at}");
        }
        assert_eq!(SnapshotRow::decode(&SnapshotRow { parent: None, ..row() }.encode()), None);
        assert_eq!(SnapshotRow::decode(&SnapshotRow { start: 0, ..row() }.encode()), None);
        let nothing = SnapshotRow { parent: None, start: 0, tokens: vec![], ..row() };
        assert_eq!(SnapshotRow::decode(&nothing.encode()), None);
    }
}
