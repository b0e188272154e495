//! What is found again, and what is made of what else lies there.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{ALICE, BOB, all_files, block_files, check, cold, flush, prompt};
use crate::disk::testing::disk_options;
use crate::testing::{memory_dir, restore, serve};
use crate::{CacheError, Fingerprint, FlushOutcome, Miss, PrefixCache, Tier};

#[test]
fn a_restart_finds_every_token_again_tails_included() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 11);
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt);
    drop(cache);
    let mut cache = cold(dir.path());
    let lookup = cache.lookup(&ALICE, &prompt, 11);
    assert_eq!((lookup.tokens, lookup.miss), (11, Miss::Nothing));
    assert!(lookup.hits.iter().all(|hit| hit.tier == Tier::Disk));
    assert_eq!(check(&mut cache, &ALICE, &prompt), 11);
    // Absorbed: now from RAM, the same bytes.
    let again = cache.lookup(&ALICE, &prompt, 11);
    assert!(again.hits.iter().all(|hit| hit.tier == Tier::Resident));
    assert_eq!(check(&mut cache, &ALICE, &prompt), 11);
    assert_eq!(cache.lookup(&BOB, &prompt, 11).tokens, 0);
}

#[test]
fn of_blocks_that_share_as_much_the_one_in_ram_is_used() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &[1, 2, 5, 0]);
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &[1, 2, 3, 0]);
    let lookup = cache.lookup(&ALICE, &[1, 2, 9, 9], 4);
    assert_eq!((lookup.tokens, lookup.hits[0].tier), (2, Tier::Resident));
}

#[test]
fn blocks_are_durable_when_flush_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt(1, 9));
    assert_eq!(flush(&mut cache), FlushOutcome::Durable);
    let disk = cache.stats().disk.unwrap();
    assert_eq!((disk.tier.blocks, disk.tier.tokens, disk.writes.written_blocks), (3, 9, 3));
    assert_eq!(block_files(dir.path()).len(), 3);
}

#[test]
fn directories_and_files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("a/b");
    let mut cache = cold(&store);
    serve(&mut cache, &ALICE, &prompt(1, 4));
    flush(&mut cache);
    let file = &block_files(&store)[0];
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file), 0o600);
    assert_eq!(
        (mode(&store), mode(&store.join("blocks")), mode(file.parent().unwrap())),
        (0o700, 0o700, 0o700)
    );
}

#[test]
fn blocks_that_the_window_cannot_see_come_without_their_window_part() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 12);
    serve(&mut cold(dir.path()), &ALICE, &prompt);
    let mut cache = cold(dir.path());
    let lookup = cache.lookup(&ALICE, &prompt, 12);
    let restored = restore(&mut cache, &lookup, 8);
    assert_eq!(restored.blocks.iter().map(|b| b.has_window).collect::<Vec<_>>(), [false, false, true]);
    for brought in &restored.blocks {
        crate::testing::assert_sound(&brought.block, &prompt, brought.used_tokens, brought.has_window);
    }
    // Only the complete one became resident.
    assert_eq!(cache.stats().resident.blocks, 1);
    assert_eq!(check(&mut cache, &ALICE, &prompt), 12);
}

#[test]
fn a_lost_index_is_rebuilt_from_the_blocks() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 11));
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 11)), 11);
    // And written: the next start needs no header.
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 11)), 11);
}

#[test]
fn a_damaged_index_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 11));
    for seed in 0..4_u8 {
        for entry in fs::read_dir(dir.path().join("index")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let mut bytes = fs::read(&path).unwrap();
                bytes.iter_mut().step_by(61).for_each(|byte| *byte ^= 0x55 ^ seed);
                fs::write(&path, &bytes).unwrap();
            }
        }
        assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 11)), 11, "seed {seed}");
    }
}

#[test]
fn an_index_of_a_newer_build_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(cold(dir.path()));
    let db = sled::open(dir.path().join("index")).unwrap();
    db.open_tree("meta").unwrap().insert("version", &99_u32.to_le_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let error = PrefixCache::open(disk_options(dir.path())).err().unwrap().to_string();
    assert!(error.contains("index version 99 found, this build knows versions up to 3"), "{error}");
}

#[test]
fn a_second_opener_is_refused_with_the_directory_and_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let first = cold(dir.path());
    let error = PrefixCache::open(disk_options(dir.path())).err().unwrap();
    assert!(matches!(error, CacheError::Locked { .. }), "{error}");
    let text = error.to_string();
    let holder = format!("process {}", std::process::id());
    assert!(text.contains(&holder) && text.contains(dir.path().to_str().unwrap()), "{text}");
    drop(first);
    drop(cold(dir.path()));
}

#[test]
fn another_models_blocks_stay_are_counted_and_never_hit() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 8));
    let mut other = disk_options(dir.path());
    other.fingerprint = Fingerprint::from_bytes([8; 32]);
    let mut cache = PrefixCache::open(other.clone()).unwrap();
    let lookup = cache.lookup(&ALICE, &prompt(1, 8), 8);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::OtherFingerprint { at: 0 }));
    let disk = cache.stats().disk.unwrap();
    assert_eq!((disk.stray_blocks, disk.tier.blocks), (2, 0));
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 8)), 8);
    // They make room when the budget asks for it, oldest first.
    other.disk.as_mut().unwrap().budget_bytes = 1;
    let cache = PrefixCache::open(other).unwrap();
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 0);
    drop(cache);
    assert!(block_files(dir.path()).is_empty());
}

#[test]
fn blocks_that_lost_their_parent_come_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 12);
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt);
    let root = cache.lookup(&ALICE, &prompt, 4).hits[0].key.to_string();
    drop(cache);
    let file =
        block_files(dir.path()).into_iter().find(|path| path.to_str().unwrap().contains(&root)).unwrap();
    fs::remove_file(file).unwrap();
    let mut cache = cold(dir.path());
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 2);
    assert_eq!(check(&mut cache, &ALICE, &prompt), 0);
    serve(&mut cache, &ALICE, &prompt[..4]);
    assert_eq!(check(&mut cache, &ALICE, &prompt), 12);
    assert_eq!(cache.stats().disk.unwrap().stray_blocks, 0);
}

#[test]
fn recency_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cold(dir.path());
    for seed in 1..=3 {
        serve(&mut cache, &ALICE, &prompt(seed, 4));
    }
    flush(&mut cache);
    let block_bytes = cache.stats().disk.unwrap().tier.bytes / 3;
    cache.lookup(&ALICE, &prompt(1, 4), 4);
    drop(cache);
    let mut options = disk_options(dir.path());
    let probe = cold(dir.path());
    let used = probe.stats().disk.unwrap();
    drop(probe);
    options.disk.as_mut().unwrap().budget_bytes = used.tier.bytes + used.other_bytes - block_bytes;
    let mut cache = PrefixCache::open(options).unwrap();
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 4)), 0, "the least recently used one left");
    assert_eq!(check(&mut cache, &ALICE, &prompt(1, 4)), 4);
    assert_eq!(check(&mut cache, &ALICE, &prompt(3, 4)), 4);
}

#[test]
fn clearing_empties_the_disk_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt(1, 12));
    cache.clear();
    assert_eq!(flush(&mut cache), FlushOutcome::Durable);
    assert!(block_files(dir.path()).is_empty());
    let disk = cache.stats().disk.unwrap();
    assert_eq!((disk.tier.blocks, disk.writes.queued_blocks), (0, 0));
    serve(&mut cache, &ALICE, &prompt(1, 12));
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 12)), 12);
}

#[test]
fn a_superseded_tail_leaves_the_disk_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt(1, 6));
    flush(&mut cache);
    serve(&mut cache, &ALICE, &prompt(1, 8));
    flush(&mut cache);
    assert_eq!(block_files(dir.path()).len(), 2);
    assert_eq!(cache.stats().disk.unwrap().tier.tokens, 8);
}

#[test]
fn the_disk_budget_holds_in_allocated_bytes() {
    let dir = memory_dir();
    let mut options = disk_options(dir.path());
    options.resident_bytes = 0;
    let probe = PrefixCache::open(options.clone()).unwrap();
    let other = probe.stats().disk.unwrap().other_bytes;
    drop(probe);
    let budget = other + (1 << 20);
    options.disk.as_mut().unwrap().budget_bytes = budget;
    let mut cache = PrefixCache::open(options).unwrap();
    for seed in 0..400 {
        serve(&mut cache, &ALICE, &prompt(seed, 8));
        if seed % 16 == 0 {
            flush(&mut cache);
        }
    }
    flush(&mut cache);
    cache.poll();
    flush(&mut cache);
    let disk = cache.stats().disk.unwrap();
    let stored: u64 = all_files(dir.path())
        .iter()
        .map(|path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512)
        .sum();
    assert_eq!(stored, disk.tier.bytes);
    assert!(disk.tier.bytes + disk.other_bytes <= budget, "{disk:?} over {budget}");
    assert!(disk.tier.blocks > 20 && cache.stats().evicted_blocks > 100, "{:?}", cache.stats());
}
