//! What the cache knows of the tier below RAM, whichever it is: what waits to be put there, what it has said, and what of it
//! cannot be had at the moment.
//!
//! 1. `used_bytes` counts everything in the tier, and what is queued: blocks, snapshots, index, quarantine, files that are
//!    not ours.
//! 2. At most [`Limits::queue_bytes`] wait to be written; the queue refuses, it never blocks.
//! 3. While writes fail one block at a time is tried: the first that works ends the degraded state.
//! 4. A tier without a budget keeps nothing, and nothing is put into it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::block::Block;
use crate::key::BlockKey;
use crate::options::DiskOptions;
use crate::policy::Usage;
use crate::retention::Keep;
use crate::stats::{ReadFailureStats, WriteStats};
use crate::tier::{Found, LowerTier, Noop, Put, Written};

pub(super) struct Lower {
    pub tier: Box<dyn LowerTier>,
    limits: Limits,
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
    written: Written,
    /// Allocated bytes of quarantine, stuck files and files that are not ours.
    pub other_bytes: u64,
    pub index_bytes: u64,
    /// Bytes the tier needs freed before the free-space floor lets it write again.
    pub short_bytes: u64,
    /// Stored blocks whose recency the index does not know yet.
    pub touched: HashSet<BlockKey>,
    pub touches_sent: Instant,
    /// Blocks in RAM that the tier refused; tried again with their next use, and by `flush`.
    pub unwritten: HashSet<BlockKey>,
    copies: u64,
}

/// What a tier may take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Allocated bytes. 0: it keeps nothing.
    pub budget_bytes: u64,
    /// Bytes that may wait to be written.
    pub queue_bytes: u64,
    /// Bytes that may be written on one day, if there is a limit.
    pub a_day: Option<u64>,
}

impl Limits {
    pub fn new(options: &DiskOptions, a_day: Option<u64>) -> Self {
        Self { budget_bytes: options.budget_bytes, queue_bytes: options.write_queue_bytes, a_day }
    }
}

/// Whether a block was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queueing {
    Queued { copy: u64 },
    Full,
    OverDaily,
}

impl Lower {
    /// A tier, and what was found in it beside blocks and snapshots.
    pub fn new(tier: Box<dyn LowerTier>, limits: Limits, found: &Found) -> Self {
        Self {
            tier,
            limits,
            writes: WriteStats::default(),
            read_failures: ReadFailureStats::default(),
            read_bytes: 0,
            quarantined: found.quarantined,
            degraded: None,
            unreadable: None,
            aside: Vec::new(),
            aside_since: Instant::now(),
            written: found.written,
            other_bytes: found.other_bytes,
            index_bytes: found.index_bytes,
            short_bytes: 0,
            touched: HashSet::new(),
            touches_sent: Instant::now(),
            unwritten: HashSet::new(),
            copies: 0,
        }
    }

    /// No tier.
    pub fn none() -> Self {
        Self::new(Box::new(Noop::default()), Limits::default(), &Found::default())
    }

    /// Whether anything is kept here at all.
    pub fn keeps(&self) -> bool {
        self.limits.budget_bytes > 0
    }

    pub fn budget_bytes(&self) -> u64 {
        self.limits.budget_bytes
    }

    /// A number that no copy has had.
    pub fn next_copy(&mut self) -> u64 {
        self.copies += 1;
        self.copies
    }

    /// Allocated bytes, given those of all blocks and snapshots.
    pub fn used_bytes(&self, known_bytes: u64) -> u64 {
        known_bytes + self.other_bytes + self.index_bytes + self.writes.queued_bytes
    }

    /// Hands a block or a snapshot to the tier, if the queue has room. A snapshot may be longer than the queue; alone it
    /// has room all the same.
    pub fn queue(&mut self, block: Arc<Block>, usage: Usage, keep: Keep, now_us: u64) -> Queueing {
        const DAY_US: u64 = 86_400_000_000;
        let bytes = block.bytes();
        let day = now_us / DAY_US;
        let today = if self.written.day == day { self.written.bytes } else { 0 };
        if self.limits.a_day.is_some_and(|limit| today + bytes > limit) {
            self.writes.over_daily_blocks += 1;
            return Queueing::OverDaily;
        }
        let waiting = self.writes.queued_blocks > 0;
        let room =
            self.writes.queued_bytes + bytes <= self.limits.queue_bytes || (block.is_snapshot() && !waiting);
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
        self.tier.put(Put { block, copy, usage, keep, written: self.written });
        Queueing::Queued { copy }
    }

    /// A block left the queue.
    pub fn unqueue(&mut self, queued_bytes: u64) {
        self.writes.queued_blocks -= 1;
        self.writes.queued_bytes -= queued_bytes;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.touched.clear();
        self.aside.clear();
        self.unwritten.clear();
        self.tier.clear();
    }
}
