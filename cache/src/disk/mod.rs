//! The disk tier: the threads that do the work, and the way to them.
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

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::block::Block;
use crate::error::CacheError;
use crate::key::{BlockKey, Fingerprint};
use crate::options::DiskOptions;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tier::{Done, Event, Found, Item, LowerTier, Put, Source, answer};
use crate::tuning::Tuning;

pub(crate) use files::{FileSystem, OsFileSystem};
use message::Command;
use reader::Readers;

/// See the module's documentation.
pub(crate) struct DiskTier {
    readers: Option<Readers>,
    commands: Sender<Command>,
    events: Receiver<Event>,
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

impl DiskTier {
    /// Opens the store and starts its threads. What is found is every block and every snapshot on disk.
    pub fn open(
        options: &DiskOptions,
        fingerprint: Fingerprint,
        tuning: &Tuning,
        files: &Arc<dyn FileSystem>,
    ) -> Result<(Self, Found), CacheError> {
        has_size(options)?;
        let opened = open::open(&options.dir, &**files, &mut |_, _| {})?;
        let index_bytes = opened.directory.index_bytes();
        let (commands, received) = unbounded();
        let (sender, events) = unbounded();
        let started = |source| directory::io_error("starting a thread for", &options.dir, source);
        let service = service::Service {
            directory: Arc::clone(&opened.directory),
            files: Arc::clone(files),
            fingerprint,
            free_floor_bytes: options.free_floor_bytes,
            index: Some(opened.index),
            events: sender,
        };
        let service = service.spawn(received).map_err(started)?;
        let (stall, memory) = (tuning.read_stall, &tuning.memory);
        let readers = Readers::spawn(options.readers, stall, &opened.directory, files, memory, &commands)
            .map_err(started)?;
        let found = Found {
            blocks: opened.rows,
            snapshots: opened.snapshots,
            quarantined: opened.quarantined,
            written: opened.written,
            index_bytes,
            other_bytes: opened.listing.other_bytes,
        };
        Ok((Self { readers: Some(readers), commands, events, service: Some(service) }, found))
    }

    fn send(&self, command: Command) {
        // The service ends only when it is told to, by the tier's end.
        drop(self.commands.send(command));
    }
}

impl LowerTier for DiskTier {
    fn put(&mut self, put: Put) {
        self.send(Command::Write(put));
    }

    fn load(&self, items: Vec<Item>, begun: Instant, done: Done) {
        let is_read = items.iter().any(|item| matches!(item.source, Source::Below { .. }));
        match self.readers.as_ref().filter(|_| is_read) {
            Some(readers) => readers.load(items, begun, done),
            None => answer(items, begun, done),
        }
    }

    fn remove(&mut self, keys: Vec<BlockKey>) {
        self.send(Command::Remove(keys));
    }

    fn drop_windows(&mut self, keys: Vec<BlockKey>) {
        self.send(Command::DropWindows(keys));
    }

    fn touch(&mut self, uses: Vec<(BlockKey, Usage, Keep)>) {
        self.send(Command::Touch(uses));
    }

    fn clear(&mut self) {
        self.send(Command::Clear);
    }

    fn barrier(&mut self) -> Receiver<()> {
        let (reached, wait) = bounded(1);
        self.send(Command::Barrier(reached));
        wait
    }

    fn event(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    fn is_stuck(&self) -> bool {
        self.readers.as_ref().is_some_and(Readers::check)
    }

    fn estimated_bytes(&self, block: &Block) -> u64 {
        codec::estimated_bytes(block)
    }
}

impl Drop for DiskTier {
    /// Finishes the loads and everything queued, then ends the threads and lets go of the directory.
    fn drop(&mut self) {
        self.readers = None;
        // Said, not implied by a closed channel: a reader that is stuck still holds a sender.
        self.send(Command::Stop);
        if let Some(service) = self.service.take() {
            // A service that panicked has nothing left to finish.
            drop(service.join());
        }
    }
}
