//! What a cache may be told beside its [`CacheOptions`](crate::CacheOptions); every part has a default.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::memory::Memory;
use crate::policy::{EvictionPolicy, default_policy};

/// The time of day in microseconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Order of eviction, limits and clock of a cache: see [`PrefixCache::open_tuned`](crate::PrefixCache::open_tuned).
pub struct Tuning {
    /// Which block leaves first.
    pub policy: Box<dyn EvictionPolicy>,
    /// The widest sliding window of the model in tokens. With it, window parts that only a restore into the middle of a
    /// chain would need make room before any block does. `None`: window parts leave with their blocks.
    pub window_tokens: Option<usize>,
    /// Blocks not used for so long are removed, unless their retention says otherwise; `None`: as long as there is room.
    pub idle_ttl: Option<Duration>,
    /// Bytes that may be written to disk in one day (UTC); `None`: any number. Spares flash memory.
    pub daily_write_bytes: Option<u64>,
    /// A read that takes longer counts as failed, and reads are given up until it ends.
    pub read_stall: Duration,
    /// How long a block that could not be read, or a disk whose reads stall, is left alone.
    pub read_retry: Duration,
    /// Share of the budget that blocks pinned by [`PrefixCache::pin`](crate::PrefixCache::pin) may take: of the disk budget
    /// while there is a disk tier that works, else of the RAM budget. Tenants have fair parts of it. From 0 to 1.
    pub pin_share: f64,
    /// The model keeps a state that no block holds: a lookup ends where there is a snapshot of it.
    pub needs_snapshots: bool,
    /// Share of the RAM budget and of the disk budget that snapshots may take. From 0 to 1.
    pub snapshot_share: f64,
    /// A snapshot that its conversation alone needs is written when nothing has gone on from it for so long.
    pub snapshot_idle: Duration,
    /// A directory that cannot be written leaves a cache in RAM alone, which says why ([`CacheStats::no_disk`]); otherwise
    /// it is an error.
    ///
    /// [`CacheStats::no_disk`]: crate::CacheStats::no_disk
    pub disk_is_optional: bool,
    /// Where blocks from disk are read to: the engine's, so that all KV counts together.
    pub memory: Memory,
    /// The clock; only tests and simulations need another.
    pub clock: WallClock,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            policy: default_policy(),
            window_tokens: None,
            idle_ttl: None,
            daily_write_bytes: None,
            read_stall: Duration::from_secs(10),
            read_retry: Duration::from_secs(30),
            pin_share: 0.5,
            needs_snapshots: false,
            snapshot_share: 0.5,
            snapshot_idle: Duration::from_secs(5),
            disk_is_optional: false,
            memory: Memory::default(),
            clock: Arc::new(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
            }),
        }
    }
}

impl fmt::Debug for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuning")
            .field("window_tokens", &self.window_tokens)
            .field("idle_ttl", &self.idle_ttl)
            .field("daily_write_bytes", &self.daily_write_bytes)
            .field("pin_share", &self.pin_share)
            .finish_non_exhaustive()
    }
}
