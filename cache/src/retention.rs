//! How long a block is kept, beside what the eviction policy thinks of it.
//!
//! 1. Priority comes before the policy's score: no block leaves for room before one of lower priority.
//! 2. A pinned block keeps its last copy, and so does everything before it, until the pin ends or is taken back.
//! 3. A lifetime counts from the last use; what stands on a block keeps it.

use std::time::Duration;

use prefixd_migrations::{DEFAULT_PRIORITY, MAX_PRIORITY, Row};

/// How long to keep the blocks of a lease: see [`PrefixCache::retain`](crate::PrefixCache::retain).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// 0 leaves first, 100 (and whatever is more) last.
    pub priority: u8,
    /// Whether eviction may take it.
    pub pin: Pin,
    /// Removed when not used for so long; `None`: as long as there is room, or the cache's own limit says.
    pub ttl: Option<Duration>,
}

/// Whether, and how long, eviction leaves a block alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Evicted when its turn comes.
    None,
    /// Not evicted for so long from now.
    For(Duration),
    /// Not evicted until the pin is taken back.
    Forever,
}

impl Default for Retention {
    fn default() -> Self {
        Self { priority: DEFAULT_PRIORITY, pin: Pin::None, ttl: None }
    }
}

/// A [`Retention`] with its times fixed, as nodes and rows carry it. Times are microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub priority: u8,
    /// 0: not pinned; the highest number: for ever.
    pub pinned_until_us: u64,
    /// 0: no lifetime of its own.
    pub ttl_us: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self::at(&Retention::default(), 0)
    }
}

impl Keep {
    pub fn at(retention: &Retention, now_us: u64) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1);
        Self {
            priority: retention.priority.min(MAX_PRIORITY),
            pinned_until_us: match retention.pin {
                Pin::None => 0,
                Pin::For(time) => now_us.saturating_add(micros(time)).min(u64::MAX - 1),
                Pin::Forever => u64::MAX,
            },
            ttl_us: retention.ttl.map_or(0, |ttl| micros(ttl).max(1)),
        }
    }

    pub fn of(row: &Row) -> Self {
        Self { priority: row.priority, pinned_until_us: row.pinned_until_us, ttl_us: row.ttl_us }
    }

    /// The same, pinned until then at least.
    pub fn pinned_until(self, until_us: u64) -> Self {
        Self { pinned_until_us: self.pinned_until_us.max(until_us), ..self }
    }

    pub fn is_pinned(&self, now_us: u64) -> bool {
        self.pinned_until_us > now_us
    }

    /// The time from which on a block that was last used then has outlived itself; `None` never.
    pub fn dies_us(&self, last_use_us: u64, cache_ttl_us: u64) -> Option<u64> {
        let ttl_us = if self.ttl_us == 0 { cache_ttl_us } else { self.ttl_us };
        (ttl_us > 0).then(|| last_use_us.saturating_add(ttl_us).max(self.pinned_until_us))
    }
}
