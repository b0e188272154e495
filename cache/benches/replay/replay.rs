//! A trace through the real cache: the same tree, the same eviction, a clock that follows the trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefixd_cache::{CacheOptions, EvictionPolicy, Fingerprint, Payload, PrefixCache, Tenant, Tuning};

/// Tokens that one id of a trace stands for.
pub const BLOCK_TOKENS: usize = 512;
/// Bytes that a block without tensors counts: its one token, see `Block::bytes`.
const BLOCK_BYTES: u64 = 4;

/// One request of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came, from the start of the trace.
    pub at_ms: u64,
    /// Tokens of its prompt.
    pub tokens: usize,
    /// Its prompt in blocks; equal ids stand for equal prefixes.
    pub blocks: Vec<u32>,
}

/// What a cache found of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub asked_tokens: u64,
    pub hit_tokens: u64,
}

impl Found {
    pub fn rate(self) -> f64 {
        self.hit_tokens as f64 / self.asked_tokens.max(1) as f64
    }
}

/// What a cache with room for everything finds.
pub fn ideal(requests: &[Request]) -> Found {
    replay(requests, usize::MAX / 1_024, Box::new(prefixd_cache::Lru))
}

/// Sends a trace through a cache with room for `capacity_tokens`. A block of the trace is one token of the cache, so that
/// ids can be what they are.
pub fn replay(requests: &[Request], capacity_tokens: usize, policy: Box<dyn EvictionPolicy>) -> Found {
    const BEGIN_US: u64 = 1_700_000_000_000_000;
    let now_us = Arc::new(AtomicU64::new(BEGIN_US));
    let clock = Arc::clone(&now_us);
    let options = CacheOptions {
        fingerprint: Fingerprint::from_bytes([1; 32]),
        block_tokens: 1,
        resident_bytes: (capacity_tokens / BLOCK_TOKENS) as u64 * BLOCK_BYTES,
        disk: None,
    };
    let tuning =
        Tuning { policy, clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Tuning::default() };
    let mut cache = PrefixCache::open_tuned(options, tuning).expect("a cache without a disk opens");
    let mut found = Found::default();
    for request in requests {
        now_us.store(BEGIN_US + request.at_ms * 1_000, Ordering::Relaxed);
        let lookup = cache.lookup(&Tenant::PUBLIC, &request.blocks, request.blocks.len());
        found.asked_tokens += request.tokens as u64;
        found.hit_tokens += (lookup.tokens * BLOCK_TOKENS).min(request.tokens) as u64;
        let mut lease = cache.lease(&Tenant::PUBLIC, &lookup);
        for block in &request.blocks[lookup.tokens..] {
            cache.insert(&mut lease, &[*block], Payload::default());
        }
        drop(lease);
    }
    found
}
