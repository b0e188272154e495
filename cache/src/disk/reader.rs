//! Restores: a few threads that read and verify block files in parallel.
//!
//! 1. A restore answers once, when all its blocks are read or known not to be needed: what comes after a failed block
//!    is not read.
//! 2. A read that takes longer than it may is given up: the restore answers without it, and while every reader is stuck
//!    restores answer at once. Nothing waits for a disk that does not answer.
//! 3. A damaged file goes to the eviction service before the answer goes out, so that a block written after the answer
//!    is written after the quarantine.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::disk::directory::Directory;
use crate::disk::files::FileSystem;
use crate::disk::load::{LoadFailure, Loaded, Reading};
use crate::disk::message::Command;
use crate::error::ReadError;
use crate::memory::Memory;
use crate::tier::{Brought, Done, Item, Job, Kind, Source};

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

    pub fn load(&self, items: Vec<Item>, begun: Instant, done: Done) {
        let job = Arc::new(Job::new(items, begun, done));
        self.jobs.lock().push(Arc::downgrade(&job));
        for index in job.hand_out() {
            let handed =
                self.tasks.as_ref().is_some_and(|tasks| tasks.send((Arc::clone(&job), index)).is_ok());
            if !handed {
                job.put(index, Err(ReadError::Io("the reader threads are gone".into())));
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
        if job.is_wanted(index) {
            *current.lock() = Some((Arc::clone(&job), Instant::now()));
            read(&job, index, reading, service);
            *current.lock() = None;
        }
        job.close_one();
    }
}

fn read(job: &Job, index: usize, reading: Reading<'_>, service: &Sender<Command>) {
    let Item { kind, source: Source::Below { expected, copy, with_window }, .. } = job.item(index) else {
        return;
    };
    let loaded = match kind {
        Kind::Block => reading.load(expected, *with_window),
        Kind::Snapshot => reading.load_snapshot(expected),
    };
    match loaded {
        Ok(Loaded { block, whole, read_bytes: bytes, read, verify }) => {
            job.put(index, Ok(Brought { block: Arc::new(block), has_window: whole, bytes, read, verify }));
        }
        Err(LoadFailure { error, file }) => {
            if error.is_damage() {
                let damaged = Command::Quarantine { key: expected.key, copy: *copy, file };
                // Without the service, at shutdown, the next reader of the file finds the same.
                drop(service.send(damaged));
            }
            job.put(index, Err(error));
        }
    }
}
