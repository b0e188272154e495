//! The cache as its owner sees it: one prefix tree, and behind it the threads that read and write block files.
//!
//! 1. Every method returns at once: no file is opened, no lock is waited for. (`open`, `flush` and dropping are the
//!    exceptions, and say so.)
//! 2. What `insert` takes is found by the next `lookup`, before and while it is written.
//! 3. A leased block keeps its last copy until the lease is released.
//! 4. A block without a sound copy is never returned; the miss says why.
//! 5. The tree decides what leaves; the eviction service only carries it out.
//!
//! Owned by one thread (the scheduler's); `Send`, not shared.

mod evict;
mod flush;
mod insert;
mod lease;
mod lookup;
#[cfg(test)]
mod model_tests;
mod persist;
mod restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use lease::Lease;

use crate::disk::{Command, DiskTier, FileSystem, OsFileSystem};
use crate::error::CacheError;
use crate::ghosts::Ghosts;
use crate::options::CacheOptions;
use crate::policy::{EvictionPolicy, Lru};
use crate::stats::{CacheStats, DiskStats, MissStats, TierStats};
use crate::tree::{DiskCopy, PrefixTree};
use persist::Sending;

/// Prefix blocks of one model in RAM and on disk. See the crate's documentation and `README.md`.
pub struct PrefixCache {
    options: CacheOptions,
    tree: PrefixTree,
    disk: Option<DiskTier>,
    ghosts: Ghosts,
    clock: Clock,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    lookups: u64,
    asked_tokens: u64,
    resident_hit_tokens: u64,
    disk_hit_tokens: u64,
    misses: MissStats,
    evicted_blocks: u64,
}

impl PrefixCache {
    /// Opens the cache with least-recently-used eviction. With a disk tier this takes the directory's lock, brings the
    /// index up to date (or rebuilds it from the blocks) and starts the threads; it reads and writes files.
    ///
    /// # Errors
    /// A setting that cannot work; a directory that is in use, is not a directory or cannot be used; an index written
    /// by a newer build.
    pub fn open(options: CacheOptions) -> Result<Self, CacheError> {
        Self::open_with_policy(options, Box::new(Lru))
    }

    /// [`open`](Self::open) with another order of eviction.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_policy(
        options: CacheOptions,
        policy: Box<dyn EvictionPolicy>,
    ) -> Result<Self, CacheError> {
        Self::open_on(options, policy, Arc::new(OsFileSystem))
    }

    pub(crate) fn open_on(
        options: CacheOptions,
        policy: Box<dyn EvictionPolicy>,
        files: Arc<dyn FileSystem>,
    ) -> Result<Self, CacheError> {
        if options.block_tokens == 0 {
            return Err(CacheError::Setting { name: "block_tokens", found: 0, expected: "at least 1" });
        }
        let (disk, rows) = match options.disk.clone() {
            Some(disk) => {
                DiskTier::open(disk, options.fingerprint, files).map(|(tier, rows)| (Some(tier), rows))?
            }
            None => (None, Vec::new()),
        };
        let mut cache = Self {
            options,
            tree: PrefixTree::new(policy),
            disk,
            ghosts: Ghosts::default(),
            clock: Clock::default(),
            counters: Counters::default(),
        };
        cache.take_rows(rows);
        cache.evict_disk();
        Ok(cache)
    }

    /// Takes the service's answers and evicts what is over budget. Cheap; call it between steps.
    pub fn poll(&mut self) {
        self.take_reports();
        self.evict_resident();
        self.evict_disk();
        self.send_uses(Sending::WhenDue);
    }

    /// Sizes and counters.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            resident: TierStats { budget_bytes: self.options.resident_bytes, ..self.tree.resident_stats() },
            disk: self.disk.as_ref().map(|disk| self.disk_stats(disk)),
            pinned_blocks: self.tree.pinned(),
            lookups: self.counters.lookups,
            resident_hit_tokens: self.counters.resident_hit_tokens,
            disk_hit_tokens: self.counters.disk_hit_tokens,
            asked_tokens: self.counters.asked_tokens,
            misses: self.counters.misses,
            evicted_blocks: self.counters.evicted_blocks,
        }
    }

    fn disk_stats(&self, disk: &DiskTier) -> DiskStats {
        DiskStats {
            tier: TierStats { budget_bytes: disk.options.budget_bytes, ..self.tree.disk_stats() },
            stray_blocks: disk.strays.len() as u64,
            stray_bytes: disk.strays.bytes(),
            other_bytes: disk.other_bytes + disk.index_bytes,
            quarantined: disk.quarantined,
            writes: disk.writes,
            read_failures: disk.read_failures,
            read_bytes: disk.read_bytes,
            degraded: disk.degraded.clone(),
        }
    }

    /// Forgets everything, in all tiers, the blocks of other fingerprints and the quarantine included. Leases stay
    /// valid: what follows their chain is found again once the chain itself has been computed and inserted again.
    pub fn clear(&mut self) {
        self.take_reports();
        let keys: Vec<_> = self.tree.keys().copied().collect();
        for key in &keys {
            self.tree.set_resident(key, None);
            self.tree.set_disk(key, DiskCopy::None);
        }
        for key in &keys {
            self.tree.prune(key);
        }
        self.ghosts.clear();
        if let Some(disk) = &mut self.disk {
            disk.strays = crate::disk::Strays::default();
            disk.touched.clear();
            disk.unwritten.clear();
            disk.send(Command::Clear);
        }
    }
}

impl Drop for PrefixCache {
    /// Sends the last recency on its way; the disk tier then finishes what is queued. Waits for the disk.
    fn drop(&mut self) {
        self.send_uses(Sending::Now);
    }
}

/// Microseconds since 1970, never twice the same, so that the order of uses is total and survives a restart.
#[derive(Debug, Default)]
struct Clock {
    last_us: u64,
}

impl Clock {
    fn tick(&mut self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_us = wall.max(self.last_us + 1);
        self.last_us
    }

    /// Later ticks come after `time_us`, which an earlier process saw.
    fn at_least(&mut self, time_us: u64) {
        self.last_us = self.last_us.max(time_us);
    }
}
