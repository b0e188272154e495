//! What owners do with whole prefixes: pinning, preferring, freeing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::key::Tenant;
use crate::retention::{Keep, Pin, Retention};
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
