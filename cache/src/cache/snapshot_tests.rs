//! Snapshots in a cache: what a lookup of a recurrent model finds, against a list of all that were ever taken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::disk::testing::disk_options;
use crate::key::Tenant;
use crate::lookup::{Lookup, Miss, Tier};
use crate::snapshot::SnapshotKind::{self, Anchor, End, Junction, Message};
use crate::stats::FlushOutcome;
use crate::testing::{
    BLOCK_TOKENS, assert_sound, cases, memory_dir, options, restore, run_with_state, settled_bytes, state,
};
use crate::tuning::Tuning;

const ALICE: Tenant = Tenant::from_bytes([1; 32]);
const BOB: Tenant = Tenant::from_bytes([2; 32]);
const WINDOW_TOKENS: usize = 5;

/// A cache of a recurrent model, and its clock in microseconds.
fn open(options: CacheOptions) -> (PrefixCache, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_000_000_000));
    (open_at(options, &clock), clock)
}

fn open_at(options: CacheOptions, clock: &Arc<AtomicU64>) -> PrefixCache {
    let reads = Arc::clone(clock);
    let tuning = Tuning {
        needs_snapshots: true,
        window_tokens: Some(WINDOW_TOKENS),
        clock: Arc::new(move || reads.load(Ordering::Relaxed)),
        ..Tuning::default()
    };
    PrefixCache::open_tuned(options, tuning).unwrap()
}

/// A sequence that takes snapshots, and ends.
fn serve(
    cache: &mut PrefixCache,
    tenant: &Tenant,
    prompt: &[u32],
    points: &[(usize, SnapshotKind)],
) -> Lookup {
    let (lookup, lease) = run_with_state(cache, tenant, prompt, points);
    drop(lease);
    cache.evict_resident();
    lookup
}

fn known(cache: &mut PrefixCache, prompt: &[u32]) -> usize {
    cache.lookup(&ALICE, prompt, prompt.len()).tokens
}

/// Restores what a lookup found, and holds it against what computing gives.
fn check(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]) -> usize {
    let lookup = cache.lookup(tenant, prompt, prompt.len());
    let window_from = (lookup.tokens + 1).saturating_sub(WINDOW_TOKENS);
    let restored = restore(cache, &lookup, window_from);
    assert_eq!((restored.tokens, &restored.failure), (lookup.tokens, &None));
    assert_eq!(restored.tokens, restored.blocks.iter().map(|brought| brought.used_tokens).sum::<usize>());
    for brought in &restored.blocks {
        assert_sound(&brought.block, prompt, brought.used_tokens, brought.has_window);
        assert!(brought.has_window || brought.block.end() <= window_from);
    }
    let found = restored.snapshot.map(|block| block.payload.clone());
    assert_eq!(found, (lookup.tokens > 0).then(|| state(&prompt[..lookup.tokens])));
    lookup.tokens
}

fn flush(cache: &mut PrefixCache) -> FlushOutcome {
    cache.flush(Instant::now() + Duration::from_secs(20))
}

#[test]
fn a_lookup_ends_at_the_deepest_snapshot_and_says_what_is_lost() {
    let (mut cache, _) = open(options(1 << 20));
    let prompt: Vec<u32> = (0..19).collect();
    serve(&mut cache, &ALICE, &prompt, &[]);
    let lookup = cache.lookup(&ALICE, &prompt, 19);
    assert_eq!((lookup.tokens, lookup.no_state_tokens), (0, 19));
    assert_eq!((lookup.miss, lookup.hits.len()), (Miss::NoState { at: 0 }, 0));
    for (points, limit, tokens) in [
        (&[(3, End)][..], 19, 3),
        (&[(6, End), (8, Message)], 19, 8),
        (&[], 7, 6),
        (&[], 5, 3),
        (&[(17, End)], 19, 17),
        (&[], 16, 8),
    ] {
        serve(&mut cache, &ALICE, &prompt, points);
        let lookup = cache.lookup(&ALICE, &prompt, limit);
        assert_eq!((lookup.tokens, lookup.no_state_tokens), (tokens, limit - tokens), "{points:?}");
        assert_eq!(lookup.hits.iter().map(|hit| hit.used_tokens).sum::<usize>(), tokens);
        assert_eq!(check(&mut cache, &ALICE, &prompt[..limit]), tokens);
    }
    // A prompt that parts from this one finds what lies before.
    let other = [&prompt[..10], &[99, 98, 97]].concat();
    let lookup = cache.lookup(&ALICE, &other, 13);
    assert_eq!((lookup.tokens, lookup.no_state_tokens, lookup.miss), (8, 2, Miss::Diverged { at: 10 }));
    assert_eq!(cache.lookup(&BOB, &prompt, 19).tokens, 0, "they are a tenant's own");
    let stats = cache.stats();
    assert!(stats.snapshots.no_state_tokens > 19 && stats.misses.no_state > 0, "{stats:?}");
    cache.clear();
    assert_eq!((known(&mut cache, &prompt), cache.stats().snapshots.resident), (0, 0));
}

#[test]
fn without_need_of_them_nothing_changes() {
    let mut cache = PrefixCache::open(options(1 << 20)).unwrap();
    let prompt: Vec<u32> = (0..11).collect();
    let lease = run_with_state(&mut cache, &ALICE, &prompt, &[]).1;
    drop(lease);
    let lookup = cache.lookup(&ALICE, &prompt, 11);
    assert_eq!((lookup.tokens, lookup.snapshot, lookup.no_state_tokens), (11, None, 0));
}

#[test]
fn a_snapshot_stays_where_it_is_when_blocks_part_or_tails_grow() {
    let (mut cache, _) = open(options(1 << 20));
    let trunk: Vec<u32> = (0..14).collect();
    serve(&mut cache, &ALICE, &trunk, &[(14, End)]);
    // The tail gives way to a longer one, to a whole block, and prompts part inside and before it.
    for (at, more) in
        [(14, vec![14]), (14, (14..30).collect::<Vec<u32>>()), (13, vec![50, 51, 52]), (9, vec![60; 9])]
    {
        serve(&mut cache, &ALICE, &[&trunk[..at], &more].concat(), &[]);
        assert_eq!(check(&mut cache, &ALICE, &[&trunk[..], &[70, 71]].concat()), 14);
    }
}

#[test]
fn snapshots_have_a_share_of_the_budget_and_the_least_needed_leave_first() {
    let one = state(&[1]).bytes();
    // Room for blocks enough; half of it for snapshots, 20 of them.
    let (mut cache, _) = open(options(40 * (one + 4)));
    let anchor: Vec<u32> = (0..3).collect();
    serve(&mut cache, &ALICE, &anchor, &[(3, Anchor)]);
    for turn in 4..100 {
        let prompt: Vec<u32> = anchor.iter().copied().chain((4..turn).map(|at| 1_000 + at)).collect();
        serve(&mut cache, &ALICE, &prompt, &[(prompt.len(), End)]);
        let stats = cache.stats();
        assert!(stats.snapshots.resident_bytes <= stats.snapshots.resident_budget_bytes, "{stats:?}");
        assert!(stats.resident.bytes + stats.snapshots.resident_bytes <= stats.resident.budget_bytes);
    }
    assert!(cache.stats().snapshots.evicted > 50);
    let other = [&anchor[..], &[7, 7, 7]].concat();
    assert_eq!(check(&mut cache, &ALICE, &other), 3, "what every turn begins with is used by every turn");
}

#[test]
fn what_is_pinned_leaves_last_and_nobody_pins_all_of_the_share() {
    let one = state(&[1]).bytes() + 16;
    let (mut cache, clock) = open(options(40 * one));
    let prompts: Vec<Vec<u32>> = (0..16).map(|seed| (seed * 100..seed * 100 + 3).collect()).collect();
    for prompt in &prompts {
        serve(&mut cache, &ALICE, prompt, &[(3, End)]);
        cache.pin(&ALICE, prompt, Duration::from_mins(1));
    }
    assert!(cache.stats().refused_pins > 0);
    serve(&mut cache, &BOB, &[1, 2, 3], &[(3, End)]);
    cache.pin(&BOB, &[1, 2, 3], Duration::from_mins(1));
    assert!(cache.stats().yielded_pins > 0, "another key has its fair part");
    for seed in 100..160 {
        serve(&mut cache, &ALICE, &[seed, 0, 0, 0], &[(3, End)]);
    }
    let kept = |cache: &PrefixCache| cache.snapshots.iter().filter(|(_, record)| record.is_pinned()).count();
    assert!((4..12).contains(&kept(&cache)), "{}", kept(&cache));
    clock.fetch_add(61_000_000, Ordering::Relaxed);
    cache.poll();
    assert_eq!(kept(&cache), 0);
}

#[test]
fn a_conversation_s_snapshots_go_to_disk_when_it_pauses_and_older_ones_never() {
    let dir = memory_dir();
    let (mut cache, clock) = open(disk_options(dir.path()));
    let prompt: Vec<u32> = (0..40).collect();
    let on_disk = |cache: &PrefixCache| cache.stats().snapshots.on_disk;
    serve(&mut cache, &ALICE, &prompt[..9], &[(3, Anchor), (8, Message), (9, End)]);
    let written = |cache: &mut PrefixCache| {
        cache.poll();
        // Waits for what is queued, and queues nothing.
        assert!(cache.wait(Instant::now() + Duration::from_secs(20)));
        cache.stats().snapshots.on_disk
    };
    assert_eq!(written(&mut cache), 1, "what others begin with as well");
    for end in [15, 22, 31] {
        clock.fetch_add(4_000_000, Ordering::Relaxed);
        serve(&mut cache, &ALICE, &prompt[..end], &[(end - 1, Message), (end, End)]);
        assert_eq!(written(&mut cache), 1, "it goes on");
    }
    assert_eq!(cache.stats().snapshots.waiting, 2);
    clock.fetch_add(4_000_000, Ordering::Relaxed);
    let (_, lease) = run_with_state(&mut cache, &ALICE, &prompt[..31], &[]);
    clock.fetch_add(9_000_000, Ordering::Relaxed);
    assert_eq!(written(&mut cache), 1, "a sequence is at it");
    drop(lease);
    clock.fetch_add(6_000_000, Ordering::Relaxed);
    assert_eq!(written(&mut cache), 3);
    assert_eq!(cache.stats().snapshots.waiting, 0);
    assert_eq!((known(&mut cache, &prompt[..15]), on_disk(&cache)), (15, 3), "older ones are in RAM");
    drop(cache);
    let mut cache = open_at(disk_options(dir.path()), &clock);
    assert_eq!(check(&mut cache, &ALICE, &prompt[..31]), 31);
    assert_eq!(check(&mut cache, &ALICE, &prompt[..30]), 30);
    // The lookup of fifteen tokens above made that one wanted again.
    assert_eq!(check(&mut cache, &ALICE, &prompt[..22]), 15);
    assert_eq!(check(&mut cache, &ALICE, &prompt[..14]), 3);
    let lookup = cache.lookup(&ALICE, &prompt, 31);
    assert_eq!(lookup.snapshot.map(|hit| hit.tier), Some(Tier::Resident), "absorbed");
}

#[derive(Clone, Debug)]
enum Step {
    /// A sequence that takes snapshots and ends.
    Serve(u8, Vec<u32>, Vec<(usize, SnapshotKind)>),
    Reuse(u8, Vec<u32>),
    Pin(u8, Vec<u32>),
    Move(u8, Vec<u32>),
    Wait,
    Flush,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tokens = || proptest::collection::vec(0_u32..3, 1..15);
    let kind = prop_oneof![Just(Anchor), Just(Junction), Just(Message), Just(End)];
    let points = proptest::collection::vec((1_usize..15, kind), 0..4);
    let step = prop_oneof![
        6 => (0_u8..2, tokens(), points).prop_map(|(tenant, prompt, points)| Step::Serve(tenant, prompt, points)),
        4 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Reuse(tenant, prompt)),
        1 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Pin(tenant, prompt)),
        1 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Move(tenant, prompt)),
        1 => Just(Step::Wait),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A snapshot as the simplest cache would have it.
#[derive(Debug)]
struct Taken {
    tenant: u8,
    prefix: Vec<u32>,
    kind: Option<SnapshotKind>,
    /// Nothing has taken its place.
    live: bool,
    on_disk: bool,
}

struct Trial {
    cache: PrefixCache,
    clock: Arc<AtomicU64>,
    options: CacheOptions,
    computed: Vec<(u8, Vec<u32>)>,
    taken: Vec<Taken>,
    roomy: bool,
}

fn tenant(number: u8) -> Tenant {
    Tenant::from_bytes([number + 1; 32])
}

fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Trial {
    fn new(options: CacheOptions, roomy: bool) -> Self {
        let (cache, clock) = open(options.clone());
        Self { cache, clock, options, computed: Vec::new(), taken: Vec::new(), roomy }
    }

    /// The deepest snapshot that a lookup of so much of a prompt may find, which makes it wanted again.
    fn find(&mut self, number: u8, prompt: &[u32]) -> usize {
        let theirs = self.computed.iter().filter(|(tenant, _)| *tenant == number);
        let blocks = theirs.map(|(_, known)| shared(known, prompt)).max().unwrap_or(0);
        let found = self
            .taken
            .iter_mut()
            .filter(|taken| taken.tenant == number && taken.prefix.len() <= blocks)
            .filter(|taken| prompt.starts_with(&taken.prefix))
            .max_by_key(|taken| taken.prefix.len());
        found.map_or(0, |taken| {
            taken.live = true;
            taken.prefix.len()
        })
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Serve(number, prompt, mut points) => {
                points.retain(|(at, _)| *at <= prompt.len());
                points.sort_unstable();
                points.dedup_by_key(|(at, _)| *at);
                let found = self.find(number, &prompt[..prompt.len() - 1]);
                let lookup = serve(&mut self.cache, &tenant(number), &prompt, &points);
                assert!(lookup.tokens <= found);
                assert!(!self.roomy || lookup.tokens == found, "{lookup:?}, expected {found}");
                // A sequence passes what lies behind the blocks that it found.
                let from = lookup.tokens / BLOCK_TOKENS * BLOCK_TOKENS;
                for (at, kind) in points.into_iter().filter(|(at, _)| *at >= from) {
                    self.note(number, &prompt[..at], kind);
                }
                self.computed.push((number, prompt));
            }
            Step::Reuse(number, prompt) => {
                let expected = self.find(number, &prompt);
                let found = check(&mut self.cache, &tenant(number), &prompt);
                assert!(found <= expected, "{found} tokens found, {expected} ever had a snapshot");
                assert!(!self.roomy || found == expected, "{found} tokens found, expected {expected}");
            }
            Step::Pin(number, prompt) => {
                self.cache.pin(&tenant(number), &prompt, Duration::from_hours(1));
            }
            Step::Move(number, prompt) => {
                let keys = self.cache.blocks_of(&tenant(number), &prompt);
                if self.options.disk.is_some() && !self.roomy {
                    self.cache.move_to_disk(&keys);
                }
            }
            Step::Wait => {
                self.clock.fetch_add(6_000_000, Ordering::Relaxed);
                self.cache.poll();
                self.write();
            }
            Step::Flush => {
                let outcome = flush(&mut self.cache);
                if self.roomy && self.options.disk.is_some() {
                    assert_eq!(outcome, FlushOutcome::Durable);
                    let stats = self.cache.stats().snapshots;
                    assert_eq!(stats.waiting, 0);
                }
                self.write();
            }
            Step::Restart => self.restart(),
        }
        self.cache.assert_invariants();
        let stats = self.cache.stats();
        assert!(stats.snapshots.disk_bytes <= stats.snapshots.disk_budget_bytes, "{stats:?}");
    }

    fn note(&mut self, number: u8, prefix: &[u32], kind: SnapshotKind) {
        if matches!(kind, Message | End) {
            let older = self.taken.iter_mut().filter(|taken| {
                taken.tenant == number && taken.kind == Some(kind) && taken.prefix.len() < prefix.len()
            });
            older.filter(|taken| prefix.starts_with(&taken.prefix)).for_each(|taken| taken.live = false);
        }
        let same = |taken: &&mut Taken| taken.tenant == number && taken.prefix == prefix;
        if let Some(taken) = self.taken.iter_mut().find(same) {
            taken.live = true;
            taken.kind = Some(taken.kind.map_or(kind, |known| known.min(kind)));
            return;
        }
        self.taken.push(Taken {
            tenant: number,
            prefix: prefix.to_vec(),
            kind: Some(kind),
            live: true,
            on_disk: false,
        });
    }

    fn write(&mut self) {
        self.taken.iter_mut().filter(|taken| taken.live).for_each(|taken| taken.on_disk = true);
    }

    fn restart(&mut self) {
        if self.options.disk.is_none() {
            self.computed.clear();
            self.taken.clear();
        }
        // Without room one may have been written as it was pinned, or left RAM, before another took its place.
        self.taken.retain(|taken| taken.live || taken.on_disk || !self.roomy);
        for taken in &mut self.taken {
            (taken.live, taken.on_disk, taken.kind) = (true, true, None);
        }
        let without_disk = CacheOptions { disk: None, ..self.options.clone() };
        self.cache = PrefixCache::open(without_disk).unwrap();
        self.cache = open_at(self.options.clone(), &self.clock);
    }
}

/// Room for a few blocks and snapshots in each tier.
fn tight(dir: &Path) -> CacheOptions {
    let mut options = disk_options(dir);
    let used = settled_bytes(&options);
    options.resident_bytes = 1_500;
    options.disk.as_mut().unwrap().budget_bytes = used + 49_152;
    options.disk.as_mut().unwrap().write_queue_bytes = 1_500;
    options
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn with_room_the_deepest_snapshot_ever_taken_is_found_across_restarts(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(disk_options(dir.path()), true);
        // A pin makes what it holds wanted again, which the list does not know.
        for step in steps.into_iter().filter(|step| !matches!(step, Step::Pin(..))) {
            trial.take(step);
        }
    }

    #[test]
    fn without_room_what_is_found_is_right(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(tight(dir.path()), false);
        for step in steps {
            trial.take(step);
        }
    }

    #[test]
    fn in_ram_alone_it_is_found_until_the_end_of_the_process(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(CacheOptions { disk: None, ..disk_options(dir.path()) }, true);
        for step in steps {
            trial.take(step);
        }
    }
}
