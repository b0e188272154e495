//! One directory, several models: each finds its own blocks and nothing else, and what has to leave is what was used least
//! recently, whoever computed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::testing::{cases, memory_dir, payload, run_with_state};
use crate::{
    CacheOptions, Fingerprint, Lru, Miss, Payload, Pin, Retention, SnapshotKind, TensorBytes, Tuning,
};

/// The options of a model's cache over a directory.
fn options(dir: &Path, model: u8) -> CacheOptions {
    CacheOptions {
        fingerprint: Fingerprint::from_bytes([model; 32]),
        ..crate::disk::testing::disk_options(dir)
    }
}

fn open(options: CacheOptions) -> PrefixCache {
    PrefixCache::open_tuned(options, Tuning { policy: Box::new(Lru), ..Tuning::default() }).unwrap()
}

/// What a model computes: other bytes than every other model.
fn computed(model: u8, prefix: &[u32], start: usize) -> Payload {
    let bytes_of = |tensor: &TensorBytes| tensor.data.iter().map(|byte| byte ^ model).collect::<Vec<u8>>();
    let tensors = payload(prefix, start).tensors.into_iter();
    Payload {
        tensors: tensors.map(|tensor| TensorBytes { data: bytes_of(&tensor).into(), ..tensor }).collect(),
    }
}

fn serve(cache: &mut PrefixCache, model: u8, prompt: &[u32]) {
    let lookup = cache.lookup(&ALICE, prompt, prompt.len());
    let mut lease = cache.lease(&ALICE, &lookup);
    while lease.tokens() < prompt.len() {
        let (start, end) = (lease.tokens(), prompt.len().min(lease.tokens() + 4));
        if !cache.advance(&mut lease, &prompt[start..end]) {
            cache.insert(&mut lease, &prompt[start..end], computed(model, &prompt[..end], start));
        }
        if end - start < 4 {
            break;
        }
    }
}

/// Looks a prompt up, restores it and checks that the bytes are this model's. Returns the tokens that came.
fn check(cache: &mut PrefixCache, model: u8, prompt: &[u32]) -> usize {
    let lookup = cache.lookup(&ALICE, prompt, prompt.len());
    let restored = restore(cache, &lookup, 0);
    assert_eq!((restored.tokens, restored.failure), (lookup.tokens, None));
    for brought in &restored.blocks {
        let mut prefix = prompt[..brought.block.start].to_vec();
        prefix.extend(&brought.block.tokens);
        assert_eq!(brought.block.payload, computed(model, &prefix, brought.block.start));
    }
    restored.tokens
}

/// Tokens of a prompt that a model would find.
fn found(dir: &Path, model: u8, prompt: &[u32]) -> usize {
    open(options(dir, model)).peek(&ALICE, prompt, prompt.len()).tokens
}

/// Opens and closes the store with so many allocated bytes of blocks and snapshots too few.
fn squeeze(dir: &Path, model: u8, bytes: u64) {
    let mut tight = options(dir, model);
    let disk = open(tight.clone()).stats().disk.unwrap();
    let snapshots = open(tight.clone()).stats().snapshots.disk_bytes;
    let used = disk.tier.bytes + disk.stray_bytes + snapshots + disk.other_bytes;
    tight.disk.as_mut().unwrap().budget_bytes = used - bytes;
    drop(open(tight));
}

/// Allocated bytes of one block.
fn block_bytes(dir: &Path, model: u8) -> u64 {
    let tier = open(options(dir, model)).stats().disk.unwrap().tier;
    tier.bytes / tier.blocks
}

#[test]
fn blocks_leave_by_last_use_whichever_model_computed_them() {
    for left_over in 0..=6 {
        let dir = memory_dir();
        for seed in 0..6 {
            let model = 1 + (seed % 2) as u8;
            serve(&mut open(options(dir.path(), model)), model, &prompt(seed, 4));
        }
        // A use of the first one of model 1, in a process of its own.
        open(options(dir.path(), 1)).lookup(&ALICE, &prompt(0, 4), 4);
        let bytes = block_bytes(dir.path(), 1);
        squeeze(dir.path(), 2, (6 - left_over) * bytes);
        let order = [1, 2, 3, 4, 5, 0];
        for (at, seed) in order.into_iter().enumerate() {
            let kept = if at as u64 >= 6 - left_over { 4 } else { 0 };
            let model = 1 + (seed % 2) as u8;
            assert_eq!(found(dir.path(), model, &prompt(seed, 4)), kept, "{left_over} left, prompt {seed}");
        }
    }
}

#[test]
fn another_model_s_chain_leaves_from_its_end() {
    for gone in 0..=4 {
        let dir = memory_dir();
        serve(&mut open(options(dir.path(), 1)), 1, &prompt(1, 16));
        serve(&mut open(options(dir.path(), 2)), 2, &prompt(2, 16));
        let bytes = block_bytes(dir.path(), 1);
        squeeze(dir.path(), 2, gone * bytes);
        assert_eq!(found(dir.path(), 1, &prompt(1, 16)), 16 - 4 * gone as usize);
        assert_eq!(found(dir.path(), 2, &prompt(2, 16)), 16);
        assert_eq!(open(options(dir.path(), 1)).stats().disk.unwrap().stray_blocks, 4);
    }
}

#[test]
fn another_model_s_pins_hold_until_their_time_is_over() {
    let dir = memory_dir();
    let now = Arc::new(AtomicU64::new(1_000_000));
    let at = |model, less_bytes: u64| {
        let (mut options, reads) = (options(dir.path(), model), now.clone());
        let clock: crate::WallClock = Arc::new(move || reads.load(Ordering::Relaxed));
        let tuning = |clock| Tuning { policy: Box::new(Lru), clock, ..Tuning::default() };
        if less_bytes > 0 {
            let probe = PrefixCache::open_tuned(options.clone(), tuning(clock.clone())).unwrap();
            let disk = probe.stats().disk.unwrap();
            options.disk.as_mut().unwrap().budget_bytes =
                disk.tier.bytes + disk.stray_bytes + disk.other_bytes - less_bytes;
        }
        PrefixCache::open_tuned(options, tuning(clock)).unwrap()
    };
    let mut cache = at(1, 0);
    serve(&mut cache, 1, &prompt(1, 8));
    assert_eq!(cache.pin(&ALICE, &prompt(1, 8), Duration::from_mins(1)).blocks, 2);
    drop(cache);
    let mut cache = at(2, 0);
    serve(&mut cache, 2, &prompt(2, 8));
    flush(&mut cache);
    drop(cache);
    let bytes = block_bytes(dir.path(), 2);
    let mut cache = at(2, bytes);
    assert_eq!(cache.peek(&ALICE, &prompt(2, 8), 8).tokens, 4, "what is not pinned made room");
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 2);
    now.fetch_add(61_000_000, Ordering::Relaxed);
    cache.poll();
    assert_eq!(cache.stats().retained_blocks, 0, "and the pins end while another model runs");
    drop(cache);
    drop(at(2, bytes));
    assert_eq!((found(dir.path(), 1, &prompt(1, 8)), found(dir.path(), 2, &prompt(2, 8))), (4, 4));
}

#[test]
fn a_block_without_its_parent_is_kept_by_its_pin_and_no_longer() {
    let dir = memory_dir();
    let now = Arc::new(AtomicU64::new(1_000_000));
    let at = |budget_bytes: u64| {
        let (mut options, reads) = (options(dir.path(), 1), now.clone());
        options.disk.as_mut().unwrap().budget_bytes = budget_bytes;
        let clock: crate::WallClock = Arc::new(move || reads.load(Ordering::Relaxed));
        PrefixCache::open_tuned(options, Tuning { clock, ..Tuning::default() }).unwrap()
    };
    let mut cache = at(1 << 30);
    serve(&mut cache, 1, &prompt(1, 8));
    cache.pin(&ALICE, &prompt(1, 8), Duration::from_mins(1));
    let root = cache.blocks_of(&ALICE, &prompt(1, 4))[0].to_string();
    drop(cache);
    for file in all_files(dir.path()).iter().filter(|path| path.to_str().unwrap().contains(&root)) {
        std::fs::remove_file(file).unwrap();
    }
    let mut cache = at(1);
    cache.poll();
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 1);
    now.fetch_add(61_000_000, Ordering::Relaxed);
    cache.poll();
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 0);
    drop(cache);
    assert!(all_files(dir.path()).is_empty());
}

#[test]
fn a_chain_of_another_model_outlives_nothing_that_its_own_would_not() {
    let dir = memory_dir();
    let mut cache = open(options(dir.path(), 1));
    serve(&mut cache, 1, &prompt(1, 8));
    let lookup = cache.lookup(&ALICE, &prompt(1, 8), 8);
    let mut lease = cache.lease(&ALICE, &lookup);
    let retention = Retention { pin: Pin::None, ttl: Some(Duration::from_hours(1)), ..Retention::default() };
    cache.retain(&mut lease, &retention);
    drop((lease, cache));
    let later = crate::tuning::Tuning::default().clock;
    let clock: crate::WallClock = Arc::new(move || later() + 2 * 3_600_000_000);
    let tuning = Tuning { clock, ..Tuning::default() };
    let cache = PrefixCache::open_tuned(options(dir.path(), 2), tuning).unwrap();
    assert_eq!((cache.stats().disk.unwrap().stray_blocks, cache.stats().expired_blocks), (0, 2));
    drop(cache);
    assert!(all_files(dir.path()).is_empty());
}

#[test]
fn snapshots_leave_by_last_use_whichever_model_they_are_of() {
    let recurrent = |model| {
        let tuning = Tuning { policy: Box::new(Lru), needs_snapshots: true, ..Tuning::default() };
        move |dir: &Path| PrefixCache::open_tuned(options(dir, model), tuning).unwrap()
    };
    let dir = memory_dir();
    for seed in 0..4 {
        let mut cache = recurrent(1 + (seed % 2) as u8)(dir.path());
        drop(run_with_state(&mut cache, &ALICE, &prompt(seed, 4), &[(4, SnapshotKind::Anchor)]));
        flush(&mut cache);
    }
    let probe = recurrent(1)(dir.path());
    let snapshots = probe.stats().snapshots;
    assert_eq!(snapshots.on_disk, 4);
    drop(probe);
    // Room for half of them, with model 2 running.
    let tight = options(dir.path(), 2);
    let share = snapshots.disk_bytes as f64 / 2.0 / tight.disk.as_ref().unwrap().budget_bytes as f64;
    let tuning = Tuning {
        policy: Box::new(Lru),
        needs_snapshots: true,
        snapshot_share: share * 1.000_001,
        ..Tuning::default()
    };
    drop(PrefixCache::open_tuned(tight, tuning).unwrap());
    let tokens =
        |seed: u32| recurrent(1 + (seed % 2) as u8)(dir.path()).peek(&ALICE, &prompt(seed, 4), 4).tokens;
    assert_eq!([0, 1, 2, 3].map(tokens), [0, 0, 4, 4]);
}

#[test]
fn a_prompt_that_only_another_model_knows_is_missed_for_that_reason() {
    let dir = memory_dir();
    serve(&mut open(options(dir.path(), 1)), 1, &prompt(1, 10));
    let mut other = open(options(dir.path(), 2));
    let lookup = other.lookup(&ALICE, &prompt(1, 10), 10);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::OtherFingerprint { at: 0 }));
    assert_eq!(other.lookup(&BOB, &prompt(1, 10), 10).miss, Miss::Absent, "another tenant is told nothing");
    assert_eq!(other.blocks_of(&ALICE, &prompt(1, 10)), []);
}

#[derive(Clone, Debug)]
enum Step {
    Serve(Vec<u32>),
    Check(Vec<u32>),
    /// The process ends, and one with this model begins.
    Run(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tokens = || proptest::collection::vec(0_u32..2, 1..14);
    let step = prop_oneof![
        3 => tokens().prop_map(Step::Serve),
        3 => tokens().prop_map(Step::Check),
        1 => (1_u8..4).prop_map(Step::Run),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Runs a history and says how much was found of what was asked for, all of it sound.
fn history(steps: Vec<Step>, budget_bytes: Option<u64>) {
    let dir = memory_dir();
    let opened = |model| {
        let mut options = options(dir.path(), model);
        if let Some(bytes) = budget_bytes {
            let disk = options.disk.as_mut().unwrap();
            (options.resident_bytes, disk.budget_bytes) = (1_500, bytes);
        }
        open(options)
    };
    let (mut model, mut cache, mut known) = (1, opened(1), Vec::new());
    for step in steps {
        match step {
            Step::Serve(prompt) => {
                serve(&mut cache, model, &prompt);
                known.push((model, prompt));
            }
            Step::Check(prompt) => {
                let run = |known: &[u32]| known.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
                let ours = known.iter().filter(|(by, _)| *by == model).map(|(_, known)| run(known));
                let longest = ours.max().unwrap_or(0);
                let tokens = check(&mut cache, model, &prompt);
                if budget_bytes.is_none() {
                    assert_eq!(tokens, longest);
                } else {
                    assert!(tokens <= longest);
                }
            }
            Step::Run(other) => {
                drop(cache);
                model = other;
                cache = opened(model);
            }
        }
        cache.assert_invariants();
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn with_room_each_model_finds_all_it_ever_computed(steps in steps()) {
        history(steps, None);
    }

    #[test]
    fn without_room_what_a_model_finds_is_its_own(steps in steps()) {
        let dir = memory_dir();
        let settled = crate::testing::settled_bytes(&options(dir.path(), 1));
        history(steps, Some(settled + 65_536));
    }
}
