//! Snapshots of a store from outside: they go with the chains that they stand behind.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::disk::directory::Listed;
use crate::disk::testing::{Fault, FaultyFileSystem, copy_files, disk_options};
use crate::payload::Part;
use crate::testing::{memory_dir, restore, run_with_state, state};
use crate::{CacheOptions, Fingerprint, Pin, PrefixCache, Retention, SnapshotKind::Anchor, Tenant, Tuning};

const ALICE: Tenant = Tenant::from_bytes([1; 32]);
/// Where prompts of eleven tokens leave snapshots: before the first whole block, at the second one's end, and behind it.
const POINTS: [usize; 3] = [3, 8, 10];

fn prompt(seed: u32) -> Vec<u32> {
    (0..11).map(|position| seed * 1_000 + position).collect()
}

fn open_tuned(options: CacheOptions) -> PrefixCache {
    PrefixCache::open_tuned(options, Tuning { needs_snapshots: true, ..Tuning::default() }).unwrap()
}

fn open_cache(dir: &Path) -> PrefixCache {
    open_tuned(disk_options(dir))
}

fn serve(options: CacheOptions, prompt: &[u32]) {
    let points = POINTS.map(|at| (at, Anchor));
    drop(run_with_state(&mut open_tuned(options), &ALICE, prompt, &points));
}

/// A store with two prompts, the first one used before the second: six blocks, six snapshots.
fn filled() -> tempfile::TempDir {
    let dir = memory_dir();
    for seed in [1, 2] {
        serve(disk_options(dir.path()), &prompt(seed));
    }
    dir
}

fn open(dir: &Path) -> Inspector {
    Inspector::open(dir, Purpose::Change, &mut |_, _| {}).unwrap()
}

/// Tokens of a prompt that a server restores from a store; what it restores is right.
fn known(dir: &Path, prompt: &[u32]) -> usize {
    let mut cache = open_cache(dir);
    let lookup = cache.lookup(&ALICE, prompt, prompt.len());
    let restored = restore(&mut cache, &lookup, 0);
    let found = restored.snapshot.map(|block| block.payload.clone());
    assert_eq!(found, (restored.tokens > 0).then(|| state(&prompt[..restored.tokens])));
    restored.tokens
}

/// The snapshots of one prompt, by where they are.
fn at(store: &Inspector, prompt: &[u32]) -> BTreeMap<u64, BlockKey> {
    let options = disk_options(store.directory.root());
    let mut parents = vec![None];
    for tokens in prompt.chunks(options.block_tokens) {
        let parent = parents.last().copied().flatten();
        parents.push(Some(BlockKey::derive(&options.fingerprint, &ALICE, parent.as_ref(), tokens)));
    }
    let key = |at: usize| {
        let whole = at / options.block_tokens;
        let start = whole * options.block_tokens;
        BlockKey::snapshot(&options.fingerprint, &ALICE, parents[whole].as_ref(), start, &prompt[start..at])
    };
    POINTS
        .map(|at| (at as u64, key(at)))
        .into_iter()
        .filter(|(_, key)| store.stored.contains_key(key))
        .collect()
}

/// The blocks of one prompt, in order.
fn chain(store: &Inspector, prompt: &[u32]) -> Vec<BlockKey> {
    let options = disk_options(store.directory.root());
    let mut keys: Vec<BlockKey> = Vec::new();
    for tokens in prompt.chunks(options.block_tokens) {
        keys.push(BlockKey::derive(&options.fingerprint, &ALICE, keys.last(), tokens));
    }
    keys.retain(|key| store.stored.contains_key(key));
    keys
}

/// Bytes of all blocks and snapshots.
fn total(store: &Inspector) -> u64 {
    store.summary().bytes + store.summary().snapshot_bytes
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(dir.join("blocks")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn they_are_listed_counted_and_shown_with_and_without_the_index() {
    let dir = filled();
    let server = open_cache(dir.path());
    let beside = Inspector::open(dir.path(), Purpose::Read, &mut |_, _| {}).unwrap();
    assert!(beside.used_by().is_some());
    drop(server);
    let check = |store: &Inspector| {
        let summary = store.summary();
        assert_eq!((summary.blocks, summary.snapshots), (6, 6));
        assert_eq!((summary.orphan_snapshots, summary.pinned_snapshots), (0, 0));
        let listing = Directory::look(dir.path()).unwrap().list().unwrap();
        let bytes: u64 = listing.snapshots.values().map(|listed| listed.allocated_bytes).sum();
        assert_eq!((summary.snapshot_bytes, listing.snapshots.len()), (bytes, 6));
        let of_blocks: u64 = listing.blocks.values().map(Listed::all_bytes).sum();
        assert_eq!(summary.bytes, of_blocks);
        let [model] = &summary.fingerprints[..] else { panic!("{summary:?}") };
        assert_eq!((model.blocks, model.snapshots, model.snapshot_bytes), (6, 6, bytes));
        let blocks = store.blocks();
        assert_eq!(blocks.iter().map(|block| block.snapshots).collect::<Vec<_>>(), [0, 2, 0, 0, 2, 0]);
        let (keys, snapshots) = (chain(store, &prompt(1)), at(store, &prompt(1)));
        let Detail::Block(detail) = store.show(&keys[1]).unwrap() else { panic!("no block") };
        let behind: Vec<BlockKey> = detail.snapshots_behind.iter().map(|snapshot| snapshot.key).collect();
        assert_eq!((behind, detail.children), (vec![snapshots[&8], snapshots[&10]], 1));
        for (place, key) in snapshots {
            let digits = &key.to_string()[..12];
            let Detail::Snapshot(detail) = store.show(&store.find(digits).unwrap()).unwrap() else {
                panic!("no snapshot")
            };
            assert_eq!(detail.snapshot.start + detail.snapshot.tokens, place);
            let block_tokens = disk_options(dir.path()).block_tokens as u64;
            assert_eq!(detail.token_ids.len() as u64, place % block_tokens);
            assert_eq!(detail.tensors.iter().map(|tensor| tensor.part).collect::<Vec<_>>(), ["state"; 2]);
            let json = serde_json::to_value(Detail::Snapshot(detail)).unwrap();
            assert_eq!((&json["kind"], &json["key"]), (&"snapshot".into(), &key.to_string().into()));
        }
    };
    check(&beside);
    check(&open(dir.path()));
    check(&Inspector::rebuild(dir.path(), &mut |_, _| {}).unwrap());
    assert_eq!(known(dir.path(), &prompt(1)), 10);
}

#[test]
fn verify_reads_them_and_puts_damaged_ones_aside() {
    let dir = filled();
    let mut store = open(dir.path());
    let key = at(&store, &prompt(1))[&10];
    let sound = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!((sound.blocks, sound.sound, sound.snapshots, sound.sound_snapshots), (6, 6, 6, 6));
    let path = store.directory.path(&key, Part::State);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut seen = Vec::new();
    let report = store.verify(&mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!((report.sound, report.sound_snapshots, report.quarantined), (6, 5, 1));
    let [damage] = &report.damaged[..] else { panic!("{report:?}") };
    assert_eq!((damage.kind, &damage.key), (Kind::Snapshot, &key.to_string()));
    assert!(damage.reason.contains("checksum"), "{damage:?}");
    assert_eq!(seen.last(), Some(&(12, 12)));
    assert_eq!((store.summary().snapshots, store.summary().quarantine_files), (5, 1));
    assert!(!path.exists());
    drop(store);
    assert_eq!(known(dir.path(), &prompt(1)), 8, "the one before it");
}

#[test]
fn those_whose_block_is_gone_and_those_of_other_models_are_collected() {
    let dir = filled();
    let mut other = disk_options(dir.path());
    other.fingerprint = Fingerprint::from_bytes([8; 32]);
    serve(other, &prompt(1));
    let store = open(dir.path());
    fs::remove_file(store.directory.path(&chain(&store, &prompt(1))[1], Part::Full)).unwrap();
    let ours = disk_options(dir.path()).fingerprint;
    drop(store);
    let mut store = open(dir.path());
    assert_eq!((store.summary().orphan_blocks, store.summary().orphan_snapshots), (1, 2));
    let wanted = Collection { only: Some(ours), dry_run: true, ..Collection::default() };
    let planned = store.collect(&wanted).unwrap();
    assert_eq!(store.summary().snapshots, 9);
    let report = store.collect(&Collection { dry_run: false, ..wanted }).unwrap();
    assert_eq!(planned, report);
    // Of the foreign chain, what stands behind its first block counts as standing on nothing.
    assert_eq!((report.orphan_blocks, report.foreign_blocks), (3, 1));
    assert_eq!((report.orphan_snapshots, report.foreign_snapshots), (4, 1));
    assert_eq!((report.removed.blocks, report.removed.snapshots), (4, 5));
    assert_eq!(at(&store, &prompt(1)).into_keys().collect::<Vec<_>>(), [3]);
    drop(store);
    assert_eq!((known(dir.path(), &prompt(1)), known(dir.path(), &prompt(2))), (3, 10));
}

#[test]
fn over_a_budget_they_leave_by_last_use_and_no_block_leaves_before_them() {
    let dir = filled();
    let all = total(&open(dir.path()));
    let mut left = HashSet::new();
    for budget_bytes in (0..=all).step_by(4_096) {
        let copy = memory_dir();
        copy_files(dir.path(), copy.path()).unwrap();
        let mut store = open(copy.path());
        let wanted = Collection { budget_bytes: Some(budget_bytes), ..Collection::default() };
        let report = store.collect(&wanted).unwrap();
        let summary = store.summary();
        assert!(total(&store) <= budget_bytes, "{summary:?}");
        assert_eq!((summary.orphan_blocks, summary.orphan_snapshots), (0, 0), "within {budget_bytes}");
        assert_eq!(report.over_budget_blocks + summary.blocks, 6);
        assert_eq!(report.over_budget_snapshots + summary.snapshots, 6);
        // All of the first prompt was used before anything of the second.
        let second = chain(&store, &prompt(2)).len() + at(&store, &prompt(2)).len();
        let first = chain(&store, &prompt(1)).len() + at(&store, &prompt(1)).len();
        assert!(first == 0 || second == 6, "within {budget_bytes}: {first} and {second}");
        left.insert((first, second));
        let mut files = all_files(copy.path());
        files.retain(|path| path.to_str().unwrap().ends_with(".state.safetensors"));
        assert_eq!(files.len() as u64, summary.snapshots);
    }
    assert!(left.len() >= 10, "{left:?}");
}

#[test]
fn a_snapshot_has_the_priority_of_its_block() {
    let dir = memory_dir();
    for (seed, priority) in [(1, 90), (2, 50)] {
        let mut cache = open_cache(dir.path());
        let (_, mut lease) = run_with_state(&mut cache, &ALICE, &prompt(seed)[..8], &[(8, Anchor)]);
        cache.retain(&mut lease, &Retention { priority, ..Retention::default() });
    }
    let mut store = open(dir.path());
    for _ in 0..3 {
        let budget_bytes = Some(total(&store) - 1);
        store.collect(&Collection { budget_bytes, ..Collection::default() }).unwrap();
    }
    assert_eq!((at(&store, &prompt(1)).len(), at(&store, &prompt(2)).len()), (1, 0));
    assert_eq!((chain(&store, &prompt(1)).len(), chain(&store, &prompt(2)).len()), (2, 0));
}

#[test]
fn a_pin_keeps_the_snapshot_that_goes_with_a_block_and_its_chain() {
    type Name = fn(&Inspector) -> BlockKey;
    let nothing = Collection { budget_bytes: Some(0), ..Collection::default() };
    // By the key of a block and by that of a snapshot; what stays.
    let cases: [(Name, usize, u64); 5] = [
        (|store| chain(store, &prompt(1))[2], 3, 10),
        (|store| chain(store, &prompt(1))[1], 2, 8),
        (|store| chain(store, &prompt(1))[0], 1, 3),
        (|store| at(store, &prompt(1))[&10], 3, 10),
        (|store| at(store, &prompt(1))[&3], 1, 3),
    ];
    for (name, blocks, place) in cases {
        let dir = filled();
        let mut store = open(dir.path());
        let key = name(&store);
        store.pin(&key, Pin::Forever).unwrap();
        assert_eq!((store.summary().pinned_blocks, store.summary().pinned_snapshots), (1, 1));
        drop(store);
        let mut store = open(dir.path());
        store.collect(&nothing).unwrap();
        assert_eq!((chain(&store, &prompt(1)).len(), store.summary().blocks), (blocks, blocks as u64));
        assert_eq!(at(&store, &prompt(1)).into_keys().collect::<Vec<_>>(), [place]);
        drop(store);
        assert_eq!(known(dir.path(), &prompt(1)) as u64, place, "a server goes on from it");
        let mut store = open(dir.path());
        store.pin(&key, Pin::None).unwrap();
        store.collect(&nothing).unwrap();
        assert_eq!((store.summary().blocks, store.summary().snapshots), (0, 0));
    }
}

#[test]
fn an_export_of_a_chain_takes_its_snapshots_along_and_no_other_prompt_s() {
    let dir = filled();
    // It parts within the third block of the first prompt.
    let other: Vec<u32> = prompt(1)[..9].iter().copied().chain([77, 78]).collect();
    serve(disk_options(dir.path()), &other);
    let store = open(dir.path());
    assert_eq!((store.summary().blocks, store.summary().snapshots), (7, 7));
    for (key, whole, parted) in [
        (chain(&store, &prompt(1))[2], 10, 8),
        (at(&store, &prompt(1))[&10], 10, 8),
        (at(&store, &other)[&10], 8, 10),
        (chain(&store, &prompt(1))[1], 8, 8),
        (chain(&store, &prompt(1))[0], 3, 3),
    ] {
        let copy = memory_dir();
        let report = store.export(copy.path(), &[key], &mut |_, _| {}).unwrap();
        assert_eq!(report.snapshots, POINTS.iter().filter(|at| **at <= whole.max(parted)).count() as u64);
        assert_eq!((known(copy.path(), &prompt(1)), known(copy.path(), &other)), (whole, parted));
        assert_eq!(known(copy.path(), &prompt(2)), 0);
    }
}

#[test]
fn an_export_of_everything_can_be_served_from_and_imported_but_for_what_is_damaged() {
    let (dir, copy, third) = (filled(), memory_dir(), memory_dir());
    let store = open(dir.path());
    let report = store.export(copy.path(), &[], &mut |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.snapshots, report.known), (6, 6, 0));
    assert_eq!(report.bytes, total(&store));
    assert_eq!(store.export(copy.path(), &[], &mut |_, _| {}).unwrap().known, 12);
    assert_eq!((known(copy.path(), &prompt(1)), known(copy.path(), &prompt(2))), (10, 10));
    let bad = at(&store, &prompt(2))[&10];
    let path = Directory::look(copy.path()).unwrap().path(&bad, Part::State);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(open_cache(third.path()));
    let mut store = open(third.path());
    let report = store.import(copy.path(), &mut |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.snapshots, report.refused.len()), (6, 5, 1));
    assert_eq!((report.refused[0].kind, &report.refused[0].key), (Kind::Snapshot, &bad.to_string()));
    assert_eq!(store.import(copy.path(), &mut |_, _| {}).unwrap().known, 11);
    let (blocks, snapshots) = (store.blocks(), store.snapshots());
    drop(store);
    let store = open(third.path());
    assert_eq!((store.blocks(), store.snapshots()), (blocks, snapshots), "the index knows what came");
    drop(store);
    assert_eq!((known(third.path(), &prompt(1)), known(third.path(), &prompt(2))), (10, 8));
}

/// Stops `change` of a store at each of its file operations, one after the other, and hands what is there then to `check`.
fn stopped_everywhere(
    make: impl Fn() -> tempfile::TempDir,
    change: impl Fn(&mut Inspector) -> Result<(), CacheError>,
    check: impl Fn(&Path, usize),
) -> usize {
    let mut at = 0;
    loop {
        let dir = make();
        let mut store = open(dir.path());
        store.files = FaultyFileSystem::new(Fault::CrashAt(at)) as Arc<dyn FileSystem>;
        let done = change(&mut store).is_ok();
        drop(store);
        check(dir.path(), at);
        if done {
            return at;
        }
        at += 1;
    }
}

/// Nothing in a store is damaged, and all of it can be found.
fn assert_whole(dir: &Path, at: usize) {
    let mut store = open(dir);
    let report = store.verify(&mut |_, _| {}).unwrap();
    let summary = store.summary();
    assert_eq!((report.damaged, summary.quarantine_files), (vec![], 0), "stopped at {at}");
    assert_eq!((summary.orphan_blocks, summary.orphan_snapshots), (0, 0), "stopped at {at}");
    drop(store);
    known(dir, &prompt(1));
    known(dir, &prompt(2));
}

#[test]
fn clearing_and_collecting_stopped_anywhere_leave_nothing_wrong() {
    let clear = |store: &mut Inspector| store.clear().map(drop);
    // Each of the 18 files by itself.
    assert!(stopped_everywhere(filled, clear, assert_whole) >= 18);
    let nothing = Collection { budget_bytes: Some(0), ..Collection::default() };
    let collect = |store: &mut Inspector| store.collect(&nothing).map(drop);
    assert!(stopped_everywhere(filled, collect, assert_whole) >= 18);
}

#[test]
fn an_import_stopped_anywhere_leaves_nothing_wrong_and_can_be_repeated() {
    let (source, copy) = (filled(), memory_dir());
    open(source.path()).export(copy.path(), &[], &mut |_, _| {}).unwrap();
    let empty = || {
        let dir = memory_dir();
        drop(open_cache(dir.path()));
        dir
    };
    let import = |store: &mut Inspector| store.import(copy.path(), &mut |_, _| {}).map(drop);
    let steps = stopped_everywhere(empty, import, |dir, at| {
        let mut store = open(dir);
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().damaged, [], "stopped at {at}");
        store.import(copy.path(), &mut |_, _| {}).unwrap();
        drop(store);
        assert_eq!((known(dir, &prompt(1)), known(dir, &prompt(2))), (10, 10), "stopped at {at}");
    });
    // Each file is written and renamed, and its directory synced.
    assert!(steps >= 36, "{steps}");
}
