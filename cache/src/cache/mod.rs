//! The cache as its owner sees it: one prefix tree, and behind it the threads that read and write block files.
//!
//! 1. Every method returns at once: no file is opened, no lock is waited for. (`open`, `flush` and dropping are the
//!    exceptions, and say so.)
//! 2. What `insert` takes is found by the next `lookup`, before and while it is written.
//! 3. A leased block keeps its last copy until the lease is dropped.
//! 4. A block without a sound copy is never returned; the miss says why.
//! 5. The tree decides what leaves; the tier below only carries it out.
//! 6. There is always a tier below RAM; one that keeps nothing stands for none.
//!
//! Owned by one thread (the scheduler's); `Send`, not shared.

mod evict;
mod flush;
mod insert;
mod lease;
mod lookup;
mod lower;
#[cfg(test)]
mod model_tests;
mod persist;
mod pins;
mod prefix;
#[cfg(test)]
mod prefix_tests;
mod restore;
mod retain;
mod rows;
mod snapshot_copies;
#[cfg(test)]
mod snapshot_tests;
mod snapshots;
#[cfg(test)]
mod tenant_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
pub use lease::Lease;
pub use pins::Pinned;
pub use prefix::{Freed, Moved, PrefixSize};

use crate::block::Block;
use crate::disk::{DiskTier, FileSystem, OsFileSystem};
use crate::error::CacheError;
use crate::ghosts::Ghosts;
use crate::key::{BlockKey, Tenant};
use crate::options::CacheOptions;
use crate::orphans::Orphans;
use crate::snapshots::Snapshots;
use crate::stats::{CacheStats, DiskStats, SnapshotStats, TierStats};
use crate::tenants::{TenantStats, Tenants};
use crate::tier::Found;
use crate::tree::{DiskCopy, Page, PrefixTree};
use crate::tuning::{Tuning, WallClock};
use lower::{Limits, Lower};
use persist::Sending;

/// Prefix blocks of one model in RAM and on disk, beside those that others left on the same disk. See the crate's documentation and `README.md`.
pub struct PrefixCache {
    options: CacheOptions,
    tree: PrefixTree<Arc<Block>>,
    snapshots: Snapshots,
    orphans: Orphans,
    lower: Lower,
    no_disk: Option<String>,
    ghosts: Ghosts,
    clock: Clock,
    tenants: Tenants,
    /// Chains of dropped leases. Unbounded, since the bound is elsewhere: one message a lease, taken at the next call.
    given_back: (Sender<Vec<BlockKey>>, Receiver<Vec<BlockKey>>),
    counters: Counters,
    window_tokens: Option<usize>,
    idle_ttl_us: u64,
    /// When lifetimes are looked at again.
    expire_at_us: u64,
    read_retry: std::time::Duration,
    pin_share: f64,
    /// Lookups end at a snapshot.
    needs_snapshots: bool,
    snapshot_share: f64,
    snapshot_idle_us: u64,
}

#[derive(Debug, Default)]
struct Counters {
    evicted_blocks: u64,
    evicted_resident: u64,
    evicted_disk: u64,
    expired_blocks: u64,
    dropped_windows: u64,
    refused_pins: u64,
    yielded_pins: u64,
    snapshots_taken: u64,
    snapshots_written: u64,
    evicted_snapshots: u64,
}

impl PrefixCache {
    /// Opens the cache as [`Tuning::default`] has it. With a disk tier this takes the directory's lock, brings the
    /// index up to date (or rebuilds it from the blocks) and starts the threads; it reads and writes files.
    ///
    /// # Errors
    /// A setting that cannot work; a directory that is in use, is not a directory or cannot be used; an index written
    /// by a newer build.
    pub fn open(options: CacheOptions) -> Result<Self, CacheError> {
        Self::open_tuned(options, Tuning::default())
    }

    /// [`open`](Self::open) with limits and an order of eviction of its own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_tuned(options: CacheOptions, tuning: Tuning) -> Result<Self, CacheError> {
        let files: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
        Self::open_on(options, tuning, &files)
    }

    pub(crate) fn open_on(
        options: CacheOptions,
        tuning: Tuning,
        files: &Arc<dyn FileSystem>,
    ) -> Result<Self, CacheError> {
        if options.block_tokens == 0 {
            return Err(CacheError::Setting { name: "block_tokens", found: 0, expected: "at least 1" });
        }
        let (mut lower, mut found, mut no_disk) = (Lower::none(), Found::default(), None);
        if let Some(disk) = &options.disk {
            match DiskTier::open(disk, options.fingerprint, &tuning, files) {
                Ok((tier, there)) => {
                    let limits = Limits::new(disk, tuning.daily_write_bytes);
                    lower = Lower::new(Box::new(tier), limits, &there);
                    found = there;
                }
                Err(error) if tuning.disk_is_optional && error.leaves_memory() => {
                    no_disk = Some(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut cache = Self {
            tree: PrefixTree::new(
                options.fingerprint,
                tuning.policy,
                tuning.window_tokens,
                options.block_tokens,
            ),
            snapshots: Snapshots::default(),
            orphans: Orphans::default(),
            options,
            lower,
            no_disk,
            ghosts: Ghosts::default(),
            clock: Clock { wall: tuning.clock, last_us: 0 },
            tenants: Tenants::default(),
            given_back: crossbeam_channel::unbounded(),
            counters: Counters::default(),
            window_tokens: tuning.window_tokens,
            idle_ttl_us: tuning.idle_ttl.map_or(0, micros),
            expire_at_us: 0,
            read_retry: tuning.read_retry,
            pin_share: tuning.pin_share.clamp(0.0, 1.0),
            needs_snapshots: tuning.needs_snapshots,
            snapshot_share: tuning.snapshot_share.clamp(0.0, 1.0),
            snapshot_idle_us: micros(tuning.snapshot_idle),
        };
        cache.take_rows(found.blocks);
        cache.take_snapshot_rows(found.snapshots);
        cache.expire();
        cache.evict_disk();
        Ok(cache)
    }

    /// Takes the answers of the tier below and evicts what is over budget. Cheap; call it between steps.
    pub fn poll(&mut self) {
        self.take_leases();
        self.take_events();
        self.look_after_reads();
        self.expire();
        self.evict_resident();
        self.evict_disk();
        self.write_due_snapshots();
        self.send_uses(Sending::WhenDue);
    }

    /// Sizes and counters. Leases that were dropped since the last call that changes the cache count as living.
    pub fn stats(&self) -> CacheStats {
        let seen = self.tenants.sum();
        CacheStats {
            resident: TierStats {
                budget_bytes: self.options.resident_bytes,
                evicted_blocks: self.counters.evicted_resident,
                ..self.tree.resident_stats()
            },
            disk: self.lower.keeps().then(|| self.disk_stats()),
            no_disk: self.no_disk.clone(),
            pinned_blocks: self.tree.pinned(),
            retained_blocks: self.tree.pins().blocks(),
            retained_bytes: self.tree.pins().bytes(),
            refused_pins: self.counters.refused_pins,
            yielded_pins: self.counters.yielded_pins,
            lookups: seen.lookups,
            resident_hit_tokens: seen.resident_hit_tokens,
            disk_hit_tokens: seen.disk_hit_tokens,
            asked_tokens: seen.asked_tokens,
            misses: seen.misses,
            evicted_blocks: self.counters.evicted_blocks,
            expired_blocks: self.counters.expired_blocks,
            dropped_windows: self.counters.dropped_windows,
            snapshots: self.snapshot_stats(seen.no_state_tokens),
        }
    }

    fn snapshot_stats(&self, no_state_tokens: u64) -> SnapshotStats {
        let (resident, disk) = (self.snapshots.resident_stats(), self.snapshots.disk_stats());
        SnapshotStats {
            resident: resident.blocks,
            resident_bytes: resident.bytes,
            resident_budget_bytes: self.snapshot_limit_bytes(self.options.resident_bytes),
            on_disk: disk.blocks,
            disk_bytes: disk.bytes,
            disk_budget_bytes: self.snapshot_limit_bytes(self.lower.budget_bytes()),
            waiting: self.snapshots.all_due().len() as u64,
            taken: self.counters.snapshots_taken,
            written: self.counters.snapshots_written,
            evicted: self.counters.evicted_snapshots,
            no_state_tokens,
        }
    }

    /// What one tenant's lookups found: depends on that tenant's own requests alone.
    pub fn tenant_stats(&self, tenant: &Tenant) -> TenantStats {
        self.tenants.of(tenant)
    }

    fn disk_stats(&self) -> DiskStats {
        let lower = &self.lower;
        DiskStats {
            tier: TierStats {
                budget_bytes: lower.budget_bytes(),
                evicted_blocks: self.counters.evicted_disk,
                ..self.tree.disk_stats()
            },
            stray_blocks: self.tree.other_stats().blocks + self.orphans.len() as u64,
            stray_bytes: self.tree.other_stats().bytes + self.orphans.bytes(),
            other_bytes: lower.other_bytes + lower.index_bytes,
            quarantined: lower.quarantined,
            writes: lower.writes,
            read_failures: lower.read_failures,
            read_bytes: lower.read_bytes,
            degraded: lower.degraded.clone().or_else(|| lower.unreadable.clone()),
        }
    }

    /// Forgets everything, in all tiers, the blocks of other fingerprints and the quarantine included. Leases stay
    /// valid: what follows their chain is found again once the chain itself has been computed and inserted again.
    pub fn clear(&mut self) {
        self.take_leases();
        self.take_events();
        let keys: Vec<_> = self.tree.keys().copied().collect();
        for key in &keys {
            self.tree.set_resident(key, None);
            self.tree.set_disk(key, DiskCopy::None);
        }
        for key in &keys {
            self.tree.prune(key);
        }
        self.ghosts.clear();
        self.snapshots.clear();
        self.orphans = Orphans::default();
        self.lower.clear();
    }
}

impl Drop for PrefixCache {
    /// Sends the last snapshots and recency on their way; the tier below then finishes what is queued. Waits for the disk.
    fn drop(&mut self) {
        self.write_all_snapshots();
        self.send_uses(Sending::Now);
    }
}

impl Page for Arc<Block> {
    fn bytes(&self) -> u64 {
        Block::bytes(self)
    }
}

/// Microseconds since 1970, never twice the same, so that the order of uses is total and survives a restart.
struct Clock {
    wall: WallClock,
    last_us: u64,
}

impl Clock {
    fn tick(&mut self) -> u64 {
        self.last_us = self.now_us().max(self.last_us + 1);
        self.last_us
    }

    /// The time of day: what lifetimes and days are measured by.
    fn now_us(&self) -> u64 {
        (self.wall)()
    }

    /// Later ticks come after `time_us`, which an earlier process saw.
    fn at_least(&mut self, time_us: u64) {
        self.last_us = self.last_us.max(time_us);
    }
}
