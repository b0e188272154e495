//! The disk tier as the cache's owner sees it: what is on disk and on its way there, and the threads that do the work.
//!
//! 1. `used_bytes` counts everything in the directory, and what is queued: blocks, snapshots, index, quarantine, files that
//!    are not ours.
//! 2. At most `write_queue_bytes` wait to be written; the queue refuses, it never blocks.
//! 3. While writes fail one block at a time is tried: the first that works ends the degraded state.
//!
//! Threads: `prefixd-evict` (see `service`) and `prefixd-read-N` (see `reader`); both end, in the order readers then
//! service, when the tier is dropped.

pub(crate) mod codec;
pub(crate) mod directory;
pub(crate) mod files;
pub(crate) mod index;
pub(crate) mod load;
mod message;
pub(crate) mod open;
mod reader;
mod service;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use prefixd_migrations::{Row, SnapshotRow};

use crate::block::Block;
use crate::disk::index::Written;
use crate::error::CacheError;
use crate::key::{BlockKey, Fingerprint};
use crate::options::DiskOptions;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::stats::{ReadFailureStats, WriteStats};
use crate::tuning::Tuning;

pub(crate) use codec::estimated_bytes;
pub(crate) use files::{FileSystem, OsFileSystem};
pub(crate) use load::Expected;
pub(crate) use message::{Command, Report};
pub(crate) use reader::{Item, Kind, Readers, Source, restore_inline};

pub(crate) struct DiskTier {
    pub options: DiskOptions,
    pub writes: WriteStats,
    pub read_failures: ReadFailureStats,
    pub read_bytes: u64,
    pub quarantined: u64,
    /// Why blocks are not being written at the moment.
    pub degraded: Option<String>,
    /// Why blocks are not being read at the moment.
    pub unreadable: Option<String>,
    /// Blocks that could not be read and lie among the orphans, and since when.
    pub aside: Vec<BlockKey>,
    pub aside_since: Instant,
    /// Written today, and what may be.
    pub written: Written,
    pub daily_write_bytes: Option<u64>,
    /// Allocated bytes of quarantine, stuck files and files that are not ours.
    pub other_bytes: u64,
    pub index_bytes: u64,
    /// Bytes the service needs freed before the free-space floor lets it write again.
    pub short_bytes: u64,
    /// Stored blocks whose recency the index does not know yet.
    pub touched: HashSet<BlockKey>,
    pub touches_sent: Instant,
    /// Blocks in RAM that the disk refused; tried again with their next use, and by `flush`.
    pub unwritten: HashSet<BlockKey>,
    copies: u64,
    readers: Option<Readers>,
    commands: Option<Sender<Command>>,
    reports: Receiver<Report>,
    service: Option<JoinHandle<()>>,
}

/// Whether the store's directory could be opened now: nobody uses it, it is a directory, and files can be written there.
/// Creates it when it is missing, and lets go of it again.
///
/// # Errors
/// As opening a cache over it.
pub fn try_directory(options: &DiskOptions) -> Result<(), CacheError> {
    has_size(options)?;
    directory::Directory::open(&options.dir)?.try_writing()
}

fn has_size(options: &DiskOptions) -> Result<(), CacheError> {
    if options.budget_bytes > 0 { Ok(()) } else { Err(CacheError::NoSize { dir: options.dir.clone() }) }
}

/// What was found on disk.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub blocks: Vec<(BlockKey, Row)>,
    pub snapshots: Vec<(BlockKey, SnapshotRow)>,
}

/// Whether a block was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queueing {
    Queued { copy: u64 },
    Full,
    OverDaily,
}

impl DiskTier {
    /// Opens the store and starts its threads. The rows are every block and every snapshot on disk.
    pub fn open(
        options: DiskOptions,
        fingerprint: Fingerprint,
        tuning: &Tuning,
        files: &Arc<dyn FileSystem>,
    ) -> Result<(Self, Rows), CacheError> {
        has_size(&options)?;
        let opened = open::open(&options.dir, &**files, &mut |_, _| {})?;
        let index_bytes = opened.directory.index_bytes();
        let (commands, received) = unbounded();
        let (report, reports) = unbounded();
        let started = |source| directory::io_error("starting a thread for", &options.dir, source);
        let service = service::Service {
            directory: Arc::clone(&opened.directory),
            files: Arc::clone(files),
            fingerprint,
            free_floor_bytes: options.free_floor_bytes,
            index: Some(opened.index),
            reports: report,
        };
        let service = service.spawn(received).map_err(started)?;
        let (stall, memory) = (tuning.read_stall, &tuning.memory);
        let readers = Readers::spawn(options.readers, stall, &opened.directory, files, memory, &commands)
            .map_err(started)?;
        let tier = Self {
            options,
            writes: WriteStats::default(),
            read_failures: ReadFailureStats::default(),
            read_bytes: 0,
            quarantined: opened.quarantined,
            degraded: None,
            unreadable: None,
            aside: Vec::new(),
            aside_since: Instant::now(),
            written: opened.written,
            daily_write_bytes: tuning.daily_write_bytes,
            other_bytes: opened.listing.other_bytes,
            index_bytes,
            short_bytes: 0,
            touched: HashSet::new(),
            touches_sent: Instant::now(),
            unwritten: HashSet::new(),
            copies: 0,
            readers: Some(readers),
            commands: Some(commands),
            reports,
            service: Some(service),
        };
        Ok((tier, Rows { blocks: opened.rows, snapshots: opened.snapshots }))
    }

    /// A number that no copy has had.
    pub fn next_copy(&mut self) -> u64 {
        self.copies += 1;
        self.copies
    }

    /// Allocated bytes of the directory, given those of all blocks and snapshots.
    pub fn used_bytes(&self, known_bytes: u64) -> u64 {
        known_bytes + self.other_bytes + self.index_bytes + self.writes.queued_bytes
    }

    /// Hands a block or a snapshot to the service, if the queue has room. A snapshot may be longer than the queue; alone it
    /// has room all the same.
    pub fn queue(&mut self, block: Arc<Block>, usage: Usage, keep: Keep, now_us: u64) -> Queueing {
        const DAY_US: u64 = 86_400_000_000;
        let bytes = block.bytes();
        let day = now_us / DAY_US;
        let today = if self.written.day == day { self.written.bytes } else { 0 };
        if self.daily_write_bytes.is_some_and(|limit| today + bytes > limit) {
            self.writes.over_daily_blocks += 1;
            return Queueing::OverDaily;
        }
        let waiting = self.writes.queued_blocks > 0;
        let room = self.writes.queued_bytes + bytes <= self.options.write_queue_bytes
            || (block.is_snapshot() && !waiting);
        if !room || (self.degraded.is_some() && waiting) {
            self.writes.dropped_blocks += 1;
            if !block.is_snapshot() {
                self.unwritten.insert(block.key);
            }
            return Queueing::Full;
        }
        let copy = self.next_copy();
        self.writes.queued_blocks += 1;
        self.writes.queued_bytes += bytes;
        self.unwritten.remove(&block.key);
        self.written = Written { day, bytes: today + bytes };
        self.send(Command::Write { block, copy, usage, keep, written: self.written });
        Queueing::Queued { copy }
    }

    /// A block left the queue.
    pub fn unqueue(&mut self, queued_bytes: u64) {
        self.writes.queued_blocks -= 1;
        self.writes.queued_bytes -= queued_bytes;
    }

    pub fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The service ends only after this sender is dropped.
            drop(commands.send(command));
        }
    }

    pub fn report(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Looks after the readers. True while all of them are stuck.
    pub fn reads_are_stuck(&self) -> bool {
        self.readers.as_ref().is_some_and(Readers::check)
    }

    pub fn restore(&self, items: Vec<Item>, begun: Instant, done: reader::Done) {
        match &self.readers {
            Some(readers) => readers.restore(items, begun, done),
            None => restore_inline(items, begun, done),
        }
    }
}

impl Drop for DiskTier {
    /// Finishes the restores and everything queued, then ends the threads and lets go of the directory.
    fn drop(&mut self) {
        self.readers = None;
        // Said, not implied by a closed channel: a reader that is stuck still holds a sender.
        self.send(Command::Stop);
        self.commands = None;
        if let Some(service) = self.service.take() {
            // A service that panicked has nothing left to finish.
            drop(service.join());
        }
    }
}
