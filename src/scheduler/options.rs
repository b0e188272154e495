//! What the scheduler is told at its start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prefixd_cache::{Tuning, WallClock};

/// Reads the time. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Limits and sizes.
#[derive(Clone)]
pub struct SchedulerOptions {
    /// Rows computed together at most.
    pub max_batch: usize,
    /// Requests that may wait for a row.
    pub queue_limit: usize,
    /// Tokens of a prompt computed at once at most; chunks end at absolute multiples of it while no row decodes.
    pub prefill_step_tokens: usize,
    /// A pass that carries tokens of a prompt beside decoding rows may take this many times as long as the rows alone.
    pub decode_slowdown: f64,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// KV bytes that all rows together may grow to. No longer sequence is served than one that fits into them.
    pub live_bytes: u64,
    /// Chunks always end at multiples of `prefill_step_tokens` and reuse stops there, so that a warm prefill computes the
    /// chunks of a cold one.
    pub exact: bool,
    /// Blocks not used for so long are removed; `None`: they stay while there is room.
    pub idle_ttl: Option<Duration>,
    /// Bytes of blocks that may be written to disk in a day; `None`: any number.
    pub daily_write_bytes: Option<u64>,
    /// How long the last writes of blocks may take at shutdown.
    pub flush_limit: Duration,
    /// Share of the cache's budget that pins of requests may take, keys in fair parts, and of the RAM budget that living
    /// agents' blocks are preferred in; 0 to 1.
    pub pin_share: f64,
    /// Share of the cache's budgets that snapshots of recurrent layers may take; 0 to 1.
    pub snapshot_share: f64,
    /// An agent that is not used for so long is forgotten.
    pub agent_ttl: Duration,
    /// The time.
    pub clock: Clock,
    /// The time of day, by which pins and lifetimes end.
    pub time_of_day: WallClock,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            max_batch: 8,
            queue_limit: 256,
            prefill_step_tokens: 512,
            decode_slowdown: 1.8,
            block_tokens: 256,
            live_bytes: u64::MAX,
            exact: false,
            idle_ttl: None,
            daily_write_bytes: None,
            flush_limit: Duration::from_secs(10),
            pin_share: 0.5,
            snapshot_share: 0.5,
            agent_ttl: Duration::from_hours(1),
            clock: Arc::new(Instant::now),
            time_of_day: Tuning::default().clock,
        }
    }
}
