//! Looking after a store from outside: list, check, clean up, pin, move, rebuild.
//!
//! 1. What changes the store holds its lock, like a server: while one runs, it is refused with the holder's name.
//! 2. What only reads works while a server runs, too: it reads the headers of the files, which never change, and
//!    knows nothing of recency and pins then. A block or snapshot that leaves meanwhile is left out.
//! 3. Snapshots are looked after like blocks that nothing stands behind; see `stored`.
//! 4. Nothing here prints; progress is a function that is called with what is done and of how many.

mod bytes;
mod change;
mod collect;
mod detail;
mod entry;
mod pin;
#[cfg(test)]
mod snapshot_tests;
mod stored;
mod summary;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

pub use bytes::check_block_bytes;
pub use change::Removed;
pub use collect::{CollectReport, Collection};
pub use detail::{BlockDetail, Detail, SnapshotDetail, TensorDetail};
pub use entry::{StoredBlock, StoredSnapshot, WindowState};
pub use summary::{FingerprintSummary, StoreSummary};
pub use transfer::TransferReport;
pub use verify::{Damage, Kind, VerifyReport};

use crate::disk::directory::{Directory, Listing};
use crate::disk::index::Index;
use crate::disk::load::Reading;
use crate::disk::open::open;
use crate::disk::{FileSystem, OsFileSystem};
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::memory::Memory;
use stored::Stored;

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

/// Why a block or a snapshot could not be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not hexadecimal, or too long.
    #[error(
        "{0:?} is no key of a block or a snapshot: expected up to 64 hexadecimal digits, its first ones are enough"
    )]
    NotAKey(String),
    /// No key starts so.
    #[error("no block's key starts with {0}, and no snapshot's")]
    Unknown(String),
    /// Several do.
    #[error("{count} keys start with {digits}; give more digits")]
    Ambiguous {
        /// What was given.
        digits: String,
        /// How many.
        count: usize,
    },
}

/// A store that is looked at or looked after.
pub struct Inspector {
    directory: Arc<Directory>,
    files: Arc<dyn FileSystem>,
    /// What files are read into while they are checked.
    memory: Memory,
    /// `None` when the store is only looked at.
    index: Option<Index>,
    /// Every block and every snapshot.
    stored: BTreeMap<BlockKey, Stored>,
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

    /// Removes the index and makes it anew from the headers of all files. Recency, pins and priorities are lost.
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
        let blocks = opened.rows.into_iter().map(|(key, row)| (key, Stored::Block(row)));
        let snapshots = opened.snapshots.into_iter().map(|(key, row)| (key, Stored::Snapshot(row)));
        Ok(Self {
            directory: opened.directory,
            files,
            memory: Memory::default(),
            index: Some(opened.index),
            stored: blocks.chain(snapshots).collect(),
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
        let found = stored::listed(&listing);
        let total = found.len() as u64;
        let reading = Reading { directory: &directory, files: &*files, memory: &memory };
        let mut stored = BTreeMap::new();
        for (done, (key, part, listed)) in found.into_iter().enumerate() {
            progress(done as u64, total);
            // One that cannot be read, or is gone by now, is not listed; `verify` says more.
            if let Ok(header) = reading.header(&key, part) {
                stored.insert(key, Stored::adopt(&header, listed));
            }
        }
        progress(total, total);
        let (directory, used_by) = (Arc::new(directory), Some(holder));
        Ok(Self { directory, files, memory, index: None, stored, listing, used_by })
    }

    /// The process that uses the store, when it is only looked at.
    pub fn used_by(&self) -> Option<&str> {
        self.used_by.as_deref()
    }

    /// All blocks, in order of fingerprint, tenant and chain.
    pub fn blocks(&self) -> Vec<StoredBlock> {
        let mut behind: HashMap<BlockKey, u64> = HashMap::new();
        for stored in self.stored.values().filter(|stored| stored.is_snapshot()) {
            if let Some(parent) = stored.facts().parent {
                *behind.entry(parent).or_default() += 1;
            }
        }
        let rows = self.stored.iter().filter_map(|(key, stored)| Some((key, stored.block()?)));
        let mut blocks: Vec<StoredBlock> = rows
            .map(|(key, row)| self.stored_block(key, row, behind.get(key).copied().unwrap_or_default()))
            .collect();
        let roots = self.roots();
        blocks.sort_by_cached_key(|block| {
            (block.fingerprint.clone(), block.tenant.clone(), roots.get(&block.key).copied(), block.start)
        });
        blocks
    }

    /// All snapshots, in the same order.
    pub fn snapshots(&self) -> Vec<StoredSnapshot> {
        let snapshots = self.stored.iter().filter(|(_, stored)| stored.is_snapshot());
        let mut snapshots: Vec<StoredSnapshot> =
            snapshots.map(|(key, stored)| self.stored_snapshot(key, stored)).collect();
        let roots = self.roots();
        snapshots.sort_by_cached_key(|snapshot| {
            let (root, end) = (roots.get(&snapshot.key).copied(), snapshot.start + snapshot.tokens);
            (snapshot.fingerprint.clone(), snapshot.tenant.clone(), root, end)
        });
        snapshots
    }

    /// The block or snapshot whose key starts with `digits`.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn find(&self, digits: &str) -> Result<BlockKey, NameError> {
        let digits = digits.to_ascii_lowercase();
        if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NameError::NotAKey(digits));
        }
        let found: Vec<&BlockKey> =
            self.stored.keys().filter(|key| key.to_string().starts_with(&digits)).collect();
        match found[..] {
            [] => Err(NameError::Unknown(digits)),
            [key] => Ok(*key),
            _ => Err(NameError::Ambiguous { digits, count: found.len() }),
        }
    }

    fn reading(&self) -> Reading<'_> {
        Reading { directory: &self.directory, files: &*self.files, memory: &self.memory }
    }

    /// The first block there is of the chain that each block and each snapshot stands in.
    fn roots(&self) -> HashMap<BlockKey, BlockKey> {
        let mut roots: HashMap<BlockKey, BlockKey> = HashMap::new();
        for (key, stored) in self.by_start() {
            let root = stored.facts().parent.and_then(|parent| roots.get(&parent)).copied().unwrap_or(key);
            roots.insert(key, root);
        }
        roots
    }

    /// Everything there is, what stands behind a block after it.
    fn by_start(&self) -> Vec<(BlockKey, &Stored)> {
        let mut all: Vec<(BlockKey, &Stored)> =
            self.stored.iter().map(|(key, stored)| (*key, stored)).collect();
        all.sort_by_key(|(_, stored)| stored.facts().start);
        all
    }
}
