//! The facade over the resident tier.

use super::*;
use crate::key::Tenant;
use crate::lookup::{Miss, Tier};
use crate::testing::{assert_sound, options, payload, restore, run, serve};

const ALICE: Tenant = Tenant::from_bytes([1; 32]);
const BOB: Tenant = Tenant::from_bytes([2; 32]);

impl PrefixCache {
    /// Compares everything that is kept about blocks with what the blocks say.
    pub(crate) fn assert_invariants(&self) {
        self.tree.assert_invariants();
    }
}

fn cache() -> PrefixCache {
    PrefixCache::open(options(1 << 20)).unwrap()
}

fn known(cache: &mut PrefixCache, prompt: &[u32]) -> usize {
    cache.lookup(&ALICE, prompt, prompt.len()).tokens
}

#[test]
fn a_prompt_is_found_again_to_the_token() {
    let mut cache = cache();
    let prompt: Vec<u32> = (0..11).collect();
    assert_eq!(serve(&mut cache, &ALICE, &prompt).tokens, 0);
    let lookup = cache.lookup(&ALICE, &prompt, prompt.len() - 1);
    assert_eq!((lookup.tokens, lookup.miss), (10, Miss::Nothing));
    assert_eq!(lookup.hits.iter().map(|hit| hit.used_tokens).collect::<Vec<_>>(), [4, 4, 2]);
    let restored = restore(&mut cache, &lookup, 0);
    assert_eq!((restored.tokens, restored.failure), (10, None));
    for brought in &restored.blocks {
        assert_eq!(brought.tier, Tier::Resident);
        assert_sound(&brought.block, &prompt, brought.used_tokens, true);
    }
}

#[test]
fn a_prompt_that_parts_inside_a_block_uses_the_start_of_it() {
    let mut cache = cache();
    serve(&mut cache, &ALICE, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let lookup = cache.lookup(&ALICE, &[1, 2, 3, 4, 5, 6, 9, 9, 9], 9);
    assert_eq!((lookup.tokens, lookup.miss), (6, Miss::Diverged { at: 6 }));
    let lookup = cache.lookup(&ALICE, &[1, 2, 3, 4, 9], 5);
    assert_eq!((lookup.tokens, lookup.miss), (4, Miss::Diverged { at: 4 }));
    assert_eq!(cache.lookup(&ALICE, &[9, 2, 3], 3).miss, Miss::Absent);
}

#[test]
fn of_several_siblings_the_one_that_shares_most_is_used() {
    let mut cache = cache();
    for prompt in [[1, 2, 3, 4], [1, 2, 5, 0], [1, 2, 5, 9], [1, 9, 9, 9]] {
        serve(&mut cache, &ALICE, &prompt);
    }
    assert_eq!(known(&mut cache, &[1, 2, 5, 7]), 3);
    assert_eq!(known(&mut cache, &[1, 2, 3, 7]), 3);
    assert_eq!(known(&mut cache, &[1, 9, 0, 0]), 2);
    assert_eq!(known(&mut cache, &[1, 0, 0, 0]), 1);
    assert_eq!(known(&mut cache, &[0, 2, 5, 9]), 0);
}

#[test]
fn a_longer_block_takes_the_place_of_a_tail() {
    let mut cache = cache();
    serve(&mut cache, &ALICE, &[1, 2]);
    serve(&mut cache, &ALICE, &[1, 2, 3]);
    assert_eq!(cache.stats().resident.blocks, 1);
    serve(&mut cache, &ALICE, &[1, 2, 3, 4]);
    assert_eq!(cache.stats().resident.blocks, 1);
    // And a shorter tail is not taken in beside it.
    let lookup = cache.lookup(&ALICE, &[], 0);
    let mut lease = cache.lease(&ALICE, &lookup);
    assert!(cache.advance(&mut lease, &[1, 2, 3]));
    let block = cache.insert(&mut lease, &[1, 2, 3], payload(&[1, 2, 3], 0));
    assert_eq!((block.tokens.len(), lease.tokens()), (3, 0));
    drop(lease);
    cache.evict_resident();
    assert_eq!(cache.stats().resident.blocks, 1);
}

#[test]
fn two_sequences_that_compute_the_same_block_share_one() {
    let mut cache = cache();
    let prompt = [1, 2, 3, 4, 5];
    let (a, b) = (cache.lookup(&ALICE, &prompt, 4), cache.lookup(&ALICE, &prompt, 4));
    let (mut a, mut b) = (cache.lease(&ALICE, &a), cache.lease(&ALICE, &b));
    let first = cache.insert(&mut a, &prompt[..4], payload(&prompt[..4], 0));
    let second = cache.insert(&mut b, &prompt[..4], payload(&prompt[..4], 0));
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!((a.tokens(), b.tokens(), a.end()), (4, 4, b.end()));
    drop(a);
    cache.evict_resident();
    assert_eq!(cache.stats().pinned_blocks, 1);
    drop(b);
    cache.evict_resident();
    assert_eq!(cache.stats().pinned_blocks, 0);
}

#[test]
fn tenants_share_nothing() {
    let mut cache = cache();
    let prompt: Vec<u32> = (0..9).collect();
    serve(&mut cache, &ALICE, &prompt);
    let lookup = cache.lookup(&BOB, &prompt, 9);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::Absent));
    let alices = cache.lookup(&ALICE, &prompt, 9);
    assert_eq!(cache.lease(&BOB, &alices).tokens(), 0);
}

#[test]
fn chains_are_evicted_from_their_end_and_the_oldest_first() {
    let one_block = crate::testing::payload(&[1, 2, 3, 4], 0).bytes() + 16;
    let mut cache = PrefixCache::open(options(4 * one_block)).unwrap();
    let old: Vec<u32> = (0..12).collect();
    let new: Vec<u32> = (100..108).collect();
    serve(&mut cache, &ALICE, &old);
    serve(&mut cache, &ALICE, &new);
    let stats = cache.stats();
    assert_eq!((stats.resident.blocks, stats.evicted_blocks), (4, 1));
    let lookup = cache.lookup(&ALICE, &old, 12);
    assert_eq!((lookup.tokens, lookup.miss), (8, Miss::Evicted { at: 8 }));
    assert_eq!(known(&mut cache, &new), 8);
}

#[test]
fn a_leased_chain_outlives_pressure_and_goes_when_the_lease_is_dropped() {
    let mut cache = PrefixCache::open(options(0)).unwrap();
    let prompt: Vec<u32> = (0..8).collect();
    let (_, lease) = run(&mut cache, &ALICE, &prompt);
    serve(&mut cache, &ALICE, &[50, 51, 52, 53]);
    cache.poll();
    assert_eq!(known(&mut cache, &prompt), 8);
    drop(lease);
    assert_eq!(known(&mut cache, &prompt), 0);
    assert_eq!((cache.stats().resident.bytes, cache.stats().pinned_blocks), (0, 0));
}

#[test]
fn clearing_under_a_lease_leaves_a_chain_that_can_be_filled_again() {
    let mut cache = cache();
    let prompt: Vec<u32> = (0..12).collect();
    let (_, mut lease) = run(&mut cache, &ALICE, &prompt[..8]);
    cache.clear();
    assert_eq!((known(&mut cache, &prompt), cache.stats().resident.blocks), (0, 0));
    cache.insert(&mut lease, &prompt[8..], payload(&prompt, 8));
    assert_eq!(known(&mut cache, &prompt), 0);
    serve(&mut cache, &ALICE, &prompt[..8]);
    assert_eq!(known(&mut cache, &prompt), 12);
    drop(lease);
}

#[test]
fn a_cache_of_blocks_without_tokens_is_refused() {
    let mut refused = options(0);
    refused.block_tokens = 0;
    let error = PrefixCache::open(refused).err().unwrap();
    assert_eq!(error.to_string(), "block_tokens is 0, expected at least 1");
}

#[test]
fn the_cache_may_move_to_the_thread_that_owns_it() {
    fn moves<T: Send>(_: &T) {}
    moves(&cache());
}
