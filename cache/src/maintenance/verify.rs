//! Reading every byte of a store, on all cores.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::unbounded;
use prefixd_migrations::{Row, Window};
use serde::Serialize;

use super::{Inspector, Progress};
use crate::disk::index::Change;
use crate::disk::load::Expected;
use crate::error::{CacheError, ReadError};
use crate::key::{BlockKey, Fingerprint, Tenant};

/// What [`Inspector::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks whose every byte is right.
    pub sound: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Blocks that are not what they should be.
    pub damaged: Vec<Damage>,
    /// Blocks that the system could not read.
    pub unreadable: Vec<Damage>,
    /// Blocks that left while they were looked at.
    pub gone: u64,
    /// Damaged blocks that are in quarantine now; none while a server uses the store.
    pub quarantined: u64,
}

/// One block that is not sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Its key, 64 hexadecimal digits.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

pub(super) fn expected(key: &BlockKey, row: &Row) -> Expected {
    Expected {
        key: *key,
        fingerprint: Fingerprint::from_bytes(row.fingerprint),
        tenant: Tenant::from_bytes(row.tenant),
        parent: row.parent.map(BlockKey::from_bytes),
        start: row.start as usize,
        tokens: row.tokens.as_slice().into(),
    }
}

impl Inspector {
    /// Reads every block and checks every checksum. With the store's lock, damaged blocks go to quarantine.
    ///
    /// # Errors
    /// Quarantining fails; a damaged block by itself is a line of the report.
    pub fn verify(&mut self, progress: Progress<'_>) -> Result<VerifyReport, CacheError> {
        let rows: Vec<(&BlockKey, &Row)> = self.rows.iter().collect();
        let total = rows.len() as u64;
        let mut report = VerifyReport { blocks: total, ..VerifyReport::default() };
        let mut bad = Vec::new();
        let (results, received) = unbounded();
        let (next, reading) = (AtomicUsize::new(0), self.reading());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                let (results, rows, next) = (results.clone(), &rows, &next);
                scope.spawn(move || {
                    while let Some((key, row)) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = reading.load(&expected(key, row), row.window != Window::Dropped);
                        let outcome =
                            outcome.map(|loaded| loaded.read_bytes).map_err(|failure| failure.error);
                        if results.send((**key, outcome)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            for (done, (key, outcome)) in received.iter().enumerate() {
                progress(done as u64 + 1, total);
                let damage = |error: &ReadError| Damage { key: key.to_string(), reason: error.to_string() };
                match outcome {
                    Ok(read_bytes) => {
                        report.sound += 1;
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
                self.change(&[Change::Remove(key)])?;
                let moved = self.directory.quarantine_block(&*self.files, &key);
                let bytes = moved.map_err(|source| self.failed("quarantining", &key, source))?;
                self.rows.remove(&key);
                self.listing.quarantine_files += 1;
                self.listing.quarantine_bytes += bytes;
                self.listing.other_bytes += bytes;
                report.quarantined += 1;
            }
        }
        Ok(report)
    }
}
