//! Taking blocks off the disk.

use std::fs;
use std::io;

use super::Service;
use crate::disk::files::{self, FileId};
use crate::disk::index::Change;
use crate::disk::message::Report;
use crate::key::BlockKey;

impl Service {
    /// Removes rows, then files. Without the rows gone no file goes.
    pub(super) fn remove(&mut self, keys: &[BlockKey]) {
        let changes: Vec<Change> = keys.iter().copied().map(Change::Remove).collect();
        let unindexed = self.change(&changes);
        for key in keys {
            let path = self.directory.path(key);
            let bytes = fs::symlink_metadata(&path).map_or(0, |metadata| files::allocated(&metadata));
            let removed = unindexed.clone().and_then(|()| match self.files.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(format!("removing {}: {error}", path.display()))
                }
                _ => Ok(()),
            });
            if let Err(reason) = removed {
                self.report(Report::Stuck { bytes, reason });
            }
        }
    }

    /// Moves a damaged file to quarantine, row first. A file that has taken its place since is left alone.
    pub(super) fn quarantine(&mut self, key: BlockKey, copy: u64, file: Option<FileId>) {
        let there =
            fs::symlink_metadata(self.directory.path(&key)).ok().map(|metadata| FileId::of(&metadata));
        let mut bytes = 0;
        if file.is_some() && there == file {
            let moved = self.change(&[Change::Remove(key)]).and_then(|()| {
                self.directory
                    .quarantine_block(&*self.files, &key)
                    .map_err(|error| format!("quarantining {key}: {error}"))
            });
            match moved {
                Ok(moved) => bytes = moved,
                Err(reason) => {
                    let metadata = fs::symlink_metadata(self.directory.path(&key));
                    let bytes = metadata.map_or(0, |metadata| files::allocated(&metadata));
                    self.report(Report::Stuck { bytes, reason });
                }
            }
        }
        self.report(Report::Quarantined { key, copy, bytes });
    }

    /// Removes every row, block and quarantined file.
    pub(super) fn clear(&mut self) {
        if let Some(Err(_)) = self.index.as_ref().map(crate::disk::index::Index::clear) {
            self.index = None;
        }
        let blocks = self.directory.list().map(|listing| listing.blocks).unwrap_or_default();
        let mut paths: Vec<_> = blocks.keys().map(|key| self.directory.path(key)).collect();
        let quarantined = fs::read_dir(self.directory.quarantine()).into_iter().flatten().flatten();
        paths.extend(quarantined.map(|entry| entry.path()));
        for path in paths {
            if let Err(error) = self.files.remove(&path) {
                self.report(Report::Stuck {
                    bytes: 0,
                    reason: format!("removing {}: {error}", path.display()),
                });
            }
        }
        let other_bytes = self.directory.list().map_or(0, |listing| {
            listing.other_bytes + listing.blocks.values().map(|block| block.allocated_bytes).sum::<u64>()
        });
        self.report(Report::Index { bytes: self.directory.index_bytes() });
        self.report(Report::Cleared { other_bytes });
    }
}
