//! The sled index: what is on disk, without opening the files. Derived; the files are the truth.
//!
//! 1. A row is written after its file is durable, and removed before it.
//! 2. sled's own failures, panics included, are errors here: a damaged index is set aside and rebuilt.
//!
//! Only the eviction service and `open` use it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use prefixd_migrations::{BLOCKS_TREE, META_TREE, MigrationError, Row, SNAPSHOTS_TREE, SnapshotRow, migrate};

use crate::disk::directory::io_error;
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::tier::Written;

/// Rows are read once, at start; sled's page cache only serves writes.
const PAGE_CACHE_BYTES: u64 = 16 << 20;

/// How long to wait for files that this process is about to let go of.
const BUSY_FOR: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Key of [`Written`] in the tree of facts about the whole store.
const WRITTEN: &str = "written";

pub(crate) struct Index {
    db: sled::Db,
    blocks: sled::Tree,
    snapshots: sled::Tree,
    meta: sled::Tree,
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Of a block.
    Put(BlockKey, Vec<u8>),
    PutSnapshot(BlockKey, Vec<u8>),
    /// Whichever it is: no block has a snapshot's key.
    Remove(BlockKey),
}

impl Index {
    /// Opens and migrates the index, or replaces one that is damaged by an empty one.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let failed = |failure: Failure| CacheError::Index { path: path.to_owned(), reason: failure.reason() };
        match Self::open_when_free(path) {
            Err(Failure::Damaged(_)) => {
                discard(path)?;
                Self::open_when_free(path).map_err(failed)
            }
            opened => opened.map_err(failed),
        }
    }

    /// sled lets go of its files on a thread of its own, some time after it was dropped. The store's lock is ours, so
    /// whoever still has them open is this process, and about to finish.
    fn open_when_free(path: &Path) -> Result<Self, Failure> {
        let begun = Instant::now();
        loop {
            match Self::try_open(path) {
                Err(Failure::Busy(_)) if begun.elapsed() < BUSY_FOR => thread::sleep(BUSY_PAUSE),
                opened => return opened,
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, Failure> {
        if let Ok(metadata) = fs::symlink_metadata(path)
            && !metadata.is_dir()
        {
            return Err(Failure::Refused("not a directory".into()));
        }
        guarded(|| {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(PAGE_CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                // The service flushes when it has something to say.
                .flush_every_ms(None)
                .open()?;
            migrate(&db)?;
            let (blocks, snapshots) = (db.open_tree(BLOCKS_TREE)?, db.open_tree(SNAPSHOTS_TREE)?);
            let meta = db.open_tree(META_TREE)?;
            Ok(Self { db, blocks, snapshots, meta })
        })
    }

    /// All rows of blocks that can be read.
    pub fn rows(&self) -> Result<Vec<(BlockKey, Row)>, String> {
        rows(&self.blocks, Row::decode)
    }

    /// All rows of snapshots that can be read.
    pub fn snapshots(&self) -> Result<Vec<(BlockKey, SnapshotRow)>, String> {
        rows(&self.snapshots, SnapshotRow::decode)
    }

    /// Writes changes and makes them durable.
    pub fn apply(&self, changes: &[Change]) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        guarded(|| {
            let (mut blocks, mut snapshots) = (sled::Batch::default(), sled::Batch::default());
            for change in changes {
                match change {
                    Change::Put(key, row) => blocks.insert(key.as_bytes(), row.as_slice()),
                    Change::PutSnapshot(key, row) => snapshots.insert(key.as_bytes(), row.as_slice()),
                    Change::Remove(key) => {
                        blocks.remove(key.as_bytes());
                        snapshots.remove(key.as_bytes());
                    }
                }
            }
            self.blocks.apply_batch(blocks)?;
            self.snapshots.apply_batch(snapshots)?;
            self.db.flush()?;
            Ok(())
        })
        .map_err(Failure::reason)
    }

    /// The row of a block, if it has one.
    pub fn row(&self, key: &BlockKey) -> Option<Row> {
        guarded(|| Ok(self.blocks.get(key.as_bytes())?)).ok().flatten().and_then(|bytes| Row::decode(&bytes))
    }

    /// The row of a snapshot, if it has one.
    pub fn snapshot(&self, key: &BlockKey) -> Option<SnapshotRow> {
        let bytes = guarded(|| Ok(self.snapshots.get(key.as_bytes())?)).ok().flatten();
        bytes.and_then(|bytes| SnapshotRow::decode(&bytes))
    }

    /// What was written on the last day anything was.
    pub fn written(&self) -> Written {
        let bytes = guarded(|| Ok(self.meta.get(WRITTEN)?)).ok().flatten();
        let numbers = bytes.as_deref().and_then(|bytes| {
            let (day, rest) = bytes.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*day), u64::from_le_bytes(rest.try_into().ok()?)))
        });
        numbers.map_or(Written::default(), |(day, bytes)| Written { day, bytes })
    }

    /// Notes what was written; durable with the next change.
    pub fn note_written(&self, written: Written) -> Result<(), String> {
        let value = [written.day.to_le_bytes(), written.bytes.to_le_bytes()].concat();
        guarded(|| Ok(self.meta.insert(WRITTEN, value)?)).map(drop).map_err(Failure::reason)
    }

    /// Removes all rows.
    pub fn clear(&self) -> Result<(), String> {
        guarded(|| {
            self.blocks.clear()?;
            self.snapshots.clear()?;
            self.db.flush()?;
            Ok(())
        })
        .map_err(Failure::reason)
    }
}

/// The rows of a tree that can be read; a file whose row cannot gets a new one.
fn rows<T>(tree: &sled::Tree, decode: fn(&[u8]) -> Option<T>) -> Result<Vec<(BlockKey, T)>, String> {
    guarded(|| {
        let mut rows = Vec::new();
        for entry in tree {
            let (key, value) = entry?;
            let key = <[u8; 32]>::try_from(&*key).ok().map(BlockKey::from_bytes);
            rows.extend(key.zip(decode(&value)));
        }
        Ok(rows)
    })
    .map_err(Failure::reason)
}

enum Failure {
    /// Sound, and not for this build.
    Refused(String),
    /// Open already.
    Busy(String),
    Damaged(String),
}

impl Failure {
    fn reason(self) -> String {
        let (Self::Refused(reason) | Self::Busy(reason) | Self::Damaged(reason)) = self;
        reason
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::Refused(error.to_string())
            }
            // The only way to tell, in this version of sled.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                Self::Busy(error.to_string())
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<MigrationError> for Failure {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Newer { .. } => Self::Refused(error.to_string()),
            MigrationError::Database(error) => error.into(),
            MigrationError::Version { .. } => Self::Damaged(error.to_string()),
        }
    }
}

/// sled panics on some damaged files; to its user that is one more way to be damaged.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Failure::Damaged("sled panicked".into())))
}

/// Removes the index of a store, so that the next opening makes it anew.
pub(crate) fn remove(path: &Path) -> Result<(), CacheError> {
    discard(path)
}

/// Removes a damaged index. It is moved first, so that whatever still holds it open keeps its own files.
fn discard(path: &Path) -> Result<(), CacheError> {
    let aside: PathBuf = path.with_extension("damaged");
    for dir in [&aside, path] {
        if fs::symlink_metadata(dir).is_err() {
            continue;
        }
        if dir == path {
            fs::rename(path, &aside).map_err(|source| io_error("setting aside", path, source))?;
        }
        fs::remove_dir_all(&aside).map_err(|source| io_error("removing", &aside, source))?;
    }
    Ok(())
}
