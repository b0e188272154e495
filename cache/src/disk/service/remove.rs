//! Taking blocks off the disk.

use std::fs;
use std::io;

use prefixd_migrations::{Row, Window};

use super::Service;
use crate::disk::directory::{Listed, Listing, PARTS};
use crate::disk::files::{self, FileId};
use crate::disk::index::Change;
use crate::key::BlockKey;
use crate::payload::Part;
use crate::tier::Event;

impl Service {
    /// Removes rows, then files. Without the rows gone no file goes.
    pub(super) fn remove(&mut self, keys: &[BlockKey]) {
        let changes: Vec<Change> = keys.iter().copied().map(Change::Remove).collect();
        let unindexed = self.change(&changes);
        for key in keys {
            let bytes = self.directory.allocated_bytes(key);
            let removed = unindexed
                .clone()
                .and_then(|()| PARTS.iter().try_for_each(|part| self.remove_file(key, *part)));
            if let Err(reason) = removed {
                self.tell(Event::Stuck { bytes, reason });
            }
        }
    }

    /// Removes window parts: rows first, then files.
    pub(super) fn drop_windows(&mut self, keys: &[BlockKey]) {
        let changes: Vec<Change> = keys
            .iter()
            .filter_map(|key| {
                let row = Row { window: Window::Dropped, ..self.index.as_ref()?.row(key)? };
                Some(Change::Put(*key, row.encode()))
            })
            .collect();
        let indexed = self.change(&changes);
        for key in keys {
            let path = self.directory.path(key, Part::Window);
            let bytes = fs::symlink_metadata(&path).map_or(0, |metadata| files::allocated(&metadata));
            if let Err(reason) = indexed.clone().and_then(|()| self.remove_file(key, Part::Window)) {
                self.tell(Event::Stuck { bytes, reason });
            }
        }
    }

    fn remove_file(&self, key: &BlockKey, part: Part) -> Result<(), String> {
        let path = self.directory.path(key, part);
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("removing {}: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Moves a damaged block to quarantine, row first. A file that has taken its place since is left alone.
    pub(super) fn quarantine(&mut self, key: BlockKey, copy: u64, file: Option<FileId>) {
        let there = PARTS.map(|part| {
            fs::symlink_metadata(self.directory.path(&key, part)).ok().map(|metadata| FileId::of(&metadata))
        });
        let mut bytes = 0;
        if file.is_some() && there.contains(&file) {
            let moved = self.change(&[Change::Remove(key)]).and_then(|()| {
                self.directory
                    .quarantine_block(&*self.files, &key)
                    .map_err(|error| format!("quarantining {key}: {error}"))
            });
            match moved {
                Ok(moved) => bytes = moved,
                Err(reason) => {
                    let bytes = self.directory.allocated_bytes(&key);
                    self.tell(Event::Stuck { bytes, reason });
                }
            }
        }
        self.tell(Event::Quarantined { key, copy, bytes });
    }

    /// Removes every row, block, snapshot and quarantined file.
    pub(super) fn clear(&mut self) {
        if let Some(Err(_)) = self.index.as_ref().map(crate::disk::index::Index::clear) {
            self.index = None;
        }
        let Listing { blocks, snapshots, orphans, .. } = self.directory.list().unwrap_or_default();
        let windows = blocks.iter().filter(|(_, listed)| listed.window.is_some()).map(|(key, _)| key);
        let mut paths: Vec<_> =
            windows.chain(orphans.keys()).map(|key| self.directory.path(key, Part::Window)).collect();
        paths.extend(blocks.keys().map(|key| self.directory.path(key, Part::Full)));
        paths.extend(snapshots.keys().map(|key| self.directory.path(key, Part::State)));
        let quarantined = fs::read_dir(self.directory.quarantine()).into_iter().flatten().flatten();
        paths.extend(quarantined.map(|entry| entry.path()));
        for path in paths {
            if let Err(error) = self.files.remove(&path) {
                self.tell(Event::Stuck { bytes: 0, reason: format!("removing {}: {error}", path.display()) });
            }
        }
        let other_bytes = self.directory.list().map_or(0, |listing| {
            let left = listing.blocks.values().chain(listing.snapshots.values()).map(Listed::all_bytes);
            listing.other_bytes + left.sum::<u64>()
        });
        self.tell(Event::Index { bytes: self.directory.index_bytes() });
        self.tell(Event::Cleared { other_bytes });
    }
}
