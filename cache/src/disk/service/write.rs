//! Making blocks durable.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use prefixd_migrations::{Row, SnapshotRow, Window};

use super::Service;
use crate::block::Block;
use crate::disk::codec;
use crate::disk::index::Change;
use crate::payload::Part;
use crate::tier::{Event, Put};

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
    put: Put,
    shard: PathBuf,
    row: Change,
    allocated_bytes: u64,
    window: Window,
}

impl Service {
    /// Writes a batch and reports on each block of it.
    pub(super) fn write(&mut self, puts: Vec<Put>) {
        let mut placed = Vec::with_capacity(puts.len());
        for put in puts {
            let place = if put.block.is_snapshot() { Self::place_snapshot } else { Self::place };
            match place(self, put) {
                Ok(done) => placed.push(done),
                Err((put, refusal)) => self.refuse(&put, refusal),
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
            self.refuse(&placed.put, reason.unwrap_or_default().into());
        }
        let changes: Vec<Change> = sound.iter().map(|placed| placed.row.clone()).collect();
        let written = sound.iter().map(|placed| placed.put.written).max_by_key(|w| (w.day, w.bytes));
        let noted = self.index.as_ref().zip(written).map(|(index, written)| index.note_written(written));
        // A note that cannot be written is no reason to lose blocks; the change below meets the same index.
        drop(noted);
        let indexed = self.change(&changes);
        if !sound.is_empty() && indexed.is_ok() {
            self.tell(Event::Index { bytes: self.directory.index_bytes() });
        }
        for Placed { put, allocated_bytes, window, .. } in sound {
            match &indexed {
                Ok(()) => self.tell(Event::Written {
                    key: put.block.key,
                    copy: put.copy,
                    queued_bytes: put.block.bytes(),
                    allocated_bytes,
                    window: window.into(),
                }),
                Err(reason) => self.refuse(&put, reason.clone().into()),
            }
        }
    }

    /// Writes the block's files and gives them their names, the window part first: a block file promises it.
    fn place(&self, put: Put) -> Result<Placed, (Put, Refusal)> {
        let place = || {
            let (block, mut window) = (&put.block, Window::None);
            let shard = self.shard(block)?;
            if block.has_window_part() {
                let (file_bytes, allocated_bytes) = self.place_part(&put, Part::Window)?;
                window = Window::Apart { file_bytes, allocated_bytes };
            }
            let (file_bytes, allocated_bytes) = self.place_part(&put, Part::Full)?;
            let row = Row {
                fingerprint: *self.fingerprint.as_bytes(),
                tenant: *block.tenant.as_bytes(),
                parent: block.parent.map(|parent| *parent.as_bytes()),
                start: block.start as u64,
                file_bytes,
                allocated_bytes,
                last_use_us: put.usage.last_use_us,
                reuse: put.usage.reuse,
                hits: put.usage.hits,
                window,
                priority: put.keep.priority,
                pinned_until_us: put.keep.pinned_until_us,
                ttl_us: put.keep.ttl_us,
                tokens: block.tokens.clone(),
            };
            Ok((shard, Change::Put(block.key, row.encode()), row.all_bytes(), window))
        };
        match place() {
            Ok((shard, row, allocated_bytes, window)) => {
                Ok(Placed { put, shard, row, allocated_bytes, window })
            }
            Err(refusal) => Err((put, refusal)),
        }
    }

    /// Writes a snapshot's file and gives it its name.
    fn place_snapshot(&self, put: Put) -> Result<Placed, (Put, Refusal)> {
        let place = || {
            let block = &put.block;
            let shard = self.shard(block)?;
            let (file_bytes, allocated_bytes) = self.place_part(&put, Part::State)?;
            let row = SnapshotRow {
                fingerprint: *self.fingerprint.as_bytes(),
                tenant: *block.tenant.as_bytes(),
                parent: block.parent.map(|parent| *parent.as_bytes()),
                start: block.start as u64,
                file_bytes,
                allocated_bytes,
                last_use_us: put.usage.last_use_us,
                pinned_until_us: put.keep.pinned_until_us,
                tokens: block.tokens.clone(),
            };
            Ok((shard, Change::PutSnapshot(block.key, row.encode()), allocated_bytes))
        };
        match place() {
            Ok((shard, row, allocated_bytes)) => {
                Ok(Placed { put, shard, row, allocated_bytes, window: Window::None })
            }
            Err(refusal) => Err((put, refusal)),
        }
    }

    /// Writes one file of a block; its length and allocated bytes.
    fn place_part(&self, put: &Put, part: Part) -> Result<(u64, u64), Refusal> {
        let block = &put.block;
        let encoded = codec::encode(&self.fingerprint, block, part)?;
        self.check_floor(encoded.file_bytes)?;
        let (tmp, path) =
            (self.directory.tmp_path(&block.key, put.copy), self.directory.path(&block.key, part));
        let parts: Vec<&[u8]> = std::iter::once(encoded.head.as_slice())
            .chain(encoded.order.iter().map(|index| &*block.payload.tensors[*index].data))
            .collect();
        let placed =
            self.files.write_synced(&tmp, &parts).map_err(|error| says("writing", &tmp, &error)).and_then(
                |allocated_bytes| {
                    self.files.rename(&tmp, &path).map_err(|error| says("renaming to", &path, &error))?;
                    Ok((encoded.file_bytes, allocated_bytes))
                },
            );
        placed.map_err(|reason| {
            // Nothing more can be done if this fails as well; opening the store empties tmp.
            drop(self.files.remove(&tmp));
            reason.into()
        })
    }

    /// The directory a block's files go to; created when it is missing.
    fn shard(&self, block: &Block) -> Result<PathBuf, Refusal> {
        let shard = self.directory.shard(&block.key);
        match self.files.create_dir(&shard) {
            Ok(()) => {
                let blocks = self.directory.blocks();
                self.files.sync_dir(&blocks).map_err(|error| says("syncing", &blocks, &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(says("creating", &shard, &error).into()),
        }
        if std::fs::symlink_metadata(&shard).is_ok_and(|metadata| metadata.is_dir()) {
            Ok(shard)
        } else {
            Err(format!("{} is not a directory", shard.display()).into())
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

    fn refuse(&self, put: &Put, refusal: Refusal) {
        self.tell(Event::Failed {
            key: put.block.key,
            copy: put.copy,
            queued_bytes: put.block.bytes(),
            reason: refusal.reason,
            short_bytes: refusal.short_bytes,
        });
    }
}

fn says(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}
