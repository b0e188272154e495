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
mod insert;
mod lease;
mod lookup;
mod restore;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use lease::Lease;

use crate::error::CacheError;
use crate::ghosts::Ghosts;
use crate::options::CacheOptions;
use crate::policy::{EvictionPolicy, Lru};
use crate::stats::{CacheStats, FlushOutcome, MissStats, TierStats};
use crate::tree::PrefixTree;

/// Prefix blocks of one model in RAM and on disk. See the crate's documentation and `README.md`.
pub struct PrefixCache {
    options: CacheOptions,
    tree: PrefixTree,
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
        if options.block_tokens == 0 {
            return Err(CacheError::Setting { name: "block_tokens", found: 0, expected: "at least 1" });
        }
        Ok(Self {
            options,
            tree: PrefixTree::new(policy),
            ghosts: Ghosts::default(),
            clock: Clock::default(),
            counters: Counters::default(),
        })
    }

    /// Takes the service's answers and evicts what is over budget. Cheap; call it between steps.
    pub fn poll(&mut self) {
        self.evict_resident();
    }

    /// Sizes and counters.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            resident: TierStats { budget_bytes: self.options.resident_bytes, ..self.tree.resident_stats() },
            disk: None,
            pinned_blocks: self.tree.pinned(),
            lookups: self.counters.lookups,
            resident_hit_tokens: self.counters.resident_hit_tokens,
            disk_hit_tokens: self.counters.disk_hit_tokens,
            asked_tokens: self.counters.asked_tokens,
            misses: self.counters.misses,
            evicted_blocks: self.counters.evicted_blocks,
        }
    }

    /// Waits until everything that should be on disk is durable, at most until `deadline`.
    pub fn flush(&mut self, _deadline: Instant) -> FlushOutcome {
        self.poll();
        FlushOutcome::NoDisk
    }

    /// Forgets everything, in all tiers. Leases stay valid: what follows their chain is found again once the chain
    /// itself has been computed and inserted again.
    pub fn clear(&mut self) {
        let keys: Vec<_> = self.tree.keys().copied().collect();
        for key in &keys {
            self.tree.set_resident(key, None);
        }
        for key in &keys {
            self.tree.prune(key);
        }
        self.ghosts.clear();
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
}
