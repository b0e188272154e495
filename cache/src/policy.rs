//! Which block leaves first. The tree decides what *may* leave; a policy only orders it.
//!
//! 1. A score does not change between two uses of a block, so that blocks stay sorted: whatever fades with time must
//!    fade for all blocks alike.
//!
//! Scores are in microseconds since 1970, so that two policies, or blocks of another fingerprint, can be compared.

/// Place in the order of eviction: priority first, then the policy's score; the lowest leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worth {
    pub priority: u8,
    pub score: u64,
}

/// How a block has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Last use, microseconds since 1970; strictly increasing over a cache's uses.
    pub last_use_us: u64,
    /// Uses so far, each counting half after [`HALF_LIFE_US`].
    pub reuse: f32,
    /// Uses so far.
    pub hits: u32,
}

/// After this time a use counts half: an hour, so that a conversation's pause does not end it.
pub const HALF_LIFE_US: f64 = 3_600e6;

impl Usage {
    /// One more use, at `now_us`.
    pub(crate) fn touch(&mut self, now_us: u64) {
        let idle_us = now_us.saturating_sub(self.last_use_us) as f64;
        self.reuse = (f64::from(self.reuse) * (-idle_us / HALF_LIFE_US).exp2()) as f32 + 1.0;
        self.hits = self.hits.saturating_add(1);
        self.last_use_us = now_us;
    }
}

/// What a policy may look at.
#[derive(Clone, Copy, Debug)]
pub struct BlockFacts {
    /// How it has been used.
    pub usage: Usage,
    /// Position of its first token: deeper tokens cost more to compute again.
    pub start: usize,
    /// Tokens it holds.
    pub tokens: usize,
    /// Bytes it takes.
    pub bytes: u64,
}

/// Orders blocks for eviction.
pub trait EvictionPolicy: Send {
    /// The block with the lowest score leaves first.
    fn score(&self, facts: &BlockFacts) -> u64;
}

/// What a cache uses unless it is told otherwise: the better one in the replay of `benches/replay.rs`.
pub(crate) fn default_policy() -> Box<dyn EvictionPolicy> {
    Box::new(CostAware::default())
}

/// Least recently used first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lru;

impl EvictionPolicy for Lru {
    fn score(&self, facts: &BlockFacts) -> u64 {
        facts.usage.last_use_us
    }
}

/// Least worth first: recompute cost x expected reuse per byte, where the expectation halves with every half-life.
///
/// `worth(t) = w 2^((last_use - t) / h)` orders blocks like `last_use + h log2(w)`, which no longer depends on the
/// time of asking. The defaults are those that found most in `benches/replay`: recency says nearly everything, a
/// second use a little, more uses nothing.
#[derive(Clone, Copy, Debug)]
pub struct CostAware {
    /// Time in which the expectation of another use halves, in microseconds.
    pub half_life_us: f64,
    /// Uses above this say nothing more about the next one.
    pub most_reuse: f64,
    /// Depth at which a token costs twice what the first one does, in tokens. Far above what a model's arithmetic says,
    /// because a chain leaves from its end: dearer ends would keep old long chains over young short ones.
    pub attention_tokens: f64,
}

impl Default for CostAware {
    fn default() -> Self {
        Self { half_life_us: 45e6, most_reuse: 2.0, attention_tokens: 524_288.0 }
    }
}

impl EvictionPolicy for CostAware {
    fn score(&self, facts: &BlockFacts) -> u64 {
        let middle = facts.start as f64 + facts.tokens as f64 / 2.0;
        let cost = facts.tokens as f64 * (1.0 + middle / self.attention_tokens);
        let reuse = f64::from(facts.usage.reuse).clamp(1.0, self.most_reuse.max(1.0));
        let worth = cost * reuse / (facts.bytes.max(1) as f64);
        (facts.usage.last_use_us as f64 + self.half_life_us * worth.log2()).max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(last_use_us: u64, reuse: f32, start: usize) -> BlockFacts {
        BlockFacts { usage: Usage { last_use_us, reuse, hits: 1 }, start, tokens: 256, bytes: 1 << 20 }
    }

    #[test]
    fn a_use_counts_half_after_a_half_life() {
        let mut usage = Usage::default();
        usage.touch(1_000);
        usage.touch(1_000 + HALF_LIFE_US as u64);
        assert!((usage.reuse - 1.5).abs() < 1e-3, "{}", usage.reuse);
        assert_eq!(usage.hits, 2);
    }

    #[test]
    fn the_cost_aware_policy_keeps_what_is_dear_and_used_often() {
        let policy = CostAware::default();
        let now = 1_700_000_000_000_000;
        assert!(policy.score(&facts(now, 8.0, 0)) > policy.score(&facts(now, 1.0, 0)));
        assert!(policy.score(&facts(now, 1.0, 65_536)) > policy.score(&facts(now, 1.0, 0)));
        // Twice the reuse is worth one half-life of age.
        let older = policy.score(&facts(now - policy.half_life_us as u64, 2.0, 0));
        assert!(older.abs_diff(policy.score(&facts(now, 1.0, 0))) < 1_000);
    }
}
