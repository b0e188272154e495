//! Changes to a store that nobody else uses: pin, unpin, clear.

use std::io;

use prefixd_migrations::Row;
use serde::Serialize;

use super::Inspector;
use super::entry::now_us;
use crate::disk::directory::io_error;
use crate::disk::index::Change;
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::payload::Part;
use crate::retention::{Keep, Pin, Retention};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Blocks.
    pub blocks: u64,
    /// Files of the quarantine.
    pub quarantine_files: u64,
    /// Allocated bytes of both.
    pub bytes: u64,
}

impl Inspector {
    /// Pins a block, and with it everything before it; [`Pin::None`] takes the pin back.
    ///
    /// # Errors
    /// The store is only looked at, or its index fails.
    pub fn pin(&mut self, key: &BlockKey, pin: Pin) -> Result<(), CacheError> {
        let Some(row) = self.rows.get(key) else { return Ok(()) };
        let keep = Keep::at(&Retention { pin, ..Retention::default() }, now_us());
        let row = Row { pinned_until_us: keep.pinned_until_us, ..row.clone() };
        self.change(&[Change::Put(*key, row.encode())])?;
        self.rows.insert(*key, row);
        Ok(())
    }

    /// Removes every block and everything in quarantine.
    ///
    /// # Errors
    /// The store is only looked at; something cannot be removed.
    pub fn clear(&mut self) -> Result<Removed, CacheError> {
        let keys: Vec<BlockKey> = self.rows.keys().copied().collect();
        let mut removed = self.remove(&keys)?;
        let (files, bytes) = self.empty_quarantine()?;
        removed.quarantine_files = files;
        removed.bytes += bytes;
        Ok(removed)
    }

    /// Removes blocks: rows, then files.
    pub(super) fn remove(&mut self, keys: &[BlockKey]) -> Result<Removed, CacheError> {
        let changes: Vec<Change> = keys.iter().copied().map(Change::Remove).collect();
        self.change(&changes)?;
        let mut removed = Removed::default();
        for key in keys {
            for part in [Part::Window, Part::Full] {
                match self.files.remove(&self.directory.path(key, part)) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(self.failed("removing", key, source));
                    }
                    _ => {}
                }
            }
            removed.blocks += 1;
            removed.bytes += self.rows.remove(key).map_or(0, |row| row.all_bytes());
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

    pub(super) fn failed(&self, doing: &'static str, key: &BlockKey, source: io::Error) -> CacheError {
        io_error(doing, &self.directory.path(key, Part::Full), source)
    }
}
