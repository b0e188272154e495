//! Window parts: apart on disk, dropped before their blocks, and chains that go on without them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{ALICE, all_files, block_files, check, cold, flush, prompt};
use crate::disk::testing::disk_options;
use crate::testing::{assert_sound, memory_dir, restore, run, serve};
use crate::{CacheOptions, Dtype, Lookup, Miss, Part, Payload, PrefixCache, Restored, TensorBytes, Tuning};

const WINDOW_TOKENS: usize = 6;

fn window_files(dir: &Path) -> usize {
    all_files(dir).len() - block_files(dir).len()
}

fn open(options: CacheOptions) -> PrefixCache {
    let tuning = Tuning { window_tokens: Some(WINDOW_TOKENS), ..Tuning::default() };
    PrefixCache::open_tuned(options, tuning).unwrap()
}

/// Options with a disk budget of what is there, less some bytes, and nothing in RAM.
fn short_of(dir: &Path, bytes: u64) -> CacheOptions {
    let disk = cold(dir).stats().disk.unwrap();
    let mut options = disk_options(dir);
    options.resident_bytes = 0;
    options.disk.as_mut().unwrap().budget_bytes = disk.tier.bytes + disk.other_bytes - bytes;
    options
}

/// Restores what a lookup found as a server would: no window part that the next token cannot see.
fn restore_windowed(cache: &mut PrefixCache, lookup: &Lookup, prompt: &[u32]) -> Restored {
    let window_from = (lookup.tokens + 1).saturating_sub(WINDOW_TOKENS);
    let restored = restore(cache, lookup, window_from);
    for brought in &restored.blocks {
        assert_sound(&brought.block, prompt, brought.used_tokens, brought.has_window);
        assert!(brought.has_window || brought.block.end() <= window_from);
    }
    assert_eq!((restored.tokens, restored.failure.clone()), (lookup.tokens, None));
    restored
}

#[test]
fn for_room_window_parts_in_the_middle_of_a_chain_leave_before_any_block() {
    let dir = memory_dir();
    let prompt = prompt(1, 40);
    serve(&mut cold(dir.path()), &ALICE, &prompt);
    assert_eq!((block_files(dir.path()).len(), window_files(dir.path())), (10, 10));
    let mut cache = open(short_of(dir.path(), 1));
    cache.poll();
    flush(&mut cache);
    // One was enough; all of them leave as the budget asks for more.
    assert_eq!((block_files(dir.path()).len(), window_files(dir.path())), (10, 9));
    drop(cache);
    let mut cache = open(short_of(dir.path(), 6 * 4_096));
    flush(&mut cache);
    assert_eq!((block_files(dir.path()).len(), window_files(dir.path())), (10, 3));
    assert_eq!(cache.stats().dropped_windows, 6);
    let lookup = cache.lookup(&ALICE, &prompt, 39);
    assert_eq!(lookup.tokens, 39, "the end of the chain is as good as before");
    restore_windowed(&mut cache, &lookup, &prompt);
    drop(cache);
    // And after a restart, and after the index is lost.
    for lose_index in [false, true] {
        if lose_index {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let mut cache = open(disk_options(dir.path()));
        let lookup = cache.lookup(&ALICE, &prompt, 40);
        assert_eq!(lookup.tokens, 40, "index lost: {lose_index}");
        restore_windowed(&mut cache, &lookup, &prompt);
    }
}

#[test]
fn a_chain_whose_window_part_is_gone_restores_from_the_deepest_complete_point() {
    let dir = memory_dir();
    let prompt = prompt(1, 40);
    serve(&mut cold(dir.path()), &ALICE, &prompt);
    let windows: Vec<_> = cold(dir.path())
        .lookup(&ALICE, &prompt, 40)
        .hits
        .iter()
        .map(|hit| {
            let key = hit.key.to_string();
            dir.path().join("blocks").join(&key[..2]).join(format!("{key}.window.safetensors"))
        })
        .collect();
    // Blocks of 4 tokens, a window of 6: the end of block 7 needs blocks 6 and 7.
    fs::remove_file(&windows[8]).unwrap();
    let mut cache = open(disk_options(dir.path()));
    let lookup = cache.lookup(&ALICE, &prompt, 40);
    assert_eq!((lookup.tokens, lookup.miss), (32, Miss::Evicted { at: 32 }));
    restore_windowed(&mut cache, &lookup, &prompt);
    // The middle of a block counts as well: token 30 needs what 25 and later left.
    let lookup = cache.lookup(&ALICE, &prompt, 30);
    assert_eq!(lookup.tokens, 30);
    restore_windowed(&mut cache, &lookup, &prompt);
    drop(cache);
    fs::remove_file(&windows[6]).unwrap();
    let mut cache = open(disk_options(dir.path()));
    assert_eq!(cache.lookup(&ALICE, &prompt, 40).tokens, 24);
    assert_eq!(cache.lookup(&ALICE, &prompt, 24).tokens, 24);
    // Without a known window, every block needs its part.
    drop(cache);
    assert_eq!(cold(dir.path()).lookup(&ALICE, &prompt, 40).tokens, 24);
    // Computed again, the parts come back to stay.
    let mut cache = open(disk_options(dir.path()));
    let lookup = serve(&mut cache, &ALICE, &prompt);
    assert_eq!(lookup.tokens, 24);
    drop(cache);
    assert_eq!(window_files(dir.path()), 10);
    assert_eq!(check(&mut open(disk_options(dir.path())), &ALICE, &prompt), 40);
}

#[test]
fn window_parts_before_a_fork_and_of_living_sequences_stay() {
    let dir = memory_dir();
    let trunk = prompt(1, 24);
    let branches = [[trunk.clone(), prompt(2, 24)].concat(), [trunk.clone(), prompt(3, 24)].concat()];
    let mut cache = cold(dir.path());
    for branch in &branches {
        serve(&mut cache, &ALICE, branch);
    }
    drop(cache);
    // 9 may leave: 3 of the trunk, 3 of each branch. (The index grows by some pages, which asks for more than 6.)
    let mut cache = open(short_of(dir.path(), 6 * 4_096));
    let (_, lease) = run(&mut cache, &ALICE, &branches[0]);
    flush(&mut cache);
    assert!((6..=9).contains(&cache.stats().dropped_windows), "{:?}", cache.stats());
    assert_eq!(cache.stats().evicted_blocks, 0);
    let third = [trunk.clone(), prompt(4, 4)].concat();
    let lookup = cache.lookup(&ALICE, &third, 28);
    assert_eq!(lookup.tokens, 24, "a third branch starts where the others part");
    restore_windowed(&mut cache, &lookup, &third);
    drop(lease);
    cache.evict_resident();
    for branch in &branches {
        let lookup = cache.lookup(&ALICE, branch, 48);
        assert_eq!(lookup.tokens, 48);
        restore_windowed(&mut cache, &lookup, branch);
    }
}

#[test]
fn a_window_part_without_its_block_is_removed_at_start() {
    let dir = memory_dir();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 4));
    fs::remove_file(&block_files(dir.path())[0]).unwrap();
    assert_eq!(cold(dir.path()).lookup(&ALICE, &prompt(1, 4), 4).tokens, 0);
    assert!(all_files(dir.path()).is_empty());
}

#[test]
fn a_block_of_format_1_is_served_as_it_was_written() {
    let dir = memory_dir();
    let tokens = [5, 70_000, 6];
    // Its name is its key: fingerprint 7, the public tenant, no parent.
    let tenant = crate::Tenant::PUBLIC;
    let key =
        crate::BlockKey::derive(&disk_options(dir.path()).fingerprint, &tenant, None, &tokens).to_string();
    let shard = dir.path().join("blocks").join(&key[..2]);
    fs::create_dir_all(&shard).unwrap();
    fs::write(
        shard.join(format!("{key}.safetensors")),
        include_bytes!("../../../fixtures/v1-block.safetensors"),
    )
    .unwrap();
    for _ in 0..2 {
        let mut cache = open(disk_options(dir.path()));
        assert_eq!(check(&mut cache, &tenant, &tokens), 3);
        let lookup = cache.lookup(&tenant, &tokens, 3);
        assert_eq!(lookup.hits[0].block_tokens, 3);
    }
}

/// 8 full and 40 window layers of equal size: the shape of Gemma-3-12B.
fn gemma_payload(tokens: usize) -> Payload {
    let tensor = |layer: usize| TensorBytes {
        name: format!("{layer:03}"),
        part: if layer.is_multiple_of(6) { Part::Full } else { Part::Window },
        dtype: Dtype::U8,
        shape: vec![tokens, 64],
        data: vec![layer as u8; tokens * 64].into(),
    };
    Payload { tensors: (0..48).map(tensor).collect() }
}

#[test]
fn a_long_chain_of_a_model_with_five_window_layers_in_six_gets_five_times_smaller() {
    let dir = memory_dir();
    let mut options = disk_options(dir.path());
    options.block_tokens = 256;
    options.disk.as_mut().unwrap().write_queue_bytes = 1 << 30;
    let prompt: Vec<u32> = (0..32_768).collect();
    let tuning = || Tuning { window_tokens: Some(1_024), ..Tuning::default() };
    let mut cache = PrefixCache::open_tuned(options.clone(), tuning()).unwrap();
    let lookup = cache.lookup(&ALICE, &prompt, 0);
    let mut lease = cache.lease(&ALICE, &lookup);
    for tokens in prompt.chunks(256) {
        cache.insert(&mut lease, tokens, gemma_payload(tokens.len()));
    }
    drop(lease);
    cache.evict_resident();
    flush(&mut cache);
    let before = cache.stats().disk.unwrap();
    drop(cache);
    // All that may leave: 128 blocks less the five that a restore anywhere in the last block reaches.
    let window_bytes: u64 = all_files(dir.path())
        .iter()
        .filter(|path| path.to_str().unwrap().contains("window"))
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .max()
        .unwrap();
    let short_bytes = 122 * window_bytes + window_bytes / 2;
    options.disk.as_mut().unwrap().budget_bytes = before.tier.bytes + before.other_bytes - short_bytes;
    let mut cache = PrefixCache::open_tuned(options, tuning()).unwrap();
    flush(&mut cache);
    let after = cache.stats();
    assert_eq!(after.dropped_windows, 123);
    let after = after.disk.unwrap().tier;
    assert_eq!(after.blocks, 128);
    let ratio = before.tier.bytes as f64 / after.bytes as f64;
    assert!(ratio > 4.9, "{} to {} bytes", before.tier.bytes, after.bytes);
    assert_eq!(cache.lookup(&ALICE, &prompt, 32_767).tokens, 32_767);
}
