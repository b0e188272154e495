//! The eviction service: the one thread that writes, removes and quarantines block files and changes the index.
//!
//! 1. Order of a write: file, fsync, rename, fsync directory, index row, event. Of a removal: row, then file.
//! 2. Commands are carried out in the order of sending; writes that stand together share their syncs.
//! 3. A failure is an event. The thread goes on.
//!
//! It decides nothing: which blocks leave is the tree's business.

mod remove;
mod write;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use prefixd_migrations::{Row, SnapshotRow};

use crate::disk::directory::Directory;
use crate::disk::files::FileSystem;
use crate::disk::index::{Change, Index};
use crate::disk::message::Command;
use crate::key::{BlockKey, Fingerprint};
use crate::policy::Usage;
use crate::retention::Keep;
use crate::tier::Event;

/// Writes that share their syncs, at most: enough to spread a sync's cost, few enough that the first is not kept long.
const BATCH_BLOCKS: usize = 32;

pub(crate) struct Service {
    pub directory: Arc<Directory>,
    pub files: Arc<dyn FileSystem>,
    pub fingerprint: Fingerprint,
    pub free_floor_bytes: u64,
    /// `None` after the index failed; the next change opens it again.
    pub index: Option<Index>,
    pub events: Sender<Event>,
}

impl Service {
    pub fn spawn(mut self, commands: Receiver<Command>) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("prefixd-evict".into()).spawn(move || self.run(&commands))
    }

    fn run(&mut self, commands: &Receiver<Command>) {
        let mut next = commands.recv().ok();
        while let Some(command) = next.take() {
            match command {
                Command::Write(put) => {
                    let mut batch = vec![put];
                    while batch.len() < BATCH_BLOCKS && next.is_none() {
                        match commands.try_recv() {
                            Ok(Command::Write(put)) => batch.push(put),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.write(batch);
                }
                Command::Remove(keys) => self.remove(&keys),
                Command::DropWindows(keys) => self.drop_windows(&keys),
                Command::Touch(uses) => self.touch(&uses),
                Command::Quarantine { key, copy, file } => self.quarantine(key, copy, file),
                Command::Clear => self.clear(),
                Command::Barrier(reached) => drop(reached.send(())),
                Command::Stop => return,
            }
            next = next.or_else(|| commands.recv().ok());
        }
    }

    /// Recency is worth a write, not a complaint: a row that cannot be written keeps its old one.
    fn touch(&mut self, uses: &[(BlockKey, Usage, Keep)]) {
        let Some(index) = &self.index else { return };
        let changes: Vec<Change> = uses
            .iter()
            .filter_map(|(key, usage, keep)| {
                if let Some(row) = index.snapshot(key) {
                    let (last_use_us, pinned_until_us) = (usage.last_use_us, keep.pinned_until_us);
                    let row = SnapshotRow { last_use_us, pinned_until_us, ..row };
                    return Some(Change::PutSnapshot(*key, row.encode()));
                }
                let row = Row {
                    last_use_us: usage.last_use_us,
                    reuse: usage.reuse,
                    hits: usage.hits,
                    priority: keep.priority,
                    pinned_until_us: keep.pinned_until_us,
                    ttl_us: keep.ttl_us,
                    ..index.row(key)?
                };
                Some(Change::Put(*key, row.encode()))
            })
            .collect();
        if self.change(&changes).is_ok() {
            self.tell(Event::Index { bytes: self.directory.index_bytes() });
        }
    }

    /// Changes the index. After a failure it is opened anew, so that a passing fault passes.
    fn change(&mut self, changes: &[Change]) -> Result<(), String> {
        if self.index.is_none() {
            self.index = Some(Index::open(&self.directory.index()).map_err(|error| error.to_string())?);
        }
        let done = self.index.as_ref().map_or(Ok(()), |index| index.apply(changes));
        if done.is_err() {
            self.index = None;
        }
        done.map_err(|reason| format!("block index: {reason}"))
    }

    /// The owner may be gone already, at shutdown; then nobody is there to be told.
    fn tell(&self, event: Event) {
        drop(self.events.send(event));
    }
}
