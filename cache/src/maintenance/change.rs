//! Changes to a store that nobody else uses: removing, and the index.

use std::cmp::Reverse;
use std::io;

use serde::Serialize;

use super::Inspector;
use crate::disk::directory::{PARTS, io_error};
use crate::disk::index::Change;
use crate::error::CacheError;
use crate::key::BlockKey;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Blocks.
    pub blocks: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Files of the quarantine.
    pub quarantine_files: u64,
    /// Allocated bytes of all of these.
    pub bytes: u64,
}

impl Inspector {
    /// Removes every block, every snapshot and everything in quarantine.
    ///
    /// # Errors
    /// The store is only looked at; something cannot be removed.
    pub fn clear(&mut self) -> Result<Removed, CacheError> {
        let mut removed = self.remove(self.stored.keys().copied().collect())?;
        let (files, bytes) = self.empty_quarantine()?;
        removed.quarantine_files = files;
        removed.bytes += bytes;
        Ok(removed)
    }

    /// Removes blocks and snapshots: rows, then files. What stands behind a block leaves before it, so that an interrupted
    /// run leaves no orphan.
    pub(super) fn remove(&mut self, mut keys: Vec<BlockKey>) -> Result<Removed, CacheError> {
        keys.sort_by_key(|key| Reverse(self.stored.get(key).map_or(0, |stored| stored.facts().start)));
        let changes: Vec<Change> = keys.iter().copied().map(Change::Remove).collect();
        self.change(&changes)?;
        let mut removed = Removed::default();
        for key in keys {
            for part in PARTS {
                let path = self.directory.path(&key, part);
                match self.files.remove(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(io_error("removing", &path, source));
                    }
                    _ => {}
                }
            }
            if let Some(stored) = self.stored.remove(&key) {
                removed.count(stored.is_snapshot(), stored.facts().bytes);
            }
        }
        Ok(removed)
    }

    /// Removes what is in quarantine; files and allocated bytes.
    pub(super) fn empty_quarantine(&mut self) -> Result<(u64, u64), CacheError> {
        let dir = self.directory.quarantine();
        let failed = |source| io_error("listing", &dir, source);
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            self.files.remove(&path).map_err(|source| io_error("removing", &path, source))?;
        }
        let (files, bytes) = (self.listing.quarantine_files, self.listing.quarantine_bytes);
        self.listing.quarantine_files = 0;
        self.listing.quarantine_bytes = 0;
        self.listing.other_bytes -= bytes;
        Ok((files, bytes))
    }

    /// Changes the index and makes it durable.
    pub(super) fn change(&self, changes: &[Change]) -> Result<(), CacheError> {
        let Some(index) = &self.index else {
            let (dir, holder) = (self.directory.root().to_owned(), self.used_by.clone().unwrap_or_default());
            return Err(CacheError::Locked { dir, holder });
        };
        index.apply(changes).map_err(|reason| CacheError::Index { path: self.directory.index(), reason })
    }
}

impl Removed {
    pub(super) fn count(&mut self, is_snapshot: bool, bytes: u64) {
        if is_snapshot {
            self.snapshots += 1;
        } else {
            self.blocks += 1;
        }
        self.bytes += bytes;
    }
}
