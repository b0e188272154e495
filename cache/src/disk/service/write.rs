//! Making blocks durable.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use prefixd_migrations::Row;

use super::Service;
use crate::block::Block;
use crate::disk::codec::{self, Encoded};
use crate::disk::index::Change;
use crate::disk::message::Report;
use crate::policy::Usage;

/// A block to write.
pub(super) struct Job {
    pub block: Arc<Block>,
    pub copy: u64,
    pub usage: Usage,
}

/// Why a block is not on disk.
struct Refusal {
    reason: String,
    short_bytes: u64,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, short_bytes: 0 }
    }
}

/// A file that is complete under its name, and not yet durable there.
struct Placed {
    job: Job,
    shard: PathBuf,
    allocated_bytes: u64,
    row: Vec<u8>,
}

impl Service {
    /// Writes a batch and reports on each block of it.
    pub(super) fn write(&mut self, jobs: Vec<Job>) {
        let mut placed = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.place(&job) {
                Ok((shard, allocated_bytes, row)) => placed.push(Placed { job, shard, allocated_bytes, row }),
                Err(refusal) => self.refuse(&job, refusal),
            }
        }
        let shards: BTreeSet<PathBuf> = placed.iter().map(|placed| placed.shard.clone()).collect();
        let failed: Vec<(PathBuf, io::Error)> = shards
            .into_iter()
            .filter_map(|shard| self.files.sync_dir(&shard).err().map(|error| (shard, error)))
            .collect();
        let (sound, unsound): (Vec<Placed>, Vec<Placed>) =
            placed.into_iter().partition(|placed| failed.iter().all(|(shard, _)| *shard != placed.shard));
        for placed in unsound {
            let reason = failed.iter().find(|(shard, _)| *shard == placed.shard);
            let reason = reason.map(|(shard, error)| format!("syncing {}: {error}", shard.display()));
            self.refuse(&placed.job, reason.unwrap_or_default().into());
        }
        let changes: Vec<Change> =
            sound.iter().map(|placed| Change::Put(placed.job.block.key, placed.row.clone())).collect();
        let indexed = self.change(&changes);
        if !sound.is_empty() && indexed.is_ok() {
            self.report(Report::Index { bytes: self.directory.index_bytes() });
        }
        for Placed { job, allocated_bytes, .. } in sound {
            match &indexed {
                Ok(()) => self.report(Report::Written {
                    key: job.block.key,
                    copy: job.copy,
                    queued_bytes: job.block.bytes(),
                    allocated_bytes,
                }),
                Err(reason) => self.refuse(&job, reason.clone().into()),
            }
        }
    }

    /// Writes the file and gives it its name.
    fn place(&self, job: &Job) -> Result<(PathBuf, u64, Vec<u8>), Refusal> {
        let block = &job.block;
        let encoded = codec::encode(&self.fingerprint, block)?;
        self.check_floor(encoded.file_bytes)?;
        let (shard, path) = (self.directory.shard(&block.key), self.directory.path(&block.key));
        let says =
            |doing: &str, path: &PathBuf, error: io::Error| format!("{doing} {}: {error}", path.display());
        match self.files.create_dir(&shard) {
            Ok(()) => {
                let blocks = self.directory.blocks();
                self.files.sync_dir(&blocks).map_err(|error| says("syncing", &blocks, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(says("creating", &shard, error).into()),
        }
        if !std::fs::symlink_metadata(&shard).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(format!("{} is not a directory", shard.display()).into());
        }
        let tmp = self.directory.tmp().join(format!("{}.{}", block.key, job.copy));
        let parts: Vec<&[u8]> = std::iter::once(encoded.head.as_slice())
            .chain(encoded.order.iter().map(|index| block.payload.tensors[*index].data.as_slice()))
            .collect();
        let written =
            self.files.write_synced(&tmp, &parts).map_err(|error| says("writing", &tmp, error)).and_then(
                |allocated_bytes| {
                    self.files.rename(&tmp, &path).map_err(|error| says("renaming to", &path, error))?;
                    Ok(allocated_bytes)
                },
            );
        match written {
            Ok(allocated_bytes) => {
                let row = self.row(job, &encoded, allocated_bytes).encode();
                Ok((shard, allocated_bytes, row))
            }
            Err(reason) => {
                // Nothing more can be done if this fails as well; opening the store empties tmp.
                drop(self.files.remove(&tmp));
                Err(reason.into())
            }
        }
    }

    fn check_floor(&self, file_bytes: u64) -> Result<(), Refusal> {
        if self.free_floor_bytes == 0 {
            return Ok(());
        }
        let blocks = self.directory.blocks();
        let free = self
            .files
            .free_bytes(&blocks)
            .map_err(|error| format!("free space of {}: {error}", blocks.display()))?;
        let wanted = self.free_floor_bytes.saturating_add(file_bytes);
        if free >= wanted {
            return Ok(());
        }
        Err(Refusal {
            reason: format!(
                "{free} bytes are free on the cache's disk, {file_bytes} more would go below the floor of {}",
                self.free_floor_bytes
            ),
            short_bytes: wanted - free,
        })
    }

    fn row(&self, job: &Job, encoded: &Encoded, allocated_bytes: u64) -> Row {
        let block = &job.block;
        Row {
            fingerprint: *self.fingerprint.as_bytes(),
            tenant: *block.tenant.as_bytes(),
            parent: block.parent.map(|parent| *parent.as_bytes()),
            start: block.start as u64,
            file_bytes: encoded.file_bytes,
            allocated_bytes,
            full_bytes: encoded.full_bytes,
            last_use_us: job.usage.last_use_us,
            reuse: job.usage.reuse,
            hits: job.usage.hits,
            tokens: block.tokens.clone(),
        }
    }

    fn refuse(&self, job: &Job, refusal: Refusal) {
        self.report(Report::Failed {
            key: job.block.key,
            copy: job.copy,
            queued_bytes: job.block.bytes(),
            reason: refusal.reason,
            short_bytes: refusal.short_bytes,
        });
    }
}
