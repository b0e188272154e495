//! Version 2: window parts of their own, pins, priorities, lifetimes. Frozen.
//!
//! Row, little-endian, `178 + 4 n` bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | fingerprint |
//! | 32 | 32 | tenant |
//! | 64 | 32 | parent key; zeros for the first block of a prompt |
//! | 96 | 8 | position of the first token |
//! | 104 | 8 | length of the block file in bytes |
//! | 112 | 8 | bytes allocated for it |
//! | 120 | 8 | last use, microseconds since 1970 |
//! | 128 | 4 | uses, fading with time, f32 |
//! | 132 | 4 | uses |
//! | 136 | 1 | window part: 0 the block has none, 1 inside the block file, 2 a file of its own, 3 dropped |
//! | 137 | 8 | length of the window file in bytes; 0 without one |
//! | 145 | 8 | bytes allocated for it; 0 without one |
//! | 153 | 1 | priority, 0 to 100 |
//! | 154 | 8 | pinned until, microseconds since 1970; 0 not pinned, the highest number for ever |
//! | 162 | 8 | lifetime without a use, microseconds; 0 without end |
//! | 170 | 4 | reserved, 0 |
//! | 174 | 4 | n, the number of tokens |
//! | 178 | 4 n | token ids, u32 each |
//!
//! The tree `meta` may hold `written`: day since 1970 (u64) and bytes written on that day (u64).

use crate::{BLOCKS_TREE, MigrationError, v1};

const HEAD_BYTES: usize = 178;
/// The priority of blocks that nobody gave one.
pub const DEFAULT_PRIORITY: u8 = 50;
/// The highest priority.
pub const MAX_PRIORITY: u8 = 100;

/// Where the tensors of sliding-window layers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// The block has none.
    #[default]
    None,
    /// In the block file itself, as format 1 had them.
    Inside,
    /// In a file of their own.
    Apart {
        /// Its length in bytes.
        file_bytes: u64,
        /// Bytes allocated for it.
        allocated_bytes: u64,
    },
    /// Nowhere any more.
    Dropped,
}

/// What the index knows of one block.
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
    /// Length of the block file in bytes.
    pub file_bytes: u64,
    /// Bytes the file system allocated for it.
    pub allocated_bytes: u64,
    /// Last use, microseconds since 1970.
    pub last_use_us: u64,
    /// Uses, each counting half after some time.
    pub reuse: f32,
    /// Uses.
    pub hits: u32,
    /// Its window part.
    pub window: Window,
    /// 0 leaves first, 100 last.
    pub priority: u8,
    /// Not evicted before this time, microseconds since 1970.
    pub pinned_until_us: u64,
    /// Removed when not used for so long; 0 never.
    pub ttl_us: u64,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

impl Row {
    /// Bytes allocated for the block and its window part.
    pub fn all_bytes(&self) -> u64 {
        self.allocated_bytes
            + match self.window {
                Window::Apart { allocated_bytes, .. } => allocated_bytes,
                Window::None | Window::Inside | Window::Dropped => 0,
            }
    }

    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (state, window_file, window_allocated) = match self.window {
            Window::None => (0, 0, 0),
            Window::Inside => (1, 0, 0),
            Window::Apart { file_bytes, allocated_bytes } => (2, file_bytes, allocated_bytes),
            Window::Dropped => (3, 0, 0),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 * self.tokens.len());
        bytes.extend(self.fingerprint);
        bytes.extend(self.tenant);
        bytes.extend(self.parent.unwrap_or_default());
        for number in [self.start, self.file_bytes, self.allocated_bytes, self.last_use_us] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.reuse.to_le_bytes());
        bytes.extend(self.hits.to_le_bytes());
        bytes.push(state);
        bytes.extend(u64::to_le_bytes(window_file));
        bytes.extend(u64::to_le_bytes(window_allocated));
        bytes.push(self.priority);
        bytes.extend(self.pinned_until_us.to_le_bytes());
        bytes.extend(self.ttl_us.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((self.tokens.len() as u32).to_le_bytes());
        self.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        bytes
    }

    /// Reads a row; `None` for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let (fingerprint, tenant, parent) = (cursor.take()?, cursor.take()?, cursor.take::<32>()?);
        let parent = (parent != [0; 32]).then_some(parent);
        let (start, file_bytes, allocated_bytes, last_use_us) =
            (cursor.number()?, cursor.number()?, cursor.number()?, cursor.number()?);
        let reuse = f32::from_le_bytes(cursor.take()?);
        let hits = u32::from_le_bytes(cursor.take()?);
        let [state] = cursor.take()?;
        let window = match (state, cursor.number()?, cursor.number()?) {
            (0, 0, 0) => Window::None,
            (1, 0, 0) => Window::Inside,
            (2, file_bytes, allocated_bytes) => Window::Apart { file_bytes, allocated_bytes },
            (3, 0, 0) => Window::Dropped,
            _ => return None,
        };
        let [priority] = cursor.take()?;
        let (pinned_until_us, ttl_us) = (cursor.number()?, cursor.number()?);
        let reserved: [u8; 4] = cursor.take()?;
        let count = u32::from_le_bytes(cursor.take()?) as usize;
        let sound = cursor.0.len() == count.checked_mul(4)?
            && count > 0
            && parent.is_none() == (start == 0)
            && reuse.is_finite()
            && priority <= MAX_PRIORITY
            && reserved == [0; 4];
        let tokens =
            cursor.0.chunks_exact(4).filter_map(|four| Some(u32::from_le_bytes(four.try_into().ok()?)));
        sound.then(|| Self {
            fingerprint,
            tenant,
            parent,
            start,
            file_bytes,
            allocated_bytes,
            last_use_us,
            reuse,
            hits,
            window,
            priority,
            pinned_until_us,
            ttl_us,
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

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// A row of version 1 in this layout. Its window part, if it has one, is inside the block file.
fn carried(old: v1::Row) -> Row {
    let window = if old.file_bytes > old.full_bytes { Window::Inside } else { Window::None };
    Row {
        fingerprint: old.fingerprint,
        tenant: old.tenant,
        parent: old.parent,
        start: old.start,
        file_bytes: old.file_bytes,
        allocated_bytes: old.allocated_bytes,
        last_use_us: old.last_use_us,
        reuse: old.reuse,
        hits: old.hits,
        window,
        priority: DEFAULT_PRIORITY,
        pinned_until_us: 0,
        ttl_us: 0,
        tokens: old.tokens,
    }
}

/// From version 1. A row that is neither of version 1 nor already of version 2 (an interrupted run) is dropped: its
/// file is read again when the store is opened.
pub(crate) fn migrate(db: &sled::Db) -> Result<(), MigrationError> {
    let blocks = db.open_tree(BLOCKS_TREE)?;
    for entry in &blocks {
        let (key, value) = entry?;
        match v1::Row::decode(&value).map(carried) {
            Some(row) => drop(blocks.insert(key, row.encode())?),
            None if Row::decode(&value).is_some() => {}
            None => drop(blocks.remove(key)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(window: Window) -> Row {
        Row {
            fingerprint: [1; 32],
            tenant: [2; 32],
            parent: Some([3; 32]),
            start: 256,
            file_bytes: 1_000,
            allocated_bytes: 4_096,
            last_use_us: 5,
            reuse: 1.5,
            hits: 6,
            window,
            priority: 90,
            pinned_until_us: u64::MAX,
            ttl_us: 300_000_000,
            tokens: vec![7, 8],
        }
    }

    #[test]
    fn a_row_round_trips() {
        let apart = Window::Apart { file_bytes: 900, allocated_bytes: 4_096 };
        for window in [Window::None, Window::Inside, Window::Dropped, apart] {
            assert_eq!(Row::decode(&row(window).encode()), Some(row(window)));
        }
        assert_eq!((row(apart).all_bytes(), row(Window::Inside).all_bytes()), (8_192, 4_096));
        assert_eq!(row(apart).encode().len(), HEAD_BYTES + 8);
    }

    #[test]
    fn rows_of_another_length_or_that_contradict_themselves_are_refused() {
        let bytes = row(Window::None).encode();
        for len in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(Row::decode(&[bytes.clone(), vec![0]].concat()), None);
        for (at, value) in [(136, 4), (137, 1), (153, 101), (170, 1)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert_eq!(Row::decode(&wrong), None, "byte {at}");
        }
        assert_eq!(Row::decode(&Row { parent: None, ..row(Window::None) }.encode()), None);
        assert_eq!(Row::decode(&Row { reuse: f32::NAN, ..row(Window::None) }.encode()), None);
    }

    #[test]
    fn no_row_of_one_version_reads_as_one_of_the_other() {
        let old = v1::Row {
            fingerprint: [1; 32],
            tenant: [2; 32],
            parent: None,
            start: 0,
            file_bytes: 9,
            allocated_bytes: 9,
            full_bytes: 4,
            last_use_us: 1,
            reuse: 1.0,
            hits: 1,
            tokens: vec![1; 40],
        };
        assert_eq!(Row::decode(&old.encode()), None);
        assert_eq!(v1::Row::decode(&row(Window::None).encode()), None);
        assert_eq!(carried(old).window, Window::Inside);
    }
}
