//! Snapshots in files: found after restarts and crashes, damaged ones never used, older stores still read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ALICE, BOB, all_files, block_files, flush, prompt};
use crate::disk::testing::{Fault, FaultyFileSystem, disk_options, open_tuned_on};
use crate::testing::{memory_dir, restore, run_with_state, settled_bytes, state};
use crate::{CacheOptions, FlushOutcome, PrefixCache, ReadError, SnapshotKind, Tenant, Tuning};

use SnapshotKind::{Anchor, End};

fn tuning() -> Tuning {
    Tuning { needs_snapshots: true, ..Tuning::default() }
}

fn open(options: CacheOptions) -> PrefixCache {
    PrefixCache::open_tuned(options, tuning()).unwrap()
}

fn cold(dir: &Path) -> PrefixCache {
    open(disk_options(dir))
}

fn serve(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32], points: &[(usize, SnapshotKind)]) {
    drop(run_with_state(cache, tenant, prompt, points));
    cache.poll();
}

/// What comes of a prompt; its state is the right one.
fn check(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]) -> usize {
    let lookup = cache.lookup(tenant, prompt, prompt.len());
    let restored = restore(cache, &lookup, 0);
    let found = restored.snapshot.filter(|_| restored.tokens > 0).map(|block| block.payload.clone());
    assert_eq!(found, (restored.tokens > 0).then(|| state(&prompt[..restored.tokens])));
    restored.tokens
}

fn snapshot_files(dir: &Path) -> Vec<PathBuf> {
    let state = |path: &PathBuf| path.to_str().unwrap().ends_with(".state.safetensors");
    all_files(dir).into_iter().filter(state).collect()
}

#[test]
fn a_restart_finds_them_and_so_does_one_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 11);
    serve(&mut cold(dir.path()), &ALICE, &prompt, &[(6, Anchor), (8, Anchor), (11, End)]);
    assert_eq!(snapshot_files(dir.path()).len(), 3);
    for lose_index in [false, true, false] {
        if lose_index {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let mut cache = cold(dir.path());
        assert_eq!(cache.stats().snapshots.on_disk, 3);
        for (asked, found) in [(11, 11), (10, 8), (7, 6), (5, 0)] {
            assert_eq!(check(&mut cache, &ALICE, &prompt[..asked]), found, "index lost: {lose_index}");
        }
        assert_eq!(check(&mut cache, &BOB, &prompt), 0);
        assert_eq!(cache.stats().disk.unwrap().quarantined, 0);
    }
}

#[test]
fn any_safetensors_reader_reads_one() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 5), &[(5, End)]);
    let bytes = fs::read(&snapshot_files(dir.path())[0]).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for tensor in &state(&prompt(1, 5)).tensors {
        assert_eq!(file.tensor(&tensor.name).unwrap().data(), &tensor.data[..]);
    }
}

#[test]
fn a_store_of_the_version_before_is_read_and_gets_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 11);
    serve(&mut cold(dir.path()), &ALICE, &prompt, &[]);
    let db = sled::open(dir.path().join("index")).unwrap();
    db.drop_tree("snapshots").unwrap();
    db.open_tree("meta").unwrap().insert("version", &2_u32.to_le_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let mut cache = cold(dir.path());
    let lookup = cache.lookup(&ALICE, &prompt, 11);
    assert_eq!((lookup.tokens, lookup.no_state_tokens), (0, 11), "its blocks are there");
    serve(&mut cache, &ALICE, &prompt, &[(10, End)]);
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt), 10);
}

#[test]
fn a_damaged_one_is_a_miss_and_the_next_before_it_is_used() {
    type Damage = fn(&mut Vec<u8>);
    let prompt = prompt(1, 11);
    let damages: [(&str, Damage); 4] = [
        ("a bit of the state", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("a bit of the header", |bytes| bytes[200] ^= 1),
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("most of it gone", |bytes| bytes.truncate(100)),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        serve(&mut cold(dir.path()), &ALICE, &prompt, &[(6, Anchor)]);
        let earlier = snapshot_files(dir.path());
        serve(&mut cold(dir.path()), &ALICE, &prompt, &[(10, Anchor)]);
        let later = snapshot_files(dir.path()).into_iter().find(|path| !earlier.contains(path)).unwrap();
        let mut cache = cold(dir.path());
        let mut bytes = fs::read(&later).unwrap();
        damage(&mut bytes);
        fs::write(&later, bytes).unwrap();
        let lookup = cache.lookup(&ALICE, &prompt, 11);
        assert_eq!(lookup.tokens, 10, "{what}");
        let restored = restore(&mut cache, &lookup, 0);
        assert_eq!((restored.tokens, restored.blocks.len()), (0, 0), "{what}");
        assert!(restored.failure.unwrap().1.is_damage(), "{what}");
        flush(&mut cache);
        assert_eq!(cache.stats().disk.unwrap().quarantined, 1, "{what}");
        assert!(!later.exists(), "{what}");
        assert_eq!(check(&mut cache, &ALICE, &prompt), 6, "{what}");
        // Taken again, it is whole again.
        serve(&mut cache, &ALICE, &prompt, &[(10, Anchor)]);
        drop(cache);
        assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt), 10, "{what}");
    }
}

#[test]
fn another_prompt_s_under_this_name_is_a_miss() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, seed) in [(&dir, 1), (&elsewhere, 2)] {
        serve(&mut cold(dir.path()), &ALICE, &prompt(seed, 5), &[(5, End)]);
    }
    let other = fs::read(&snapshot_files(elsewhere.path())[0]).unwrap();
    let mut cache = cold(dir.path());
    fs::write(&snapshot_files(dir.path())[0], other).unwrap();
    let lookup = cache.lookup(&ALICE, &prompt(1, 5), 5);
    let restored = restore(&mut cache, &lookup, 0);
    assert_eq!(restored.failure.unwrap().1, ReadError::Identity);
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 5)), 0);
}

/// Writes some turns of three conversations, and says which of their ends were acknowledged.
fn write_three(dir: &Path, files: &Arc<FaultyFileSystem>) -> [bool; 3] {
    let mut cache = open_tuned_on(disk_options(dir), tuning(), files);
    [1, 2, 3].map(|seed| {
        serve(&mut cache, &ALICE, &prompt(seed, 6), &[(2, Anchor), (6, End)]);
        flush(&mut cache);
        serve(&mut cache, &ALICE, &prompt(seed, 8), &[(8, End)]);
        flush(&mut cache) == FlushOutcome::Durable
    })
}

#[test]
fn a_stop_at_any_operation_loses_none_that_was_acknowledged() {
    let total = {
        let (dir, files) = (memory_dir(), FaultyFileSystem::new(Fault::None));
        write_three(dir.path(), &files);
        files.steps()
    };
    assert!(total >= 30, "{total}");
    for at in 0..total {
        let dir = memory_dir();
        let files = FaultyFileSystem::new(Fault::CrashAt(at));
        let durable = write_three(dir.path(), &files);
        let mut cache = cold(dir.path());
        for (seed, durable) in (1..).zip(durable) {
            let found = check(&mut cache, &ALICE, &prompt(seed, 8));
            assert!(found == 8 || !durable, "stopped at {at}: {found} of 8 tokens of prompt {seed}");
        }
        assert_eq!(cache.stats().disk.unwrap().quarantined, 0, "stopped at {at}");
    }
}

#[test]
fn on_disk_they_keep_to_their_share_and_files_leave_with_them() {
    let dir = memory_dir();
    let mut options = disk_options(dir.path());
    let budget_bytes = settled_bytes(&options) + (1 << 20);
    options.disk.as_mut().unwrap().budget_bytes = budget_bytes;
    let share = Tuning { snapshot_share: 40_960.0 / budget_bytes as f64, ..tuning() };
    let mut cache = PrefixCache::open_tuned(options, share).unwrap();
    for seed in 0..60 {
        serve(&mut cache, &ALICE, &prompt(seed, 5), &[(5, Anchor)]);
        flush(&mut cache);
        let stats = cache.stats();
        assert!(stats.snapshots.disk_bytes <= stats.snapshots.disk_budget_bytes, "{stats:?}");
    }
    let stats = cache.stats().snapshots;
    assert!(stats.evicted > 0 && stats.on_disk > 5, "{stats:?}");
    flush(&mut cache);
    assert_eq!(snapshot_files(dir.path()).len() as u64, cache.stats().snapshots.on_disk);
    assert_eq!(check(&mut cache, &ALICE, &prompt(59, 5)), 5);
    cache.clear();
    flush(&mut cache);
    assert!(all_files(dir.path()).is_empty());
}

#[test]
fn they_count_to_what_may_be_written_in_a_day() {
    let dir = memory_dir();
    let limit = Tuning { daily_write_bytes: Some(10), ..tuning() };
    let mut cache = PrefixCache::open_tuned(disk_options(dir.path()), limit).unwrap();
    serve(&mut cache, &ALICE, &prompt(1, 5), &[(5, Anchor)]);
    assert_eq!(flush(&mut cache), FlushOutcome::Durable, "nothing more is wanted today");
    assert_eq!((snapshot_files(dir.path()).len(), block_files(dir.path()).len()), (0, 0));
    assert!(cache.stats().disk.unwrap().writes.over_daily_blocks >= 2);
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 5)), 5, "RAM has it");
}

#[test]
fn freeing_a_prefix_frees_its_snapshots_and_moving_it_moves_them() {
    let dir = memory_dir();
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt(1, 11), &[(6, Anchor), (10, End)]);
    let keys = cache.blocks_of(&ALICE, &prompt(1, 11));
    let waiting = |cache: &mut PrefixCache| cache.move_to_disk(&keys).waiting_blocks > 0;
    while waiting(&mut cache) {
        flush(&mut cache);
    }
    let stats = cache.stats().snapshots;
    assert_eq!((stats.resident, stats.on_disk), (0, 2));
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 11)), 10);
    cache.free(&keys, &std::collections::HashSet::new());
    flush(&mut cache);
    assert!(all_files(dir.path()).is_empty(), "{:?}", all_files(dir.path()));
}
