//! A disk that fails: serving goes on, the state is said, and it passes by itself.

use std::fs;

use super::{ALICE, check, cold, flush, prompt};
use crate::disk::testing::{Fault, FaultyFileSystem, copy_files, disk_options, open_on};
use crate::testing::{memory_dir, serve};
use crate::{FlushOutcome, PrefixCache};

const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

#[test]
fn a_full_disk_degrades_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFileSystem::new(Fault::Errno(ENOSPC));
    let mut cache = open_on(disk_options(dir.path()), &files);
    serve(&mut cache, &ALICE, &prompt(1, 12));
    let outcome = flush(&mut cache);
    let FlushOutcome::Incomplete { blocks: 3, reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(cache.stats().disk.unwrap().degraded, Some(reason));
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 12)), 12, "RAM goes on serving");
    files.set(Fault::None);
    serve(&mut cache, &ALICE, &prompt(2, 4));
    flush(&mut cache);
    assert_eq!(cache.stats().disk.unwrap().degraded, None);
    assert_eq!(flush(&mut cache), FlushOutcome::Durable);
    drop(cache);
    let mut cache = cold(dir.path());
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 12)), 12, "what was refused was written after all");
}

#[test]
fn every_block_behind_one_that_waits_for_the_queue_is_known_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFileSystem::new(Fault::Errno(ENOSPC));
    let mut cache = open_on(disk_options(dir.path()), &files);
    // After every block the failure of those before is known: of each chain one is tried, the others wait.
    for tokens in [4, 8, 12, 16] {
        serve(&mut cache, &ALICE, &prompt(1, tokens));
        flush(&mut cache);
    }
    assert!(matches!(flush(&mut cache), FlushOutcome::Incomplete { blocks: 4, .. }));
    files.set(Fault::None);
    while flush(&mut cache) != FlushOutcome::Durable {}
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 16)), 16);
}

#[test]
fn a_read_only_disk_serves_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 8));
    let files = FaultyFileSystem::new(Fault::Errno(EROFS));
    let mut cache = open_on(disk_options(dir.path()), &files);
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
    serve(&mut cache, &ALICE, &prompt(2, 8));
    assert!(matches!(flush(&mut cache), FlushOutcome::Incomplete { blocks: 2, .. }));
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 8)), 8);
}

#[test]
fn a_directory_that_vanishes_degrades_and_one_that_returns_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cold(dir.path());
    fs::remove_dir_all(dir.path().join("tmp")).unwrap();
    fs::write(dir.path().join("tmp"), "in the way").unwrap();
    serve(&mut cache, &ALICE, &prompt(1, 4));
    assert!(matches!(flush(&mut cache), FlushOutcome::Incomplete { blocks: 1, .. }));
    assert!(cache.stats().disk.unwrap().degraded.is_some());
    fs::remove_file(dir.path().join("tmp")).unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    flush(&mut cache);
    assert_eq!(flush(&mut cache), FlushOutcome::Durable);
    assert_eq!(cache.stats().disk.unwrap().degraded, None);
}

#[test]
fn the_free_space_floor_makes_room_or_waits() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFileSystem::new(Fault::None);
    let mut options = disk_options(dir.path());
    options.disk.as_mut().unwrap().free_floor_bytes = 1_000_000;
    options.resident_bytes = 0;
    let mut cache = open_on(options, &files);
    serve(&mut cache, &ALICE, &prompt(1, 4));
    flush(&mut cache);
    *files.free_bytes.lock() = Some(1_000_100);
    serve(&mut cache, &ALICE, &prompt(2, 4));
    flush(&mut cache);
    let degraded = cache.stats().disk.unwrap().degraded.unwrap();
    assert!(degraded.contains("below the floor of 1000000"), "{degraded}");
    cache.poll();
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 4)), 0, "the coldest block made room");
    *files.free_bytes.lock() = Some(2_000_000);
    serve(&mut cache, &ALICE, &prompt(3, 4));
    assert_eq!(flush(&mut cache), FlushOutcome::Durable);
    assert_eq!(cache.stats().disk.unwrap().degraded, None);
}

#[test]
fn over_its_bound_the_write_queue_drops_and_counts_and_never_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = disk_options(dir.path());
    options.disk.as_mut().unwrap().write_queue_bytes = 1;
    let mut cache = PrefixCache::open(options).unwrap();
    serve(&mut cache, &ALICE, &prompt(1, 8));
    let stats = cache.stats();
    assert_eq!(stats.resident.blocks, 2);
    let writes = stats.disk.unwrap().writes;
    assert!(writes.dropped_blocks >= 2 && writes.queued_blocks == 0, "{writes:?}");
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
}

#[test]
fn a_stop_at_any_operation_loses_nothing_that_was_acknowledged() {
    let total = {
        let (dir, files) = (memory_dir(), FaultyFileSystem::new(Fault::None));
        write_three(dir.path(), &files);
        files.steps()
    };
    assert!(total >= 12, "{total}");
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
fn a_stop_that_also_sets_the_index_back_loses_nothing_that_was_acknowledged() {
    let total = {
        let (dir, files) = (memory_dir(), FaultyFileSystem::new(Fault::None));
        write_three(dir.path(), &files);
        files.steps()
    };
    for at in 0..total {
        let (dir, copies) = (memory_dir(), memory_dir());
        let files = FaultyFileSystem::new(Fault::CrashAt(at));
        *files.index_copies.lock() = Some((dir.path().join("index"), copies.path().to_owned()));
        let durable = write_three(dir.path(), &files);
        // The index of the moment of the stop, of one operation before, of half the way and of the beginning.
        let mut older: Vec<usize> = vec![0, at / 2, at.saturating_sub(1), at];
        older.dedup();
        for copy in older {
            let (store, index) = (memory_dir(), dir.path().join("index"));
            fs::remove_dir_all(&index).unwrap();
            copy_files(&copies.path().join(copy.to_string()), &index).unwrap();
            copy_files(dir.path(), store.path()).unwrap();
            let mut cache = cold(store.path());
            for (seed, durable) in (1..).zip(durable) {
                let found = check(&mut cache, &ALICE, &prompt(seed, 8));
                assert!(
                    found == 8 || !durable,
                    "stopped at {at}, index of {copy}: {found} of 8 tokens of {seed}"
                );
            }
            assert_eq!(cache.stats().disk.unwrap().quarantined, 0, "stopped at {at}, index of {copy}");
        }
    }
}

#[test]
fn a_directory_that_may_not_be_written_serves_what_it_has_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 8));
    let files = FaultyFileSystem::new(Fault::Errno(EACCES));
    let mut cache = open_on(disk_options(dir.path()), &files);
    serve(&mut cache, &ALICE, &prompt(2, 8));
    assert!(matches!(flush(&mut cache), FlushOutcome::Incomplete { blocks: 2, .. }));
    let degraded = cache.stats().disk.unwrap().degraded.unwrap();
    assert!(degraded.contains("Permission denied"), "{degraded}");
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 8)), 8);
    files.set(Fault::None);
    flush(&mut cache);
    assert_eq!((flush(&mut cache), cache.stats().disk.unwrap().degraded), (FlushOutcome::Durable, None));
}

/// Writes three prompts, one of which replaces a tail, and says which of them were acknowledged.
fn write_three(dir: &std::path::Path, files: &std::sync::Arc<FaultyFileSystem>) -> [bool; 3] {
    let mut cache = open_on(disk_options(dir), files);
    [1, 2, 3].map(|seed| {
        serve(&mut cache, &ALICE, &prompt(seed, 6));
        flush(&mut cache);
        serve(&mut cache, &ALICE, &prompt(seed, 8));
        flush(&mut cache) == FlushOutcome::Durable
    })
}
