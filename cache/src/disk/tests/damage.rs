//! Damaged files: a miss with a reason, the file in quarantine, never a wrong block.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::{ALICE, all_files, block_files, check, cold, flush, prompt};
use crate::testing::{assert_sound, cases, memory_dir, restore, serve};
use crate::{Miss, ReadError};

fn quarantined(dir: &Path) -> usize {
    let names = fs::read_dir(dir.join("quarantine")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| !name.to_str().unwrap().contains("window")).count()
}

/// A store of one block.
fn one_block(dir: &Path) {
    serve(&mut cold(dir), &ALICE, &prompt(1, 4));
}

/// Opens the store, expects the block not to come, and says why.
fn failure(dir: &Path) -> ReadError {
    let mut cache = cold(dir);
    let lookup = cache.lookup(&ALICE, &prompt(1, 4), 4);
    assert_eq!(lookup.tokens, 4, "the index still names it");
    let restored = restore(&mut cache, &lookup, 0);
    assert_eq!(restored.tokens, 0);
    flush(&mut cache);
    let (_, error) = restored.failure.unwrap();
    assert_eq!(cache.stats().disk.unwrap().quarantined, 1);
    assert_eq!(quarantined(dir), 1);
    let lookup = cache.lookup(&ALICE, &prompt(1, 4), 4);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::Quarantined { at: 0 }));
    // Computed again, it is whole again.
    serve(&mut cache, &ALICE, &prompt(1, 4));
    drop(cache);
    assert_eq!(check(&mut cold(dir), &ALICE, &prompt(1, 4)), 4);
    error
}

#[test]
fn a_flipped_bit_in_a_tensor_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    one_block(dir.path());
    for (file, tensor) in [(0, "1.k_scales"), (1, "0.window")] {
        let file = &all_files(dir.path())[file];
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
        assert!(matches!(failure(dir.path()), ReadError::Checksum(name) if name.contains(tensor)));
        fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
    }
}

#[test]
fn a_block_of_another_prompt_under_this_name_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    one_block(dir.path());
    let file = block_files(dir.path())[0].clone();
    let elsewhere = tempfile::tempdir().unwrap();
    serve(&mut cold(elsewhere.path()), &ALICE, &prompt(2, 4));
    let other = fs::read(&block_files(elsewhere.path())[0]).unwrap();
    assert_eq!(other.len() as u64, fs::metadata(&file).unwrap().len());
    fs::write(&file, other).unwrap();
    assert_eq!(failure(dir.path()), ReadError::Identity);
}

#[test]
fn a_symbolic_link_in_a_blocks_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    one_block(dir.path());
    let file = block_files(dir.path())[0].clone();
    let aside = dir.path().join("aside");
    let mut cache = cold(dir.path());
    fs::rename(&file, &aside).unwrap();
    symlink(&aside, &file).unwrap();
    let lookup = cache.lookup(&ALICE, &prompt(1, 4), 4);
    let restored = restore(&mut cache, &lookup, 0);
    assert_eq!(restored.failure.unwrap().1, ReadError::NotAFile);
    drop(cache);
    assert_eq!(quarantined(dir.path()), 1);
    assert!(aside.exists());
    // Found at start, it goes the same way.
    symlink(&aside, &file).unwrap();
    let mut cache = cold(dir.path());
    assert_eq!((check(&mut cache, &ALICE, &prompt(1, 4)), quarantined(dir.path())), (0, 2));
}

#[test]
fn a_symbolic_link_in_a_directorys_place_is_refused() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), dir.path().join("blocks")).unwrap();
    let error = crate::PrefixCache::open(crate::disk::testing::disk_options(dir.path())).err().unwrap();
    assert!(error.to_string().ends_with("blocks is a symbolic link, expected a directory"), "{error}");
}

#[test]
fn a_block_damaged_inside_a_chain_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = prompt(1, 16);
    let mut cache = cold(dir.path());
    serve(&mut cache, &ALICE, &prompt);
    let second = cache.lookup(&ALICE, &prompt, 16).hits[1].key.to_string();
    drop(cache);
    let file =
        block_files(dir.path()).into_iter().find(|path| path.to_str().unwrap().contains(&second)).unwrap();
    fs::write(&file, b"short").unwrap();
    let mut cache = cold(dir.path());
    assert_eq!(check(&mut cache, &ALICE, &prompt), 4);
    serve(&mut cache, &ALICE, &prompt[..8]);
    assert_eq!(check(&mut cache, &ALICE, &prompt), 16);
}

#[test]
fn a_file_that_vanished_is_a_miss_without_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    one_block(dir.path());
    let mut cache = cold(dir.path());
    fs::remove_file(&block_files(dir.path())[0]).unwrap();
    let lookup = cache.lookup(&ALICE, &prompt(1, 4), 4);
    assert_eq!(restore(&mut cache, &lookup, 0).failure.unwrap().1, ReadError::Gone);
    assert_eq!(cache.lookup(&ALICE, &prompt(1, 4), 4).tokens, 0);
    serve(&mut cache, &ALICE, &prompt(1, 4));
    flush(&mut cache);
    assert_eq!((block_files(dir.path()).len(), quarantined(dir.path())), (1, 0));
}

/// One way to damage the files of a store.
#[derive(Clone, Debug)]
enum Damage {
    Flip { file: usize, at: usize, bit: u8 },
    Cut { file: usize, at: usize },
    Grow { file: usize, bytes: Vec<u8> },
    Overwrite { file: usize, at: usize, bytes: Vec<u8> },
    Swap { a: usize, b: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let (file, at) = (any::<usize>(), any::<usize>());
    let some = || proptest::collection::vec(any::<u8>(), 1..24);
    prop_oneof![
        4 => (file, at, 0_u8..8).prop_map(|(file, at, bit)| Damage::Flip { file, at, bit }),
        // The length field and the start of the header, where lengths and names are.
        2 => (file, 0_usize..128, 0_u8..8).prop_map(|(file, at, bit)| Damage::Flip { file, at, bit }),
        2 => (file, at).prop_map(|(file, at)| Damage::Cut { file, at }),
        1 => (file, some()).prop_map(|(file, bytes)| Damage::Grow { file, bytes }),
        2 => (file, at, some()).prop_map(|(file, at, bytes)| Damage::Overwrite { file, at, bytes }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Damage::Swap { a, b }),
    ]
}

fn inflict(dir: &Path, damage: &Damage) {
    let files = all_files(dir);
    let edit = |file: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let path = &files[file % files.len()];
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    match damage {
        Damage::Flip { file, at, bit } => edit(*file, &|bytes| {
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= 1 << bit;
            }
        }),
        Damage::Cut { file, at } => edit(*file, &|bytes| bytes.truncate(at % (bytes.len() + 1))),
        Damage::Grow { file, bytes: more } => edit(*file, &|bytes| bytes.extend(more)),
        Damage::Overwrite { file, at, bytes: new } => edit(*file, &|bytes| {
            let at = at % (bytes.len() + 1);
            bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
        }),
        Damage::Swap { a, b } => {
            let (a, b) = (&files[a % files.len()], &files[b % files.len()]);
            let (x, y) = (fs::read(a).unwrap(), fs::read(b).unwrap());
            fs::write(a, y).unwrap();
            fs::write(b, x).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn whatever_happens_to_the_files_no_wrong_block_comes_back(
        damages in proptest::collection::vec(damage(), 1..6),
        lose_index in any::<bool>(),
        while_open in any::<bool>(),
        window_from in 0_usize..13,
    ) {
        let dir = memory_dir();
        let prompts = [prompt(1, 12), [prompt(1, 4), prompt(9, 6)].concat(), prompt(3, 9)];
        let mut cache = cold(dir.path());
        for prompt in &prompts {
            serve(&mut cache, &ALICE, prompt);
        }
        drop(cache);
        let mut early = while_open.then(|| cold(dir.path()));
        for damage in &damages {
            inflict(dir.path(), damage);
        }
        if lose_index && !while_open {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let mut cache = early.take().unwrap_or_else(|| cold(dir.path()));
        for _ in 0..2 {
            for prompt in &prompts {
                let lookup = cache.lookup(&ALICE, prompt, prompt.len());
                let restored = restore(&mut cache, &lookup, window_from);
                for brought in &restored.blocks {
                    assert_sound(&brought.block, prompt, brought.used_tokens, brought.has_window);
                }
                prop_assert_eq!(restored.failure.is_some(), restored.tokens < lookup.tokens);
            }
        }
        // Reading finds what is damaged, computing mends it: one block of a chain a round, at most.
        for prompt in &prompts {
            for _ in 0..3 {
                serve(&mut cache, &ALICE, prompt);
                check(&mut cache, &ALICE, prompt);
            }
            serve(&mut cache, &ALICE, prompt);
            prop_assert_eq!(check(&mut cache, &ALICE, prompt), prompt.len());
        }
    }
}
