//! Blocks and snapshots from one store to another: an export is a store itself, without an index.
//!
//! 1. Each is verified before it is copied, and written as a server writes it: synced, renamed, directory synced, row.
//! 2. With a block go all blocks before it, and the snapshots on all of these: a prompt can be resumed there as here. Those
//!    of other prompts that part within a block stay.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use prefixd_migrations::Row;
use serde::Serialize;

use super::stored::{Stored, listed};
use super::{Damage, Inspector, Progress};
use crate::disk::FileSystem;
use crate::disk::directory::{Directory, Listed, io_error};
use crate::disk::load::Reading;
use crate::error::{CacheError, ReadError};
use crate::key::BlockKey;
use crate::memory::Memory;
use crate::payload::Part;

/// Blocks and snapshots whose rows are made durable together.
const BATCH: usize = 64;

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferReport {
    /// Blocks copied.
    pub blocks: u64,
    /// Snapshots copied.
    pub snapshots: u64,
    /// Allocated bytes of both.
    pub bytes: u64,
    /// Blocks and snapshots that were there already.
    pub known: u64,
    /// Those that are not sound, and were not copied.
    pub refused: Vec<Damage>,
}

impl TransferReport {
    fn count(&mut self, is_snapshot: bool, bytes: u64) {
        if is_snapshot {
            self.snapshots += 1;
        } else {
            self.blocks += 1;
        }
        self.bytes += bytes;
    }
}

impl Inspector {
    /// Copies blocks and snapshots, each verified, into the store at `to`; with a block its whole chain and the snapshots
    /// on it, with a snapshot the chain that it lies on. `keys` empty: all.
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
        let chosen = if keys.is_empty() { self.stored.keys().copied().collect() } else { self.chains(keys) };
        let mut report = TransferReport::default();
        let total = chosen.len() as u64;
        for (done, key) in chosen.iter().enumerate() {
            progress(done as u64, total);
            let Some(stored) = self.stored.get(key) else { continue };
            if std::fs::symlink_metadata(target.path(key, stored.part())).is_ok() {
                report.known += 1;
                continue;
            }
            match stored.verify(key, self.reading()) {
                Err(ReadError::Gone) => {}
                Err(error) => report.refused.push(Damage::new(stored.is_snapshot(), key, &error)),
                Ok(_) => {
                    let copied = copy(self.reading(), &target, &*self.files, key, stored.part())?;
                    report.count(stored.is_snapshot(), copied.all_bytes());
                }
            }
        }
        progress(total, total);
        Ok(report)
    }

    /// Takes in the blocks and snapshots of the store at `from`, each verified. Those that are here already stay as they
    /// are.
    ///
    /// # Errors
    /// `from` is no store; this one is only looked at, or cannot be written.
    pub fn import(&mut self, from: &Path, progress: Progress<'_>) -> Result<TransferReport, CacheError> {
        // Refused before anything is copied.
        self.change(&[])?;
        apart(&self.directory, from, "the directory of the store that imports")?;
        let source = Directory::look(from)?;
        let found = listed(&source.list()?);
        let (mut report, mut changes, total) = (TransferReport::default(), Vec::new(), found.len() as u64);
        let files = Arc::clone(&self.files);
        let reading = Reading { directory: &source, files: &*files, memory: &Memory::default() };
        for (done, (key, part, listed)) in found.into_iter().enumerate() {
            progress(done as u64, total);
            if self.stored.contains_key(&key) {
                report.known += 1;
                continue;
            }
            let sound = reading.header(&key, part).and_then(|header| {
                Stored::adopt(&header, listed).verify(&key, reading)?;
                Ok(header)
            });
            match sound {
                Err(error) => report.refused.push(Damage::new(part == Part::State, &key, &error)),
                Ok(header) => {
                    let copied = copy(reading, &self.directory, &*files, &key, part)?;
                    let stored = Stored::adopt(&header, copied);
                    changes.push(stored.put(key));
                    report.count(stored.is_snapshot(), copied.all_bytes());
                    self.stored.insert(key, stored);
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

    /// The blocks that these lie on or are, everything before those, and the snapshots on all of that.
    fn chains(&self, keys: &[BlockKey]) -> BTreeSet<BlockKey> {
        let mut chosen = BTreeSet::new();
        for (key, stored) in keys.iter().filter_map(|key| self.stored.get_key_value(key)) {
            let mut next = if stored.is_snapshot() {
                chosen.insert(*key);
                self.ground(stored)
            } else {
                Some(*key)
            };
            while let Some((key, row)) = next.and_then(|key| Some((key, self.block(&key)?))) {
                if !chosen.insert(key) {
                    break;
                }
                next = row.parent.map(BlockKey::from_bytes);
            }
        }
        // A snapshot lies on the block it stands behind or on one that follows that.
        let mut at: HashMap<Option<BlockKey>, Vec<(BlockKey, &Row)>> = HashMap::new();
        for (key, row) in chosen.iter().filter_map(|key| Some((*key, self.block(key)?))) {
            at.entry(Some(key)).or_default().push((key, row));
            at.entry(row.parent.map(BlockKey::from_bytes)).or_default().push((key, row));
        }
        let along = self.stored.iter().filter(|(_, stored)| {
            let mut near = at.get(&stored.facts().parent).into_iter().flatten();
            stored.is_snapshot() && near.any(|(key, row)| stored.lies_on(key, row))
        });
        let along: Vec<BlockKey> = along.map(|(key, _)| *key).collect();
        chosen.extend(along);
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

/// Copies the files of a block, or of a snapshot, in the order of every write: synced, renamed, directory synced; the window
/// part first.
fn copy(
    from: Reading<'_>,
    to: &Directory,
    files: &dyn FileSystem,
    key: &BlockKey,
    part: Part,
) -> Result<Listed, CacheError> {
    let shard = to.shard(key);
    match files.create_dir(&shard) {
        Ok(()) => {
            files.sync_dir(&to.blocks()).map_err(|source| io_error("syncing", &to.blocks(), source))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("creating", &shard, source)),
    }
    let has_window = std::fs::symlink_metadata(from.directory.path(key, Part::Window)).is_ok();
    let window = if part == Part::Full && has_window {
        Some(copy_file(from, to, files, key, Part::Window)?)
    } else {
        None
    };
    let (file_bytes, allocated_bytes) = copy_file(from, to, files, key, part)?;
    files.sync_dir(&shard).map_err(|source| io_error("syncing", &shard, source))?;
    let modified_us = super::entry::now_us();
    Ok(Listed { file_bytes, allocated_bytes, modified_us, window })
}

/// Copies one file; its length and allocated bytes.
fn copy_file(
    from: Reading<'_>,
    to: &Directory,
    files: &dyn FileSystem,
    key: &BlockKey,
    part: Part,
) -> Result<(u64, u64), CacheError> {
    let (source, tmp, path) = (from.directory.path(key, part), to.tmp_path(key, 0), to.path(key, part));
    let failed = |error| io_error("reading", &source, error);
    let mut file = from.files.open(&source).map_err(failed)?;
    let mut bytes = vec![0; file.metadata().map_err(failed)?.len() as usize];
    let read = from.files.read(&mut file, &mut bytes).map_err(failed)?;
    bytes.truncate(read);
    let allocated =
        files.write_synced(&tmp, &[&bytes]).map_err(|source| io_error("writing", &tmp, source))?;
    files.rename(&tmp, &path).map_err(|source| io_error("renaming to", &path, source))?;
    Ok((bytes.len() as u64, allocated))
}
