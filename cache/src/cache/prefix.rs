//! Whole prefixes as their owner names them: which blocks hold one, and what is to become of those.
//!
//! 1. A prefix is named by its tokens or by the keys of its blocks; neither counts as a use.
//! 2. What [`pin`](PrefixCache::pin) pins never takes more than a share of the budget: see [`Tuning`](crate::Tuning).
//!    While the share has room anybody may take it. A tenant and its parts that have less than their fair part, the share
//!    divided by all who pin, get room all the same: pins of whoever has most end early, down to that one's fair part.
//! 3. A block that something else stands on, or that a lease holds, is neither freed nor counted as freed.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use crate::cache::PrefixCache;
use crate::key::{Account, BlockKey, Tenant};
use crate::retention::{Keep, Pin, Retention};
use crate::tree::{DiskCopy, DiskWindow, Pins};

/// What [`PrefixCache::pin`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pinned {
    /// Blocks that are pinned for at least so long now.
    pub blocks: u64,
    /// Blocks of the prefix for which the pins' share of the budget had no room.
    pub refused_blocks: u64,
}

/// What [`PrefixCache::free`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Freed {
    /// Blocks that are gone from every tier.
    pub freed_blocks: u64,
    /// Bytes they took in RAM.
    pub freed_ram_bytes: u64,
    /// Bytes they took on disk.
    pub freed_disk_bytes: u64,
    /// Blocks that others need as well.
    pub kept_blocks: u64,
}

/// What [`PrefixCache::move_to_disk`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Moved {
    /// Blocks that left RAM just now.
    pub moved_blocks: u64,
    /// RAM that they took.
    pub moved_bytes: u64,
    /// Blocks on their way to disk; ask again.
    pub waiting_blocks: u64,
    /// Blocks that stay in RAM because the disk takes none at the moment.
    pub stuck_blocks: u64,
}

/// Where the blocks of a prefix are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PrefixSize {
    /// Blocks in RAM.
    pub resident_blocks: u64,
    /// Their bytes.
    pub resident_bytes: u64,
    /// Blocks on disk, those that are in RAM too included.
    pub disk_blocks: u64,
    /// Their allocated bytes.
    pub disk_bytes: u64,
    /// Blocks that a pin keeps.
    pub pinned_blocks: u64,
}

impl PrefixCache {
    /// The blocks that hold the first tokens of `prompt`, in order, as far as they are known. The last may hold more than
    /// the prompt asks for. Not a use.
    pub fn blocks_of(&self, tenant: &Tenant, prompt: &[u32]) -> Vec<BlockKey> {
        let mut keys: Vec<BlockKey> = Vec::new();
        for wanted in prompt.chunks(self.options.block_tokens) {
            let Some(key) = self.tree.covering(keys.last(), tenant, wanted) else { break };
            keys.push(key);
        }
        keys
    }

    /// Pins the blocks that hold `prefix`, and the snapshot that a prompt with this beginning goes on from, for `time` from now, or leaves them pinned if they are for longer. Blocks beyond
    /// the share of the budget that pins may take, or beyond the tenant's fair part while others fill the rest, are not
    /// pinned, and counted.
    pub fn pin(&mut self, tenant: &Tenant, prefix: &[u32], time: Duration) -> Pinned {
        let keys = self.blocks_of(tenant, prefix);
        let retention = Retention { pin: Pin::For(time), ..Retention::default() };
        let until_us = Keep::at(&retention, self.clock.now_us()).pinned_until_us;
        let mut pinned = Pinned::default();
        for (at, key) in keys.iter().enumerate() {
            if !self.pin_until(key, until_us) {
                pinned.refused_blocks = (keys.len() - at) as u64;
                self.counters.refused_pins += pinned.refused_blocks;
                break;
            }
            pinned.blocks += 1;
        }
        self.pin_snapshot(tenant, prefix, until_us);
        pinned
    }

    /// Ends the pins of these blocks, those for ever excepted: they are the operator's.
    pub fn unpin(&mut self, keys: &[BlockKey]) {
        for key in keys {
            let Some(node) = self.tree.get(key) else { continue };
            if node.keep.pinned_until_us > 0 && node.keep.pinned_until_us < u64::MAX {
                self.tree.end_pin(key);
                self.note_use(key);
            }
        }
        self.unpin_snapshots(keys);
    }

    /// False when the share has no room.
    fn pin_until(&mut self, key: &BlockKey, until_us: u64) -> bool {
        let Some(node) = self.tree.get(key) else { return false };
        let (old, account) = (node.keep, node.tenant.account());
        let keep = old.pinned_until(until_us);
        let more_bytes = if node.is_retained() { 0 } else { node.bytes() };
        if !self.make_pin_room(&account, more_bytes) {
            return false;
        }
        if keep != old {
            self.tree.retain(key, keep);
            self.note_use(key);
        }
        true
    }

    /// Makes room in the share for `more_bytes` of an account. False when it has its fair part already; then no pin ends.
    fn make_pin_room(&mut self, account: &Account, more_bytes: u64) -> bool {
        let limit_bytes = self.pin_limit_bytes();
        let is_full = |pins: &Pins| pins.bytes() + more_bytes > limit_bytes;
        let pins = self.tree.pins();
        if !is_full(pins) {
            return true;
        }
        // A disk that takes nothing for a while lowers the limit; that is no reason to end what it holds.
        let degraded = self.disk.as_ref().is_some_and(|disk| disk.degraded.is_some());
        let fair_bytes = pins.fair_bytes(account, limit_bytes);
        if degraded || pins.bytes_of(account) + more_bytes > fair_bytes {
            return false;
        }
        // Together all have more than their fair parts, and this account has not: somebody else has.
        while is_full(self.tree.pins()) {
            let Some(key) = self.tree.pins().first_beyond(fair_bytes) else { return false };
            self.tree.end_pin(&key);
            self.note_use(&key);
            self.counters.yielded_pins += 1;
        }
        true
    }

    fn pin_limit_bytes(&self) -> u64 {
        let sound = self.disk.as_ref().filter(|disk| disk.degraded.is_none());
        let budget_bytes = sound.map_or(self.options.resident_bytes, |disk| disk.options.budget_bytes);
        (budget_bytes as f64 * self.pin_share) as u64
    }

    /// A longer block takes the place of a pinned one.
    pub(super) fn inherit_pin(&mut self, from: &BlockKey, to: &BlockKey) {
        let (Some(old), Some(new)) = (self.tree.get(from), self.tree.get(to)) else { return };
        if old.is_retained() {
            let keep = new.keep.pinned_until(old.keep.pinned_until_us);
            self.tree.retain(to, keep);
        }
    }

    /// Names these blocks as part of a living prefix: others of the same priority leave before them. Counts; give it back
    /// with [`unprefer`](Self::unprefer). Not kept over a restart.
    pub fn prefer(&mut self, keys: &[BlockKey]) {
        for key in keys {
            self.tree.prefer(key, true);
        }
    }

    /// Takes a [`prefer`](Self::prefer) back.
    pub fn unprefer(&mut self, keys: &[BlockKey]) {
        for key in keys {
            self.tree.prefer(key, false);
        }
    }

    /// Removes these blocks from every tier, files included, but for those in `shared`, those that something else stands
    /// on, and those that a lease or the operator's pin keeps. Other pins end.
    pub fn free(&mut self, keys: &[BlockKey], shared: &HashSet<BlockKey>) -> Freed {
        self.take_leases();
        self.take_reports();
        let mut freed = Freed::default();
        for key in self.deepest_first(keys) {
            let Some(node) = self.tree.get(&key) else { continue };
            let forever = node.keep.pinned_until_us == u64::MAX;
            if shared.contains(&key) || !node.is_leaf() || node.pins > 0 || forever {
                freed.kept_blocks += u64::from(node.tier().is_some());
                continue;
            }
            freed.freed_blocks += u64::from(node.tier().is_some());
            freed.freed_ram_bytes += node.resident.as_ref().map_or(0, |block| block.bytes());
            if let DiskCopy::Stored { bytes, .. } = node.disk {
                freed.freed_disk_bytes += bytes;
            }
            self.discard(&key);
            self.discard_snapshots_behind(&key);
        }
        freed
    }

    /// Takes these blocks out of RAM, once they are on disk: those that are not are queued, and waited for by asking again.
    pub fn move_to_disk(&mut self, keys: &[BlockKey]) -> Moved {
        self.take_leases();
        self.take_reports();
        let mut moved = Moved::default();
        for key in self.deepest_first(keys) {
            self.persist(&key);
            self.mend(&key);
            let Some(node) = self.tree.get(&key) else { continue };
            let Some(bytes) = node.resident.as_ref().map(|block| block.bytes()) else { continue };
            match node.disk {
                DiskCopy::Stored { window, .. } if window != DiskWindow::Dropped => {
                    self.tree.set_resident(&key, None);
                    moved.moved_blocks += 1;
                    moved.moved_bytes += bytes;
                }
                DiskCopy::Queued { .. } => moved.waiting_blocks += 1,
                DiskCopy::None | DiskCopy::Stored { .. } => moved.stuck_blocks += 1,
            }
            self.move_snapshots_to_disk(&key, &mut moved);
        }
        moved
    }

    /// Whether there is a disk tier at all.
    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// RAM budget in bytes.
    pub fn resident_budget_bytes(&self) -> u64 {
        self.options.resident_bytes
    }

    /// Where these blocks are.
    pub fn size_of(&self, keys: &[BlockKey]) -> PrefixSize {
        let mut size = PrefixSize::default();
        for node in keys.iter().filter_map(|key| self.tree.get(key)) {
            if let Some(block) = &node.resident {
                size.resident_blocks += 1;
                size.resident_bytes += block.bytes();
            }
            if let DiskCopy::Stored { bytes, .. } = node.disk {
                size.disk_blocks += 1;
                size.disk_bytes += bytes;
            }
            size.pinned_blocks += u64::from(node.is_retained());
        }
        size
    }

    /// Only what is known, each once, a chain's end before its beginning.
    fn deepest_first(&self, keys: &[BlockKey]) -> Vec<BlockKey> {
        let mut known: Vec<(usize, BlockKey)> =
            keys.iter().filter_map(|key| self.tree.get(key).map(|node| (node.start, *key))).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        known.dedup();
        known.into_iter().map(|(_, key)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::testing::{options, payload, serve};
    use crate::tuning::Tuning;

    const ALICE: Tenant = Tenant::from_bytes([1; 32]);
    const BOB: Tenant = Tenant::from_bytes([2; 32]);
    const MINUTE: Duration = Duration::from_mins(1);

    /// A cache with room for so many blocks, half of them for pins, and its clock in microseconds.
    fn cache(blocks: u64) -> (PrefixCache, Arc<AtomicU64>) {
        let one_block = payload(&[1, 2, 3, 4], 0).bytes() + 16;
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let reads = clock.clone();
        let tuning = Tuning { clock: Arc::new(move || reads.load(Ordering::Relaxed)), ..Tuning::default() };
        (PrefixCache::open_tuned(options(blocks * one_block), tuning).unwrap(), clock)
    }

    fn known(cache: &mut PrefixCache, prompt: &[u32]) -> usize {
        cache.lookup(&ALICE, prompt, prompt.len()).tokens
    }

    /// Prompts of a block each that nobody asked for before.
    fn pressure(cache: &mut PrefixCache, from: u32, blocks: u32) {
        for at in 0..blocks {
            serve(cache, &ALICE, &[from + at, 0, 0, 0]);
        }
    }

    #[test]
    fn a_pinned_prefix_outlives_pressure_until_its_time_is_over() {
        let (mut cache, clock) = cache(6);
        let (pinned, plain): (Vec<u32>, Vec<u32>) = ((0..8).collect(), (50..58).collect());
        serve(&mut cache, &ALICE, &pinned);
        serve(&mut cache, &ALICE, &plain);
        assert_eq!(cache.pin(&ALICE, &pinned, MINUTE), Pinned { blocks: 2, refused_blocks: 0 });
        pressure(&mut cache, 100, 20);
        assert_eq!((known(&mut cache, &pinned), known(&mut cache, &plain)), (8, 0));
        // Past the pin, and long enough past the last use for it to count no more.
        clock.fetch_add(3_600_000_000, Ordering::Relaxed);
        cache.poll();
        pressure(&mut cache, 200, 20);
        assert_eq!((known(&mut cache, &pinned), cache.stats().retained_blocks), (0, 0));
        assert_eq!(cache.stats().retained_bytes, 0);
    }

    #[test]
    fn nobody_can_pin_the_cache_full() {
        let (mut cache, _) = cache(6);
        let prompt: Vec<u32> = (0..20).collect();
        serve(&mut cache, &ALICE, &prompt);
        assert_eq!(cache.pin(&ALICE, &prompt, MINUTE), Pinned { blocks: 3, refused_blocks: 2 });
        // A second time nothing is added, and what is pinned stays so.
        assert_eq!(cache.pin(&ALICE, &prompt, MINUTE), Pinned { blocks: 3, refused_blocks: 2 });
        assert_eq!((cache.stats().retained_blocks, cache.stats().refused_pins), (3, 4));
        pressure(&mut cache, 100, 20);
        assert_eq!(known(&mut cache, &prompt), 12);
    }

    /// Distinct prompts of a block each, computed and pinned for `time`, one after the other.
    fn pin_blocks(cache: &mut PrefixCache, tenant: &Tenant, from: u32, blocks: u32, time: Duration) {
        for at in from..from + blocks {
            serve(cache, tenant, &[at, 0, 0, 0]);
            cache.pin(tenant, &[at, 0, 0, 0], time);
        }
        cache.assert_invariants();
    }

    fn pinned_blocks(cache: &PrefixCache, tenant: &Tenant, prompts: std::ops::Range<u32>) -> u64 {
        prompts.map(|at| cache.size_of(&cache.blocks_of(tenant, &[at, 0, 0, 0])).pinned_blocks).sum()
    }

    #[test]
    fn pins_beyond_a_fair_part_give_way_to_another_tenant_s_up_to_its_own() {
        let (mut cache, _) = cache(24);
        pin_blocks(&mut cache, &ALICE, 0, 20, MINUTE);
        assert_eq!(pinned_blocks(&cache, &ALICE, 0..20), 12, "alone it may have all of the share");
        pin_blocks(&mut cache, &BOB, 0, 20, MINUTE);
        assert_eq!([pinned_blocks(&cache, &ALICE, 0..20), pinned_blocks(&cache, &BOB, 0..20)], [6, 6]);
        // Nobody takes back what the other has by right.
        pin_blocks(&mut cache, &ALICE, 0, 20, MINUTE);
        pin_blocks(&mut cache, &BOB, 0, 20, MINUTE);
        assert_eq!([pinned_blocks(&cache, &ALICE, 0..20), pinned_blocks(&cache, &BOB, 0..20)], [6, 6]);
        assert_eq!(cache.stats().yielded_pins, 6);
        pin_blocks(&mut cache, &Tenant::from_bytes([3; 32]), 0, 20, MINUTE);
        assert_eq!([pinned_blocks(&cache, &ALICE, 0..20), pinned_blocks(&cache, &BOB, 0..20)], [4, 4]);
        assert_eq!(cache.stats().retained_blocks, 12);
    }

    #[test]
    fn whoever_asks_for_little_takes_no_more_than_that_and_the_first_to_end_give_way() {
        let (mut cache, clock) = cache(24);
        pin_blocks(&mut cache, &ALICE, 0, 6, 10 * MINUTE);
        clock.fetch_add(1, Ordering::Relaxed);
        pin_blocks(&mut cache, &ALICE, 6, 6, MINUTE);
        pin_blocks(&mut cache, &BOB, 0, 2, MINUTE);
        assert_eq!(pinned_blocks(&cache, &BOB, 0..2), 2);
        assert_eq!([pinned_blocks(&cache, &ALICE, 0..6), pinned_blocks(&cache, &ALICE, 6..12)], [6, 4]);
        // A chain gives way from its end.
        let (mut cache, _) = self::cache(24);
        let prompt: Vec<u32> = (0..48).collect();
        serve(&mut cache, &ALICE, &prompt);
        cache.pin(&ALICE, &prompt, MINUTE);
        pin_blocks(&mut cache, &BOB, 100, 1, MINUTE);
        let keys = cache.blocks_of(&ALICE, &prompt);
        assert_eq!(cache.size_of(&keys[..11]).pinned_blocks, 11);
    }

    #[test]
    fn the_parts_of_a_tenant_have_one_part_of_the_share() {
        let (mut cache, _) = cache(24);
        for salt in 0..4_u8 {
            pin_blocks(&mut cache, &ALICE.part(&[salt]), 0, 3, MINUTE);
        }
        pin_blocks(&mut cache, &BOB, 0, 20, MINUTE);
        pin_blocks(&mut cache, &ALICE.part(b"one more"), 0, 20, MINUTE);
        assert_eq!((pinned_blocks(&cache, &BOB, 0..20), cache.stats().retained_blocks), (6, 12));
    }

    #[test]
    fn what_the_operator_pins_gives_way_to_nobody_and_is_nobody_s_part() {
        let (mut cache, _) = cache(24);
        pin_blocks(&mut cache, &ALICE, 0, 12, MINUTE);
        let keep = Keep::at(&Retention { pin: Pin::Forever, ..Retention::default() }, 0);
        for at in 0..8 {
            for key in cache.blocks_of(&ALICE, &[at, 0, 0, 0]) {
                cache.keep(&key, keep);
            }
        }
        pin_blocks(&mut cache, &BOB, 0, 12, MINUTE);
        assert_eq!([pinned_blocks(&cache, &ALICE, 0..8), pinned_blocks(&cache, &ALICE, 8..12)], [8, 2]);
        assert_eq!(pinned_blocks(&cache, &BOB, 0..12), 2);
    }

    #[test]
    fn a_pin_moves_to_the_longer_block_that_takes_a_tails_place() {
        let (mut cache, _) = cache(6);
        serve(&mut cache, &ALICE, &[1, 2, 3, 4, 5]);
        cache.pin(&ALICE, &[1, 2, 3, 4, 5], MINUTE);
        serve(&mut cache, &ALICE, &[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cache.stats().retained_blocks, 2);
        pressure(&mut cache, 100, 20);
        assert_eq!(known(&mut cache, &[1, 2, 3, 4, 5, 6, 7]), 7);
    }

    #[test]
    fn a_living_prefix_stays_longer_than_others_and_no_longer_than_it_lives() {
        let (mut cache, clock) = cache(6);
        let (living, other): (Vec<u32>, Vec<u32>) = ((0..8).collect(), (50..58).collect());
        serve(&mut cache, &ALICE, &living);
        serve(&mut cache, &ALICE, &other);
        let keys = cache.blocks_of(&ALICE, &living);
        cache.prefer(&keys);
        pressure(&mut cache, 100, 20);
        assert_eq!((known(&mut cache, &living), known(&mut cache, &other)), (8, 0));
        cache.unprefer(&keys);
        clock.fetch_add(3_600_000_000, Ordering::Relaxed);
        pressure(&mut cache, 200, 20);
        assert_eq!(known(&mut cache, &living), 0);
    }

    #[test]
    fn freeing_leaves_what_others_stand_on_or_name() {
        let (mut cache, _) = cache(20);
        let shared: Vec<u32> = (0..4).collect();
        let [mine, theirs, named] =
            [20_u32, 30, 40].map(|from| [shared.clone(), (from..from + 6).collect::<Vec<u32>>()].concat());
        for prompt in [&mine, &theirs, &named] {
            serve(&mut cache, &ALICE, prompt);
        }
        let keys = cache.blocks_of(&ALICE, &mine);
        assert_eq!(keys.len(), 3);
        cache.pin(&ALICE, &mine, MINUTE);
        let freed = cache.free(&keys, &HashSet::new());
        assert_eq!((freed.freed_blocks, freed.kept_blocks), (2, 1));
        assert_eq!((known(&mut cache, &mine), known(&mut cache, &theirs)), (4, 10));
        let keys = cache.blocks_of(&ALICE, &named);
        let freed = cache.free(&keys, &keys[..2].iter().copied().collect());
        assert_eq!((freed.freed_blocks, freed.kept_blocks), (1, 2));
        assert_eq!(known(&mut cache, &named), 8);
    }
}
