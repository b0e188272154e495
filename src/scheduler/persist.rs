//! What outlives a sequence: the prefix cache, the names that clients give to prefixes, and what is on its way to disk.
//!
//! Computed KV goes to the cache as soon as it makes whole blocks, the rest when the sequence ends; so do snapshots of recurrent
//! layers at the places chosen for them. What the cache cannot do makes a request slower, never wrong and never failed.

use std::ops::Range;
use std::time::Instant;

use prefixd_cache::{CacheStats, Lookup, PrefixCache, Restored, SnapshotKind, Tenant, TenantStats};
use prefixd_engine::{Engine, StateSpec};

use super::agents::{Agents, Contexts, Eviction};
use super::options::{Clock, SchedulerOptions};
use super::sequence::Sequence;
use super::snapshots::SnapshotPoints;

/// A remainder shorter than this is cheaper to compute again than to keep.
const MIN_TAIL_TOKENS: usize = 16;

/// See the module's documentation.
pub(super) struct Persist {
    /// `None` when the server runs without a cache.
    pub(super) cache: Option<PrefixCache>,
    pub(super) agents: Agents,
    pub(super) contexts: Contexts,
    /// Agents on their way to disk.
    pub(super) evictions: Vec<Eviction>,
    pub(super) clock: Clock,
    pub(super) time_of_day: prefixd_cache::WallClock,
    block_tokens: usize,
    /// Reuse stops at multiples of this.
    reuse_tokens: usize,
    /// The model has recurrent layers: a prefix is of use only up to a snapshot of their state.
    has_snapshots: bool,
}

impl Persist {
    pub fn new(cache: Option<PrefixCache>, options: &SchedulerOptions, state: &StateSpec) -> Self {
        let budget_bytes = cache.as_ref().map_or(0, PrefixCache::resident_budget_bytes) as f64;
        let limit_bytes = (budget_bytes * options.pin_share) as u64;
        Self {
            cache,
            agents: Agents::new(options.agent_ttl, limit_bytes, state.token_bytes()),
            contexts: Contexts::default(),
            evictions: Vec::new(),
            clock: options.clock.clone(),
            time_of_day: options.time_of_day.clone(),
            block_tokens: options.block_tokens,
            reuse_tokens: if options.exact { options.prefill_step_tokens } else { 1 },
            has_snapshots: state.has_snapshots(),
        }
    }

    /// Whether anything is kept at all.
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// Goes on with what happens by itself: writes, evictions, ends of lifetimes.
    pub fn tend(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.poll();
        }
        self.go_on_evicting();
        self.agents.sweep(&mut self.cache, (self.time_of_day)());
    }

    /// Looks up the prompt and leases what was found. `None` without a cache.
    pub fn look_up(&mut self, sequence: &mut Sequence) -> Option<Lookup> {
        // What a lease held is freed before the prompt is looked up again.
        sequence.lease = None;
        let cache = self.cache.as_mut()?;
        let request = &sequence.request;
        // One token is always computed: its logits choose the first token of the answer.
        let limit = request.prompt.len() - 1;
        let mut lookup = cache.lookup(&request.tenant, &request.prompt, limit);
        sequence.snapshots = if self.has_snapshots && !request.hold.read_only {
            SnapshotPoints::of(request, &lookup, self.reuse_tokens, self.block_tokens)
        } else {
            SnapshotPoints::default()
        };
        let beyond = lookup.tokens % self.reuse_tokens;
        if beyond > 0 {
            lookup = cache.lookup(&request.tenant, &request.prompt, lookup.tokens - beyond);
        }
        let lease = cache.lease(&request.tenant, &lookup);
        sequence.kept_tokens = lease.tokens();
        sequence.lease = Some(lease);
        Some(lookup)
    }

    /// Has the blocks of `lookup` brought into RAM and handed to `done`.
    pub fn restore(
        &mut self,
        lookup: &Lookup,
        window_from: usize,
        done: impl FnOnce(Restored) + Send + 'static,
    ) {
        if let Some(cache) = &mut self.cache {
            cache.restore(lookup, window_from, Box::new(done));
        }
    }

    /// Takes in what was read.
    pub fn absorb(&mut self, restored: &Restored) {
        if let Some(cache) = &mut self.cache {
            cache.absorb(restored);
        }
    }

    /// Keeps what is to be kept of a prompt's first `in_kv` tokens, which are computed: whole blocks, and the snapshot whose
    /// place is here. `kv` holds the sequence as `row`.
    pub fn keep_prefix<E: Engine>(
        &mut self,
        engine: &mut E,
        kv: &E::Kv,
        row: usize,
        sequence: &mut Sequence,
        in_kv: usize,
    ) {
        self.keep_blocks(engine, kv, row, sequence, in_kv);
        let Some(kind) = sequence.snapshots.pass(in_kv) else { return };
        let block_end = sequence.kept_tokens + self.block_tokens;
        if in_kv > sequence.kept_tokens && block_end > sequence.prompt_tokens() {
            // The rest of the prompt makes no whole block of these tokens; those who wait for the snapshot need them now.
            let rest = sequence.kept_tokens..in_kv;
            self.keep(engine, kv, row, sequence, rest);
        }
        self.keep_snapshot(engine, kv, row, sequence, in_kv, kind);
    }

    /// Keeps every whole block of the first `in_kv` tokens that is not kept yet. `kv` holds the sequence as `row`.
    pub fn keep_blocks<E: Engine>(
        &mut self,
        engine: &mut E,
        kv: &E::Kv,
        row: usize,
        sequence: &mut Sequence,
        in_kv: usize,
    ) {
        while sequence.kept_tokens + self.block_tokens <= in_kv {
            let range = sequence.kept_tokens..sequence.kept_tokens + self.block_tokens;
            if !self.keep(engine, kv, row, sequence, range) {
                return;
            }
        }
    }

    /// Keeps all of a row's `in_kv` tokens, the part of a block at the end included, and the state of recurrent layers.
    pub fn keep_everything<E: Engine>(
        &mut self,
        engine: &mut E,
        kv: &E::Kv,
        row: usize,
        sequence: &mut Sequence,
        in_kv: usize,
    ) {
        self.keep_blocks(engine, kv, row, sequence, in_kv);
        let least = if self.has_snapshots { 1 } else { MIN_TAIL_TOKENS };
        if in_kv >= sequence.kept_tokens + least {
            let rest = sequence.kept_tokens..in_kv;
            self.keep(engine, kv, row, sequence, rest);
        }
        if self.has_snapshots && in_kv > 0 && in_kv.is_multiple_of(self.reuse_tokens) {
            self.keep_snapshot(engine, kv, row, sequence, in_kv, SnapshotKind::End);
        }
    }

    /// Keeps the state of a row's recurrent layers after `in_kv` tokens, which are all that it has.
    fn keep_snapshot<E: Engine>(
        &mut self,
        engine: &mut E,
        kv: &E::Kv,
        row: usize,
        sequence: &Sequence,
        in_kv: usize,
        kind: SnapshotKind,
    ) {
        let (Some(cache), Some(lease)) = (&mut self.cache, &sequence.lease) else { return };
        let behind = &sequence.tokens[sequence.kept_tokens..in_kv];
        // Without the blocks before it nothing would lead to it.
        if sequence.request.hold.read_only
            || behind.len() >= self.block_tokens
            || cache.has_snapshot(lease, behind, kind)
        {
            return;
        }
        match engine.snapshot(kv, row) {
            Ok(payload) => cache.insert_snapshot(lease, behind, payload, kind),
            Err(error) => tracing::warn!(%error, in_kv, "a snapshot could not be taken"),
        }
    }

    /// Keeps one block. False when nothing is to be kept or the engine cannot export it: then nothing after it is kept.
    fn keep<E: Engine>(
        &mut self,
        engine: &mut E,
        kv: &E::Kv,
        row: usize,
        sequence: &mut Sequence,
        range: Range<usize>,
    ) -> bool {
        let (Some(cache), Some(lease)) = (&mut self.cache, &mut sequence.lease) else { return false };
        if sequence.request.hold.read_only {
            return false;
        }
        let tokens = &sequence.tokens[range.clone()];
        if !cache.advance(lease, tokens) {
            match engine.export(kv, row, range.clone()) {
                Ok(payload) => {
                    cache.insert(lease, tokens, payload);
                }
                Err(error) => {
                    tracing::warn!(%error, ?range, "a block could not be exported; the rest of this sequence is not kept");
                    return false;
                }
            }
        }
        sequence.kept_tokens = lease.tokens();
        true
    }

    /// Does what the request asks to keep on purpose. `answered`: the answer came to its end.
    pub fn hold(&mut self, sequence: &Sequence, answered: bool) {
        let request = &sequence.request;
        if request.hold.read_only {
            return;
        }
        for pin in &request.hold.pins {
            let Some(cache) = &mut self.cache else { break };
            let prefix = &request.prompt[..pin.tokens.min(request.prompt.len())];
            // The block in which the prefix ends may hold more of this sequence than the prefix.
            let whole = cache.pin(&request.tenant, prefix, pin.time);
            tracing::debug!(?whole, tokens = pin.tokens, "a prefix was pinned");
        }
        self.note_turn(sequence, answered);
    }

    /// Forgets every block, agent and context.
    pub fn clear(&mut self) {
        self.agents.clear(&mut self.cache);
        self.contexts.clear();
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
    }

    /// What the cache knows of a prompt, but for its last token. Not a use.
    pub fn probe(&self, tenant: &Tenant, prompt: &[u32]) -> Option<Lookup> {
        let limit = prompt.len().saturating_sub(1);
        self.cache.as_ref().map(|cache| cache.peek(tenant, prompt, limit))
    }

    /// What a tenant's lookups found.
    pub fn tenant_stats(&self, tenant: &Tenant) -> Option<TenantStats> {
        self.cache.as_ref().map(|cache| cache.tenant_stats(tenant))
    }

    /// Waits until what is to be on disk is there, at most until `deadline`.
    pub fn flush(&mut self, deadline: Instant) {
        if let Some(cache) = &mut self.cache {
            cache.flush(deadline);
        }
    }

    /// Sizes and counters.
    pub fn stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(PrefixCache::stats)
    }
}
