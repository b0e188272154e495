//! Reading every byte of a store, on all cores.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::unbounded;
use serde::Serialize;

use super::stored::Stored;
use super::{Inspector, Progress};
use crate::disk::directory::io_error;
use crate::disk::index::Change;
use crate::error::{CacheError, ReadError};
use crate::key::BlockKey;

/// What [`Inspector::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks whose every byte is right.
    pub sound: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Snapshots whose every byte is right.
    pub sound_snapshots: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Blocks and snapshots that are not what they should be.
    pub damaged: Vec<Damage>,
    /// Those that the system could not read.
    pub unreadable: Vec<Damage>,
    /// Those that left while they were looked at.
    pub gone: u64,
    /// Damaged ones that are in quarantine now; none while a server uses the store.
    pub quarantined: u64,
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A block.
    Block,
    /// A snapshot.
    Snapshot,
}

/// One block or snapshot that is not sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Which of the two it is.
    pub kind: Kind,
    /// Its key, 64 hexadecimal digits.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    pub(super) fn new(is_snapshot: bool, key: &BlockKey, error: &ReadError) -> Self {
        let kind = if is_snapshot { Kind::Snapshot } else { Kind::Block };
        Self { kind, key: key.to_string(), reason: error.to_string() }
    }
}

impl Inspector {
    /// Reads every block and every snapshot and checks every checksum. With the store's lock, damaged ones go to quarantine.
    ///
    /// # Errors
    /// Quarantining fails; a damaged block by itself is a line of the report.
    pub fn verify(&mut self, progress: Progress<'_>) -> Result<VerifyReport, CacheError> {
        let all: Vec<(&BlockKey, &Stored)> = self.stored.iter().collect();
        let total = all.len() as u64;
        let snapshots = all.iter().filter(|(_, stored)| stored.is_snapshot()).count() as u64;
        let mut report = VerifyReport { blocks: total - snapshots, snapshots, ..VerifyReport::default() };
        let mut bad = Vec::new();
        let (results, received) = unbounded();
        let (next, reading) = (AtomicUsize::new(0), self.reading());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                let (results, all, next) = (results.clone(), &all, &next);
                scope.spawn(move || {
                    while let Some((key, stored)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = stored.verify(key, reading);
                        if results.send((**key, stored.is_snapshot(), outcome)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            for (done, (key, is_snapshot, outcome)) in received.iter().enumerate() {
                progress(done as u64 + 1, total);
                let damage = |error: &ReadError| Damage::new(is_snapshot, &key, error);
                match outcome {
                    Ok(read_bytes) => {
                        let sound = if is_snapshot { &mut report.sound_snapshots } else { &mut report.sound };
                        *sound += 1;
                        report.read_bytes += read_bytes;
                    }
                    Err(ReadError::Gone) => report.gone += 1,
                    Err(error @ ReadError::Io(_)) => report.unreadable.push(damage(&error)),
                    Err(error) => {
                        report.damaged.push(damage(&error));
                        bad.push(key);
                    }
                }
            }
        });
        report.damaged.sort_by(|a, b| a.key.cmp(&b.key));
        report.unreadable.sort_by(|a, b| a.key.cmp(&b.key));
        if self.index.is_some() {
            for key in bad {
                self.quarantine(&key)?;
                report.quarantined += 1;
            }
        }
        Ok(report)
    }

    /// Moves the files of a block or a snapshot to quarantine, row first.
    fn quarantine(&mut self, key: &BlockKey) -> Result<(), CacheError> {
        self.change(&[Change::Remove(*key)])?;
        let Some(stored) = self.stored.remove(key) else { return Ok(()) };
        let moved = self.directory.quarantine_block(&*self.files, key);
        let failed = |source| io_error("quarantining", &self.directory.path(key, stored.part()), source);
        let bytes = moved.map_err(failed)?;
        self.listing.quarantine_files += 1;
        self.listing.quarantine_bytes += bytes;
        self.listing.other_bytes += bytes;
        Ok(())
    }
}
