//! Pins, priorities, lifetimes and the daily write budget, on a clock that the test moves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{ALICE, BOB, block_files, check, flush, prompt};
use crate::disk::testing::disk_options;
use crate::testing::{memory_dir, payload, run, serve, settled_bytes};
use crate::{CacheOptions, Miss, Pin, Pinned, PrefixCache, Retention, Tenant, Tuning};

const HOUR: Duration = Duration::from_hours(1);

/// A clock that stands still unless it is moved.
#[derive(Clone)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000_000_000)))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn tuning(&self) -> Tuning {
        let time = Arc::clone(&self.0);
        Tuning { clock: Arc::new(move || time.load(Ordering::Relaxed)), ..Tuning::default() }
    }
}

fn serve_kept(cache: &mut PrefixCache, prompt: &[u32], retention: &Retention) {
    let (_, mut lease) = run(cache, &ALICE, prompt);
    cache.retain(&mut lease, retention);
    drop(lease);
    cache.evict_resident();
}

/// Options with room for so many blocks of 4 tokens on disk and none in RAM.
fn room_for(dir: &Path, blocks: u64) -> CacheOptions {
    let mut options = disk_options(dir);
    options.resident_bytes = 0;
    let fixed_bytes = settled_bytes(&options);
    // The index grows while it is written.
    options.disk.as_mut().unwrap().budget_bytes = fixed_bytes + blocks * 8_192 + 65_536;
    options
}

#[test]
fn after_a_restart_the_pins_of_a_tenant_s_parts_are_still_its_own() {
    let dir = memory_dir();
    let options = disk_options(dir.path());
    let pin_all = |cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]| {
        serve(cache, tenant, prompt);
        cache.pin(tenant, prompt, HOUR)
    };
    let mut cache = PrefixCache::open(options.clone()).unwrap();
    for salt in 0..4_u8 {
        assert_eq!(pin_all(&mut cache, &ALICE.part(&[salt]), &prompt(1, 12)).blocks, 3);
    }
    flush(&mut cache);
    drop(cache);
    let cache = PrefixCache::open(options.clone()).unwrap();
    let budget_bytes = options.disk.as_ref().unwrap().budget_bytes;
    let pin_share = cache.stats().retained_bytes as f64 / budget_bytes as f64;
    assert_eq!(cache.stats().retained_blocks, 12);
    drop(cache);
    let tuning = Tuning { pin_share, ..Tuning::default() };
    let mut cache = PrefixCache::open_tuned(options, tuning).unwrap();
    // The share is full of pins that are one tenant's, under whatever salt.
    assert_eq!(pin_all(&mut cache, &BOB, &prompt(2, 12)), Pinned { blocks: 3, refused_blocks: 0 });
    let left = cache.stats().retained_blocks;
    assert!((12..15).contains(&left) && cache.stats().yielded_pins == 15 - left, "{:?}", cache.stats());
    // New blocks count less than those that are rounded up to the file system's: what gave way leaves some room.
    let refused = pin_all(&mut cache, &ALICE.part(b"another salt"), &prompt(7, 400)).refused_blocks;
    assert!(refused > 0 && cache.stats().yielded_pins == 15 - left, "{refused}: {:?}", cache.stats());
}

#[test]
fn a_pinned_prefix_outlives_pressure_and_a_restart_and_goes_when_its_time_is_over() {
    for ram_only in [true, false] {
        let (dir, time) = (memory_dir(), Time::new());
        let mut options = room_for(dir.path(), 8);
        if ram_only {
            options = CacheOptions { disk: None, resident_bytes: 4 * 272, ..options };
        }
        let mut cache = PrefixCache::open_tuned(options.clone(), time.tuning()).unwrap();
        let pinned = Retention { pin: Pin::For(HOUR), ..Retention::default() };
        serve_kept(&mut cache, &prompt(1, 8), &pinned);
        flush(&mut cache);
        let crowd = |cache: &mut PrefixCache| {
            for seed in 10..60 {
                time.pass(Duration::from_secs(1));
                serve(cache, &ALICE, &prompt(seed, 8));
                flush(cache);
                cache.poll();
            }
        };
        crowd(&mut cache);
        assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8, "RAM only: {ram_only}");
        let stats = cache.stats();
        let last_tier = stats.disk.as_ref().map_or(stats.resident, |disk| disk.tier);
        assert!(stats.evicted_blocks > 50 && last_tier.evicted_blocks >= stats.evicted_blocks, "{stats:?}");
        if !ram_only {
            drop(cache);
            cache = PrefixCache::open_tuned(options, time.tuning()).unwrap();
            crowd(&mut cache);
            assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
        }
        assert_eq!(cache.stats().retained_blocks, 2);
        time.pass(HOUR);
        crowd(&mut cache);
        assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 0);
        assert_eq!(cache.stats().retained_blocks, 0);
    }
}

#[test]
fn of_two_blocks_the_one_of_lower_priority_leaves_however_it_was_used() {
    let (dir, time) = (memory_dir(), Time::new());
    let mut cache = PrefixCache::open_tuned(room_for(dir.path(), 8), time.tuning()).unwrap();
    serve_kept(&mut cache, &prompt(1, 8), &Retention { priority: 90, ..Retention::default() });
    for seed in 10..40 {
        time.pass(HOUR);
        serve(&mut cache, &ALICE, &prompt(seed, 8));
        flush(&mut cache);
        cache.poll();
    }
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
    serve_kept(&mut cache, &prompt(1, 8), &Retention { priority: 0, ..Retention::default() });
    for seed in 40..44 {
        serve(&mut cache, &ALICE, &prompt(seed, 8));
        flush(&mut cache);
        cache.poll();
    }
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 0);
}

#[test]
fn a_lifetime_counts_from_the_last_use_and_ends_with_a_reason() {
    let (dir, time) = (memory_dir(), Time::new());
    let tuning = || Tuning { idle_ttl: Some(HOUR), ..time.tuning() };
    let mut cache = PrefixCache::open_tuned(disk_options(dir.path()), tuning()).unwrap();
    let minutes = |minutes| Retention { ttl: Some(Duration::from_mins(minutes)), ..Retention::default() };
    serve_kept(&mut cache, &prompt(1, 8), &minutes(5));
    serve_kept(&mut cache, &prompt(2, 8), &minutes(600));
    serve(&mut cache, &ALICE, &prompt(3, 8));
    flush(&mut cache);
    for _ in 0..3 {
        time.pass(Duration::from_mins(4));
        cache.poll();
        assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
    }
    time.pass(Duration::from_mins(5));
    cache.poll();
    let lookup = cache.lookup(&ALICE, &prompt(1, 8), 8);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::Expired { at: 0 }));
    drop(cache);
    // A lifetime goes on over a restart.
    time.pass(HOUR);
    let mut cache = PrefixCache::open_tuned(disk_options(dir.path()), tuning()).unwrap();
    assert_eq!(check(&mut cache, &ALICE, &prompt(3, 8)), 0);
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 8)), 8);
    flush(&mut cache);
    assert_eq!((block_files(dir.path()).len(), cache.stats().expired_blocks), (2, 2));
}

#[test]
fn what_stands_on_a_block_or_holds_it_keeps_it_alive() {
    let time = Time::new();
    let options = CacheOptions { disk: None, ..disk_options(Path::new("unused")) };
    let mut cache =
        PrefixCache::open_tuned(options, Tuning { idle_ttl: Some(HOUR), ..time.tuning() }).unwrap();
    let (_, mut lease) = run(&mut cache, &ALICE, &prompt(1, 4));
    for step in 1..4 {
        time.pass(Duration::from_mins(50));
        let end = 4 + 4 * step;
        cache.insert(&mut lease, &prompt(1, end)[end - 4..], payload(&prompt(1, end), end - 4));
        cache.poll();
    }
    assert_eq!(cache.lookup(&ALICE, &prompt(1, 16), 16).tokens, 16);
    time.pass(2 * HOUR);
    cache.poll();
    assert_eq!(cache.lookup(&ALICE, &prompt(1, 16), 16).tokens, 16, "the lease holds it");
    drop(lease);
    cache.evict_resident();
    time.pass(2 * HOUR);
    cache.poll();
    assert_eq!(cache.lookup(&ALICE, &prompt(1, 16), 16).tokens, 0);
}

#[test]
fn over_the_daily_write_budget_blocks_stay_in_ram_until_tomorrow_and_a_restart_does_not_help() {
    let (dir, time) = (memory_dir(), Time::new());
    let block_bytes = payload(&prompt(1, 4), 0).bytes() + 16;
    let tuning = || Tuning { daily_write_bytes: Some(3 * block_bytes), ..time.tuning() };
    let open = || PrefixCache::open_tuned(disk_options(dir.path()), tuning()).unwrap();
    let mut cache = open();
    serve(&mut cache, &ALICE, &prompt(1, 8));
    flush(&mut cache);
    drop(cache);
    let mut cache = open();
    serve(&mut cache, &ALICE, &prompt(2, 8));
    flush(&mut cache);
    let writes = cache.stats().disk.unwrap().writes;
    assert_eq!((writes.written_blocks, writes.over_daily_blocks), (1, 1));
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 8)), 8);
    time.pass(24 * HOUR);
    serve(&mut cache, &ALICE, &prompt(2, 8));
    flush(&mut cache);
    drop(cache);
    assert_eq!(block_files(dir.path()).len(), 4);
}

#[test]
fn a_tenants_numbers_are_its_own() {
    let mut cache =
        PrefixCache::open(CacheOptions { disk: None, ..disk_options(Path::new("unused")) }).unwrap();
    serve(&mut cache, &BOB, &prompt(1, 8));
    let before = cache.tenant_stats(&BOB);
    for seed in 0..9 {
        serve(&mut cache, &ALICE, &prompt(seed, 8));
    }
    assert_eq!(cache.tenant_stats(&BOB), before);
    assert_eq!((before.lookups, before.asked_tokens, before.misses.absent), (1, 7, 1));
    assert_eq!(cache.stats().lookups, 10);
}
