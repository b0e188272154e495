//! Blocks from one store to another: an export is a store itself, without an index.

use std::path::Path;
use std::sync::Arc;

use prefixd_migrations::{Row, Window};
use serde::Serialize;

use super::verify::expected;
use super::{Damage, Inspector, Progress};
use crate::disk::FileSystem;
use crate::disk::directory::{Directory, Listed, io_error};
use crate::disk::index::Change;
use crate::disk::load::Reading;
use crate::disk::open::adopt;
use crate::error::{CacheError, ReadError};
use crate::key::BlockKey;
use crate::memory::Memory;
use crate::payload::Part;

/// Blocks whose rows are made durable together.
const BATCH: usize = 64;

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferReport {
    /// Blocks copied.
    pub blocks: u64,
    /// Allocated bytes of those.
    pub bytes: u64,
    /// Blocks that were there already.
    pub known: u64,
    /// Blocks that are not sound, and were not copied.
    pub refused: Vec<Damage>,
}

impl Inspector {
    /// Copies blocks, each verified, into the store at `to`; with a block its whole chain. `keys` empty: all.
    ///
    /// # Errors
    /// `to` is in use or cannot be written.
    pub fn export(
        &self,
        to: &Path,
        keys: &[BlockKey],
        progress: Progress<'_>,
    ) -> Result<TransferReport, CacheError> {
        apart(&self.directory, to, "the directory of the store that is exported")?;
        let target = Directory::open(to)?;
        let chosen = if keys.is_empty() { self.rows.clone() } else { self.chains(keys) };
        let mut report = TransferReport::default();
        let total = chosen.len() as u64;
        for (done, (key, row)) in chosen.iter().enumerate() {
            progress(done as u64, total);
            if std::fs::symlink_metadata(target.path(key, Part::Full)).is_ok() {
                report.known += 1;
                continue;
            }
            match verified(self.reading(), key, row) {
                Err(ReadError::Gone) => {}
                Err(error) => {
                    report.refused.push(Damage { key: key.to_string(), reason: error.to_string() });
                }
                Ok(()) => {
                    let listed = copy(self.reading(), &target, &*self.files, key)?;
                    report.blocks += 1;
                    report.bytes += listed.all_bytes();
                }
            }
        }
        progress(total, total);
        Ok(report)
    }

    /// Takes in the blocks of the store at `from`, each verified. Blocks that are here already stay as they are.
    ///
    /// # Errors
    /// `from` is no store; this one is only looked at, or cannot be written.
    pub fn import(&mut self, from: &Path, progress: Progress<'_>) -> Result<TransferReport, CacheError> {
        // Refused before anything is copied.
        self.change(&[])?;
        apart(&self.directory, from, "the directory of the store that imports")?;
        let source = Directory::look(from)?;
        let listing = source.list()?;
        let mut found: Vec<(BlockKey, Listed)> = listing.blocks.into_iter().collect();
        found.sort_by_key(|(key, _)| *key);
        let (mut report, mut changes, total) = (TransferReport::default(), Vec::new(), found.len() as u64);
        let files = Arc::clone(&self.files);
        let reading = Reading { directory: &source, files: &*files, memory: &Memory::default() };
        for (done, (key, listed)) in found.into_iter().enumerate() {
            progress(done as u64, total);
            if self.rows.contains_key(&key) {
                report.known += 1;
                continue;
            }
            let sound = reading
                .header(&key, Part::Full)
                .and_then(|header| verified(reading, &key, &adopt(&header, listed)).map(|()| header));
            match sound {
                Err(error) => {
                    report.refused.push(Damage { key: key.to_string(), reason: error.to_string() });
                }
                Ok(header) => {
                    let copied = copy(reading, &self.directory, &*files, &key)?;
                    let row = adopt(&header, copied);
                    changes.push(Change::Put(key, row.encode()));
                    self.rows.insert(key, row);
                    report.blocks += 1;
                    report.bytes += copied.all_bytes();
                }
            }
            if changes.len() >= BATCH {
                self.change(&std::mem::take(&mut changes))?;
            }
        }
        self.change(&changes)?;
        progress(total, total);
        Ok(report)
    }

    /// The blocks and everything before them.
    fn chains(&self, keys: &[BlockKey]) -> std::collections::BTreeMap<BlockKey, Row> {
        let mut chosen = std::collections::BTreeMap::new();
        for key in keys {
            let mut next = Some(*key);
            while let Some((key, row)) = next.and_then(|key| self.rows.get_key_value(&key)) {
                if chosen.insert(*key, row.clone()).is_some() {
                    break;
                }
                next = row.parent.map(BlockKey::from_bytes);
            }
        }
        chosen
    }
}

/// Fails when another store's directory is this one's, or lies in it, by whatever name.
fn apart(here: &Directory, other: &Path, found: &'static str) -> Result<(), CacheError> {
    // What is not there yet lies in a directory that is.
    let place = other.ancestors().find_map(|dir| {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        dir.canonicalize().ok()
    });
    if place.is_some_and(|place| place.starts_with(here.root())) {
        return Err(CacheError::Layout { path: other.to_owned(), found, expected: "another directory" });
    }
    Ok(())
}

fn verified(reading: Reading<'_>, key: &BlockKey, row: &Row) -> Result<(), ReadError> {
    let with_window = row.window != Window::Dropped;
    reading.load(&expected(key, row), with_window).map(drop).map_err(|failure| failure.error)
}

/// Copies a block's files in the order of every write: synced, renamed, directory synced; the window part first.
fn copy(
    from: Reading<'_>,
    to: &Directory,
    files: &dyn FileSystem,
    key: &BlockKey,
) -> Result<Listed, CacheError> {
    let shard = to.shard(key);
    match files.create_dir(&shard) {
        Ok(()) => {
            files.sync_dir(&to.blocks()).map_err(|source| io_error("syncing", &to.blocks(), source))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("creating", &shard, source)),
    }
    let mut sizes = [None, None];
    for (part, size) in [Part::Window, Part::Full].into_iter().zip(&mut sizes) {
        let (source, tmp, path) = (from.directory.path(key, part), to.tmp_path(key, 0), to.path(key, part));
        if part == Part::Window && std::fs::symlink_metadata(&source).is_err() {
            continue;
        }
        let failed = |error| io_error("reading", &source, error);
        let mut file = from.files.open(&source).map_err(failed)?;
        let mut bytes = vec![0; file.metadata().map_err(failed)?.len() as usize];
        let read = from.files.read(&mut file, &mut bytes).map_err(failed)?;
        bytes.truncate(read);
        let allocated =
            files.write_synced(&tmp, &[&bytes]).map_err(|source| io_error("writing", &tmp, source))?;
        files.rename(&tmp, &path).map_err(|source| io_error("renaming to", &path, source))?;
        *size = Some((bytes.len() as u64, allocated));
    }
    files.sync_dir(&shard).map_err(|source| io_error("syncing", &shard, source))?;
    let [window, full] = sizes;
    let (file_bytes, allocated_bytes) = full.unwrap_or_default();
    let modified_us = super::entry::now_us();
    Ok(Listed { file_bytes, allocated_bytes, modified_us, window })
}
