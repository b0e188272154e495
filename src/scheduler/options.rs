//! What the scheduler is told at its start.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reads the time. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Limits and sizes.
#[derive(Clone)]
pub struct SchedulerOptions {
    /// Rows computed together at most.
    pub max_batch: usize,
    /// Requests that may wait for a row.
    pub queue_limit: usize,
    /// Tokens of a prompt computed between two decode steps; chunks end at absolute multiples of it.
    pub prefill_step_tokens: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// KV bytes that all rows together may grow to. One row is always admitted.
    pub live_bytes: u64,
    /// Reuse stops at a multiple of `prefill_step_tokens`, so that a warm prefill computes the chunks of a cold one.
    pub exact: bool,
    /// How long the last writes of blocks may take at shutdown.
    pub flush_limit: Duration,
    /// The time.
    pub clock: Clock,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            max_batch: 8,
            queue_limit: 256,
            prefill_step_tokens: 512,
            block_tokens: 256,
            live_bytes: u64::MAX,
            exact: false,
            flush_limit: Duration::from_secs(10),
            clock: Arc::new(Instant::now),
        }
    }
}
