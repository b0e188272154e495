//! A load on its way: what was asked for, what has come of it, and the one answer.
//!
//! Whoever reads puts what it has read into the job's slots, and closes it once for each item that it took. The last one to
//! close answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::block::Block;
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::lookup::{Hit, Tier};
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

/// The block that must come, or none.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub key: BlockKey,
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    pub parent: Option<BlockKey>,
    pub start: usize,
    pub tokens: Arc<[u32]>,
}

/// Where a block comes from.
pub(crate) enum Source {
    Resident(Arc<Block>),
    Below {
        expected: Box<Expected>,
        copy: u64,
        with_window: bool,
    },
    /// It left between lookup and restore.
    Nowhere,
}

enum Slot {
    /// Not answered yet.
    Open,
    Read(Brought),
    Failed(ReadError),
}

/// A block that came, and what that cost its reader.
pub(crate) struct Brought {
    pub block: Arc<Block>,
    pub has_window: bool,
    pub bytes: u64,
    pub read: Duration,
    pub verify: Duration,
}

/// See the module's documentation.
pub(crate) struct Job {
    items: Vec<Item>,
    slots: Mutex<Vec<Slot>>,
    /// How often it is still to be closed.
    open: AtomicUsize,
    /// The first block known to have failed; `usize::MAX` while all is well.
    failed_at: AtomicUsize,
    done: Mutex<Option<Done>>,
    begun: Instant,
}

impl Job {
    /// To be closed once, and once for every item that is [handed out](Self::hand_out).
    pub fn new(items: Vec<Item>, begun: Instant, done: Done) -> Self {
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
                Source::Below { .. } => Slot::Open,
                Source::Nowhere => Slot::Failed(ReadError::Gone),
            })
            .collect();
        let failed_at = slots.iter().position(|slot| matches!(slot, Slot::Failed(_))).unwrap_or(usize::MAX);
        Self {
            items,
            slots: Mutex::new(slots),
            open: AtomicUsize::new(1),
            failed_at: AtomicUsize::new(failed_at),
            done: Mutex::new(Some(done)),
            begun,
        }
    }

    /// The items that have to be read.
    pub fn hand_out(&self) -> Vec<usize> {
        let below = |index: &usize| matches!(self.items[*index].source, Source::Below { .. });
        let wanted: Vec<usize> =
            (0..self.items.len()).filter(below).filter(|index| self.is_wanted(*index)).collect();
        self.open.fetch_add(wanted.len(), Ordering::AcqRel);
        wanted
    }

    /// Whether no item before this one has failed.
    pub fn is_wanted(&self, index: usize) -> bool {
        index < self.failed_at.load(Ordering::Acquire)
    }

    pub fn item(&self, index: usize) -> &Item {
        &self.items[index]
    }

    pub fn put(&self, index: usize, read: Result<Brought, ReadError>) {
        if read.is_err() {
            self.failed_at.fetch_min(index, Ordering::AcqRel);
        }
        self.slots.lock()[index] = read.map_or_else(Slot::Failed, Slot::Read);
    }

    /// Answers now, without the blocks that have not come.
    pub fn give_up(&self, stall: Duration) {
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
    pub fn close_one(&self) {
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
                Source::Below { copy, .. } => (Tier::Disk, *copy),
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

/// Answers a load without a tier: what is not in RAM is gone.
pub(crate) fn answer(items: Vec<Item>, begun: Instant, done: Done) {
    let job = Job::new(items, begun, done);
    for index in job.hand_out() {
        job.put(index, Err(ReadError::Gone));
        job.close_one();
    }
    job.close_one();
}
