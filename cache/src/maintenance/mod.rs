//! Looking after a store from outside: list, check, clean up, pin, move, rebuild.
//!
//! 1. What changes the store holds its lock, like a server: while one runs, it is refused with the holder's name.
//! 2. What only reads works while a server runs, too: it reads the headers of the block files, which never change, and
//!    knows nothing of recency and pins then. A block that leaves meanwhile is left out.
//! 3. Nothing here prints; progress is a function that is called with what is done and of how many.

mod bytes;
mod change;
mod collect;
mod entry;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

pub use bytes::check_block_bytes;
pub use change::Removed;
pub use collect::{CollectReport, Collection};
pub use entry::{BlockDetail, StoredBlock, TensorDetail, WindowState};
pub use transfer::TransferReport;
pub use verify::{Damage, VerifyReport};

use crate::disk::directory::{Directory, Listing};
use crate::disk::index::Index;
use crate::disk::load::Reading;
use crate::disk::open::{adopt, open};
use crate::disk::{FileSystem, OsFileSystem};
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::memory::Memory;
use crate::payload::Part;
use prefixd_migrations::Row;

/// Called with what is done, and of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What an [`Inspector`] is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Only to read; works while a server uses the store.
    Read,
    /// To change the store; refused while a server uses it.
    Change,
}

/// Why a block could not be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not hexadecimal, or too long.
    #[error("{0:?} is no block key: expected up to 64 hexadecimal digits, its first ones are enough")]
    NotAKey(String),
    /// No block's key starts so.
    #[error("no block's key starts with {0}")]
    Unknown(String),
    /// Several do.
    #[error("{count} blocks' keys start with {digits}; give more digits")]
    Ambiguous {
        /// What was given.
        digits: String,
        /// How many.
        count: usize,
    },
}

/// A store as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreSummary {
    /// Its directory.
    pub dir: String,
    /// The process that uses it, when it is only read.
    pub used_by: Option<String>,
    /// Blocks.
    pub blocks: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Allocated bytes of blocks, window parts included.
    pub bytes: u64,
    /// Of these, bytes of window parts.
    pub window_bytes: u64,
    /// Blocks whose window part was dropped.
    pub dropped_windows: u64,
    /// Blocks that a pin keeps.
    pub pinned_blocks: u64,
    /// Blocks whose parent is not there: no lookup finds them.
    pub orphan_blocks: u64,
    /// Tenants.
    pub tenants: u64,
    /// What computed the blocks.
    pub fingerprints: Vec<FingerprintSummary>,
    /// Files in quarantine.
    pub quarantine_files: u64,
    /// Allocated bytes of those.
    pub quarantine_bytes: u64,
    /// Allocated bytes of everything else that is no block: lock, directories, files that are not ours.
    pub other_bytes: u64,
    /// Allocated bytes of the index.
    pub index_bytes: u64,
}

/// The blocks of one fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FingerprintSummary {
    /// 64 hexadecimal digits.
    pub fingerprint: String,
    /// Blocks.
    pub blocks: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Allocated bytes.
    pub bytes: u64,
}

/// A store that is looked at or looked after.
pub struct Inspector {
    directory: Arc<Directory>,
    files: Arc<dyn FileSystem>,
    /// What blocks are read into while they are checked.
    memory: Memory,
    /// `None` when the store is only looked at.
    index: Option<Index>,
    rows: BTreeMap<BlockKey, Row>,
    listing: Listing,
    used_by: Option<String>,
}

impl Inspector {
    /// Opens a store that is there already. With the lock to be had, this does what a server does at start: it empties
    /// `tmp`, adopts files without a row, quarantines what is no block.
    ///
    /// # Errors
    /// There is no store; it is in use and to be changed; an index written by a newer build.
    pub fn open(dir: &Path, purpose: Purpose, progress: Progress<'_>) -> Result<Self, CacheError> {
        let looked = Directory::look(dir)?;
        match Self::lock(dir, progress) {
            Err(CacheError::Locked { holder, .. }) if purpose == Purpose::Read => {
                Self::from_headers(looked, holder, progress)
            }
            opened => opened,
        }
    }

    /// Removes the index and makes it anew from the headers of all blocks. Recency, pins and priorities are lost.
    ///
    /// # Errors
    /// As [`open`](Self::open); a system error.
    pub fn rebuild(dir: &Path, progress: Progress<'_>) -> Result<Self, CacheError> {
        Directory::look(dir)?;
        let locked = Directory::open(dir)?;
        crate::disk::index::remove(&locked.index())?;
        drop(locked);
        Self::lock(dir, progress)
    }

    fn lock(dir: &Path, progress: Progress<'_>) -> Result<Self, CacheError> {
        let files: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
        let opened = open(dir, &*files, progress)?;
        Ok(Self {
            directory: opened.directory,
            files,
            memory: Memory::default(),
            index: Some(opened.index),
            rows: opened.rows.into_iter().collect(),
            listing: opened.listing,
            used_by: None,
        })
    }

    fn from_headers(
        directory: Directory,
        holder: String,
        progress: Progress<'_>,
    ) -> Result<Self, CacheError> {
        let files: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
        let (listing, memory) = (directory.list()?, Memory::default());
        let total = listing.blocks.len() as u64;
        let mut rows = BTreeMap::new();
        for (done, (key, listed)) in listing.blocks.iter().enumerate() {
            progress(done as u64, total);
            let reading = Reading { directory: &directory, files: &*files, memory: &memory };
            // One that cannot be read, or is gone by now, is not listed; `verify` says more.
            if let Ok(header) = reading.header(key, Part::Full) {
                rows.insert(*key, adopt(&header, *listed));
            }
        }
        progress(total, total);
        let (directory, used_by) = (Arc::new(directory), Some(holder));
        Ok(Self { directory, files, memory, index: None, rows, listing, used_by })
    }

    /// The process that uses the store, when it is only looked at.
    pub fn used_by(&self) -> Option<&str> {
        self.used_by.as_deref()
    }

    /// All blocks, in order of fingerprint, tenant and chain.
    pub fn blocks(&self) -> Vec<StoredBlock> {
        let known: HashSet<&BlockKey> = self.rows.keys().collect();
        let mut blocks: Vec<StoredBlock> = self
            .rows
            .iter()
            .map(|(key, row)| StoredBlock::new(*key, row, self.index.is_some(), &known))
            .collect();
        let roots = self.roots();
        blocks.sort_by_cached_key(|block| {
            (block.fingerprint.clone(), block.tenant.clone(), roots.get(&block.key).copied(), block.start)
        });
        blocks
    }

    /// One block with its tensors and tokens.
    ///
    /// # Errors
    /// Its header cannot be read, or the window part's.
    pub fn show(&self, key: &BlockKey) -> Result<BlockDetail, crate::ReadError> {
        let row = self.rows.get(key).ok_or(crate::ReadError::Gone)?;
        let known: HashSet<&BlockKey> = self.rows.keys().collect();
        let block = StoredBlock::new(*key, row, self.index.is_some(), &known);
        let reading = self.reading();
        let mut headers = vec![reading.header(key, Part::Full)?];
        if block.window == WindowState::Apart {
            headers.push(reading.header(key, Part::Window)?);
        }
        let children = self.rows.values().filter(|row| row.parent == Some(*key.as_bytes())).count() as u64;
        Ok(BlockDetail::new(block, row, &headers, children))
    }

    /// The block whose key starts with `digits`.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn find(&self, digits: &str) -> Result<BlockKey, NameError> {
        let digits = digits.to_ascii_lowercase();
        if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NameError::NotAKey(digits));
        }
        let found: Vec<&BlockKey> =
            self.rows.keys().filter(|key| key.to_string().starts_with(&digits)).collect();
        match found[..] {
            [] => Err(NameError::Unknown(digits)),
            [key] => Ok(*key),
            _ => Err(NameError::Ambiguous { digits, count: found.len() }),
        }
    }

    /// The store as a whole.
    pub fn summary(&self) -> StoreSummary {
        let blocks = self.blocks();
        let mut fingerprints: BTreeMap<&str, FingerprintSummary> = BTreeMap::new();
        for block in &blocks {
            let entry = fingerprints.entry(&block.fingerprint).or_insert_with(|| FingerprintSummary {
                fingerprint: block.fingerprint.clone(),
                blocks: 0,
                tokens: 0,
                bytes: 0,
            });
            entry.blocks += 1;
            entry.tokens += block.tokens;
            entry.bytes += block.bytes;
        }
        let count =
            |wanted: &dyn Fn(&StoredBlock) -> bool| blocks.iter().filter(|b| wanted(b)).count() as u64;
        StoreSummary {
            dir: self.directory.root().display().to_string(),
            used_by: self.used_by.clone(),
            blocks: blocks.len() as u64,
            tokens: blocks.iter().map(|block| block.tokens).sum(),
            bytes: blocks.iter().map(|block| block.bytes).sum(),
            window_bytes: blocks.iter().map(|block| block.window_bytes).sum(),
            dropped_windows: count(&|block| block.window == WindowState::Dropped),
            pinned_blocks: count(&|block| block.pinned),
            orphan_blocks: count(&|block| block.orphan),
            tenants: blocks.iter().map(|block| &block.tenant).collect::<HashSet<_>>().len() as u64,
            fingerprints: fingerprints.into_values().collect(),
            quarantine_files: self.listing.quarantine_files,
            quarantine_bytes: self.listing.quarantine_bytes,
            other_bytes: self.listing.other_bytes - self.listing.quarantine_bytes,
            index_bytes: self.directory.index_bytes(),
        }
    }

    fn reading(&self) -> Reading<'_> {
        Reading { directory: &self.directory, files: &*self.files, memory: &self.memory }
    }

    /// The first block there is of each block's chain.
    fn roots(&self) -> HashMap<BlockKey, BlockKey> {
        let mut roots: HashMap<BlockKey, BlockKey> = HashMap::new();
        let mut by_start: Vec<(&BlockKey, &Row)> = self.rows.iter().collect();
        by_start.sort_by_key(|(_, row)| row.start);
        for (key, row) in by_start {
            let parent = row.parent.map(BlockKey::from_bytes);
            let root = parent.and_then(|parent| roots.get(&parent)).copied().unwrap_or(*key);
            roots.insert(*key, root);
        }
        roots
    }
}
