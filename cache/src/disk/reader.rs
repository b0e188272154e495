//! Restores: a few threads that read and verify block files in parallel.
//!
//! 1. A restore answers once, when all its blocks are read or known not to be needed: what comes after a failed block
//!    is not read.
//! 2. A read that takes longer than it may is given up: the restore answers without it, and while every reader is stuck
//!    restores answer at once. Nothing waits for a disk that does not answer.
//! 3. A damaged file goes to the eviction service before the answer goes out, so that a block written after the answer
//!    is written after the quarantine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::block::Block;
use crate::disk::directory::Directory;
use crate::disk::files::FileSystem;
use crate::disk::load::{Expected, LoadFailure, Loaded, Reading};
use crate::disk::message::Command;
use crate::error::ReadError;
use crate::lookup::{Hit, Tier};
use crate::memory::Memory;
use crate::restored::{FailedCopy, Restored, RestoredBlock};

/// Takes the outcome of a restore.
pub(crate) type Done = Box<dyn FnOnce(Restored) + Send>;

/// One block of a restore, or its snapshot, which comes first: without it no block is of use.
pub(crate) struct Item {
    pub hit: Hit,
    pub kind: Kind,
    pub source: Source,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Snapshot,
}

/// Where a block comes from.
pub(crate) enum Source {
    Resident(Arc<Block>),
    Disk {
        expected: Box<Expected>,
        copy: u64,
        with_window: bool,
    },
    /// It left between lookup and restore.
    Nowhere,
}

enum Slot {
    Open,
    Read(Brought),
    Failed(ReadError),
}

/// A block that came, and what that cost its reader.
struct Brought {
    block: Arc<Block>,
    has_window: bool,
    bytes: u64,
    read: Duration,
    verify: Duration,
}

/// A restore under way.
struct Job {
    items: Vec<Item>,
    slots: Mutex<Vec<Slot>>,
    /// Blocks still to be read.
    open: AtomicUsize,
    /// The first block known to have failed; `usize::MAX` while all is well.
    failed_at: AtomicUsize,
    done: Mutex<Option<Done>>,
    begun: Instant,
}

/// What one reader is doing: the restore it reads for, and since when.
type Current = Arc<Mutex<Option<(Arc<Job>, Instant)>>>;

/// The reader threads.
pub(crate) struct Readers {
    /// Bounded by the callers: a restore belongs to a request, and requests are bounded.
    tasks: Option<Sender<(Arc<Job>, usize)>>,
    threads: Vec<(JoinHandle<()>, Current)>,
    /// Restores that may not have answered yet.
    jobs: Mutex<Vec<Weak<Job>>>,
    stall: Duration,
}

impl Readers {
    pub fn spawn(
        count: usize,
        stall: Duration,
        directory: &Arc<Directory>,
        files: &Arc<dyn FileSystem>,
        memory: &Memory,
        service: &Sender<Command>,
    ) -> std::io::Result<Self> {
        let (tasks, received) = unbounded::<(Arc<Job>, usize)>();
        let threads = (0..count.max(1))
            .map(|number| {
                let (received, directory, service) =
                    (received.clone(), Arc::clone(directory), service.clone());
                let (files, memory, current) = (Arc::clone(files), memory.clone(), Current::default());
                let theirs = Arc::clone(&current);
                let thread =
                    thread::Builder::new().name(format!("prefixd-read-{number}")).spawn(move || {
                        let reading = Reading { directory: &directory, files: &*files, memory: &memory };
                        read_until_closed(&received, reading, &service, &theirs);
                    })?;
                Ok((thread, current))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { tasks: Some(tasks), threads, jobs: Mutex::default(), stall })
    }

    /// Gives up reads that take too long. True while every reader is stuck in one.
    pub fn check(&self) -> bool {
        let mut stuck = 0;
        for (_, current) in &self.threads {
            let late = current.lock().as_ref().filter(|(_, since)| since.elapsed() >= self.stall).cloned();
            if let Some((job, _)) = late {
                stuck += 1;
                job.give_up(self.stall);
            }
        }
        let mut jobs = self.jobs.lock();
        jobs.retain(|job| job.strong_count() > 0);
        let all = stuck == self.threads.len();
        if all {
            jobs.drain(..).filter_map(|job| job.upgrade()).for_each(|job| job.give_up(self.stall));
        }
        all
    }

    pub fn restore(&self, items: Vec<Item>, begun: Instant, done: Done) {
        let job = Arc::new(Job::new(items, begun, done));
        let wanted: Vec<usize> = (0..job.items.len())
            .filter(|&index| matches!(job.items[index].source, Source::Disk { .. }))
            .filter(|&index| index < job.failed_at.load(Ordering::Acquire))
            .collect();
        // One more than there is to read: this thread's own share, so that nobody answers before all is handed out.
        job.open.store(wanted.len() + 1, Ordering::Release);
        self.jobs.lock().push(Arc::downgrade(&job));
        for index in wanted {
            let handed =
                self.tasks.as_ref().is_some_and(|tasks| tasks.send((Arc::clone(&job), index)).is_ok());
            if !handed {
                job.put(index, Slot::Failed(ReadError::Io("the reader threads are gone".into())));
                job.close_one();
            }
        }
        job.close_one();
    }
}

impl Drop for Readers {
    /// Finishes what was asked for, then ends the threads.
    fn drop(&mut self) {
        self.tasks = None;
        let stuck = self.check();
        for (thread, current) in self.threads.drain(..) {
            let late = current.lock().as_ref().is_some_and(|(_, since)| since.elapsed() >= self.stall);
            // A reader that the disk does not answer is left behind: it holds no block that anybody waits for.
            if !(stuck || late) || thread.is_finished() {
                // A reader that panicked has nothing left to hand over.
                drop(thread.join());
            }
        }
    }
}

fn read_until_closed(
    tasks: &Receiver<(Arc<Job>, usize)>,
    reading: Reading<'_>,
    service: &Sender<Command>,
    current: &Current,
) {
    for (job, index) in tasks {
        if index < job.failed_at.load(Ordering::Acquire) {
            *current.lock() = Some((Arc::clone(&job), Instant::now()));
            job.read(index, reading, service);
            *current.lock() = None;
        }
        job.close_one();
    }
}

impl Job {
    fn new(items: Vec<Item>, begun: Instant, done: Done) -> Self {
        let slots: Vec<Slot> = items
            .iter()
            .map(|item| match &item.source {
                Source::Resident(block) => Slot::Read(Brought {
                    block: Arc::clone(block),
                    has_window: true,
                    bytes: 0,
                    read: Duration::ZERO,
                    verify: Duration::ZERO,
                }),
                Source::Disk { .. } => Slot::Open,
                Source::Nowhere => Slot::Failed(ReadError::Gone),
            })
            .collect();
        let failed_at = slots.iter().position(|slot| matches!(slot, Slot::Failed(_))).unwrap_or(usize::MAX);
        Self {
            items,
            slots: Mutex::new(slots),
            open: AtomicUsize::new(0),
            failed_at: AtomicUsize::new(failed_at),
            done: Mutex::new(Some(done)),
            begun,
        }
    }

    fn read(&self, index: usize, reading: Reading<'_>, service: &Sender<Command>) {
        let Source::Disk { expected, copy, with_window } = &self.items[index].source else { return };
        let loaded = match self.items[index].kind {
            Kind::Block => reading.load(expected, *with_window),
            Kind::Snapshot => reading.load_snapshot(expected),
        };
        match loaded {
            Ok(Loaded { block, whole, read_bytes: bytes, read, verify }) => {
                let block = Arc::new(block);
                self.put(index, Slot::Read(Brought { block, has_window: whole, bytes, read, verify }));
            }
            Err(LoadFailure { error, file }) => {
                if error.is_damage() {
                    let damaged = Command::Quarantine { key: expected.key, copy: *copy, file };
                    // Without the service, at shutdown, the next reader of the file finds the same.
                    drop(service.send(damaged));
                }
                self.put(index, Slot::Failed(error));
            }
        }
    }

    fn put(&self, index: usize, slot: Slot) {
        if matches!(slot, Slot::Failed(_)) {
            self.failed_at.fetch_min(index, Ordering::AcqRel);
        }
        self.slots.lock()[index] = slot;
    }

    /// Answers now, without the blocks that have not come.
    fn give_up(&self, stall: Duration) {
        let Some(done) = self.done.lock().take() else { return };
        let reason = format!("reading takes longer than {} ms", stall.as_millis());
        for (index, slot) in self.slots.lock().iter_mut().enumerate() {
            if matches!(slot, Slot::Open) {
                self.failed_at.fetch_min(index, Ordering::AcqRel);
                *slot = Slot::Failed(ReadError::Io(reason.clone()));
            }
        }
        done(self.outcome());
    }

    /// The last one to close answers.
    fn close_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().take()
        {
            done(self.outcome());
        }
    }

    fn outcome(&self) -> Restored {
        let mut restored = Restored {
            blocks: Vec::with_capacity(self.items.len()),
            tokens: 0,
            snapshot: None,
            failure: None,
            read_bytes: 0,
            elapsed: self.begun.elapsed(),
            read: Duration::ZERO,
            verify: Duration::ZERO,
            failures: Vec::new(),
        };
        let (mut from_disk, mut read, mut verify) = (false, Duration::ZERO, Duration::ZERO);
        for (item, slot) in self.items.iter().zip(self.slots.lock().iter()) {
            let Hit { key, start, used_tokens, .. } = item.hit;
            let (tier, copy) = match &item.source {
                Source::Disk { copy, .. } => (Tier::Disk, *copy),
                Source::Resident(_) | Source::Nowhere => (Tier::Resident, 0),
            };
            from_disk |= tier == Tier::Disk;
            match slot {
                Slot::Read(brought) => {
                    restored.read_bytes += brought.bytes;
                    read += brought.read;
                    verify += brought.verify;
                    if item.kind == Kind::Snapshot {
                        restored.snapshot = Some(Arc::clone(&brought.block));
                    } else if restored.failure.is_none() {
                        restored.tokens = start + used_tokens;
                        let (block, has_window) = (Arc::clone(&brought.block), brought.has_window);
                        restored.blocks.push(RestoredBlock { block, start, used_tokens, tier, has_window });
                    }
                }
                Slot::Failed(error) => {
                    restored.failure.get_or_insert((key, error.clone()));
                    restored.failures.push(FailedCopy { key, copy, error: error.clone() });
                }
                Slot::Open => {}
            }
        }
        if from_disk {
            // The wall time is the readers' in common: it is divided as theirs was.
            let busy = (read + verify).as_secs_f64();
            let share = if busy > 0.0 { verify.as_secs_f64() / busy } else { 0.0 };
            restored.verify = restored.elapsed.mul_f64(share).min(restored.elapsed);
            restored.read = restored.elapsed.saturating_sub(restored.verify);
        }
        restored
    }
}

/// Answers a restore whose blocks are all in RAM, or gone.
pub(crate) fn restore_inline(items: Vec<Item>, begun: Instant, done: Done) {
    let job = Job::new(items, begun, done);
    job.open.store(1, Ordering::Release);
    job.close_one();
}
