//! A store from outside, while nobody uses it and while somebody does.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::disk::testing::{disk_options, open as open_cache};
use crate::payload::Part;
use crate::testing::{memory_dir, restore, serve};
use crate::{Fingerprint, Pin, PrefixCache, Tenant};

const ALICE: Tenant = Tenant::from_bytes([1; 32]);

fn prompt(seed: u32, tokens: u32) -> Vec<u32> {
    (0..tokens).map(|position| seed * 1_000 + position).collect()
}

fn filled(dir: &Path) {
    let mut cache = open_cache(dir);
    for seed in 1..=3 {
        serve(&mut cache, &ALICE, &prompt(seed, 12));
    }
}

fn open(dir: &Path, purpose: Purpose) -> Result<Inspector, CacheError> {
    Inspector::open(dir, purpose, &mut |_, _| {})
}

fn shown(store: &Inspector, key: &BlockKey) -> BlockDetail {
    let Detail::Block(detail) = store.show(key).unwrap() else { panic!("{key} is no block") };
    detail
}

fn known(cache: &mut PrefixCache, seed: u32) -> usize {
    let lookup = cache.lookup(&ALICE, &prompt(seed, 12), 12);
    restore(cache, &lookup, 0).tokens
}

#[test]
fn a_store_is_listed_block_by_block_and_as_a_whole() {
    let dir = memory_dir();
    filled(dir.path());
    let store = open(dir.path(), Purpose::Read).unwrap();
    let (blocks, summary) = (store.blocks(), store.summary());
    assert_eq!((blocks.len(), summary.blocks, summary.tokens), (9, 9, 36));
    assert_eq!((summary.tenants, summary.fingerprints.len(), summary.orphan_blocks), (1, 1, 0));
    assert!(blocks.iter().all(|block| block.window == WindowState::Apart && block.hits == Some(1)));
    // A chain stands together, in order.
    assert_eq!(blocks.iter().map(|block| block.start).collect::<Vec<_>>(), [0, 4, 8, 0, 4, 8, 0, 4, 8]);
    assert_eq!(blocks[1].parent, Some(blocks[0].key.to_string()));
    let key = store.find(&blocks[1].key.to_string()[..12]).unwrap();
    let detail = shown(&store, &key);
    assert_eq!((detail.children, detail.token_ids.len(), detail.tensors.len()), (1, 4, 3));
    assert_eq!(
        detail.tensors.iter().map(|tensor| tensor.part).collect::<Vec<_>>(),
        ["full", "full", "window"]
    );
    assert!(serde_json::to_string(&detail).unwrap().contains(&key.to_string()));
}

#[test]
fn a_name_that_names_nothing_or_too_much_is_refused_by_name() {
    let dir = memory_dir();
    filled(dir.path());
    let store = open(dir.path(), Purpose::Read).unwrap();
    assert!(matches!(store.find("xyz"), Err(NameError::NotAKey(_))));
    let absent = "0".repeat(64);
    assert_eq!(store.find(&absent), Err(NameError::Unknown(absent)));
    let digits = "0123456789abcdef".chars().map(String::from);
    // Nine keys, sixteen digits: some digit may start several.
    let ambiguous =
        digits.filter(|digit| matches!(store.find(digit), Err(NameError::Ambiguous { .. }))).count();
    let firsts: HashSet<char> =
        store.blocks().iter().filter_map(|block| block.key.to_string().chars().next()).collect();
    assert!(ambiguous > 0 || firsts.len() == 9);
}

#[test]
fn while_a_server_uses_it_a_store_can_be_read_and_not_changed() {
    let dir = memory_dir();
    filled(dir.path());
    let mut cache = open_cache(dir.path());
    let mut store = open(dir.path(), Purpose::Read).unwrap();
    assert_eq!(store.used_by(), Some(format!("process {}", std::process::id()).as_str()));
    assert_eq!((store.blocks().len(), store.blocks()[0].hits), (9, None));
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().sound, 9);
    let error = open(dir.path(), Purpose::Change).err().unwrap();
    assert!(matches!(error, CacheError::Locked { .. }), "{error}");
    for refused in [store.clear().err(), store.pin(&store.blocks()[0].key, Pin::Forever).err()] {
        assert!(matches!(refused, Some(CacheError::Locked { .. })), "{refused:?}");
    }
    assert_eq!(known(&mut cache, 1), 12);
}

#[test]
fn what_is_no_store_is_not_made_one() {
    let dir = memory_dir();
    assert!(open(dir.path(), Purpose::Read).is_err());
    assert!(open(&dir.path().join("absent"), Purpose::Change).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn verify_finds_what_is_damaged_and_puts_it_aside() {
    let dir = memory_dir();
    filled(dir.path());
    let keys: Vec<BlockKey> =
        open(dir.path(), Purpose::Read).unwrap().blocks().iter().map(|block| block.key).collect();
    let directory = Directory::look(dir.path()).unwrap();
    for (key, part) in [(keys[2], Part::Full), (keys[5], Part::Window)] {
        let path = directory.path(&key, part);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let mut seen = Vec::new();
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    let report = store.verify(&mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!((report.blocks, report.sound, report.damaged.len(), report.quarantined), (9, 7, 2, 2));
    assert!(report.damaged.iter().all(|damage| damage.reason.contains("checksum")));
    assert_eq!((seen.len(), seen.last()), (9, Some(&(9, 9))));
    assert_eq!(store.summary().blocks, 7);
    drop(store);
    let mut cache = open_cache(dir.path());
    let mut tokens: Vec<usize> = (1..=3).map(|seed| known(&mut cache, seed)).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [8, 8, 12]);
}

#[test]
fn a_pin_from_outside_holds_in_the_server_and_can_be_taken_back() {
    let dir = memory_dir();
    filled(dir.path());
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    let (first, last) = (store.blocks()[0].key, store.blocks()[2].key);
    store.pin(&last, Pin::Forever).unwrap();
    let report = store.collect(&Collection { budget_bytes: Some(0), ..Collection::default() }).unwrap();
    assert_eq!((report.over_budget_blocks, store.blocks().len()), (6, 3));
    drop(store);
    let mut options = disk_options(dir.path());
    options.disk.as_mut().unwrap().budget_bytes = 1;
    let cache = PrefixCache::open(options.clone()).unwrap();
    assert_eq!((cache.stats().retained_blocks, cache.stats().disk.unwrap().tier.blocks), (1, 3));
    drop(cache);
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    assert!(shown(&store, &last).block.pinned && !shown(&store, &first).block.pinned);
    store.pin(&last, Pin::For(Duration::ZERO)).unwrap();
    store.pin(&last, Pin::None).unwrap();
    drop(store);
    assert_eq!(PrefixCache::open(options).unwrap().stats().disk.unwrap().tier.blocks, 0);
}

#[test]
fn collecting_removes_orphans_foreign_blocks_and_the_quarantine() {
    let dir = memory_dir();
    filled(dir.path());
    let mut other = disk_options(dir.path());
    other.fingerprint = Fingerprint::from_bytes([8; 32]);
    serve(&mut PrefixCache::open(other.clone()).unwrap(), &ALICE, &prompt(1, 8));
    let root = open(dir.path(), Purpose::Read).unwrap().blocks()[0].clone();
    let directory = Directory::look(dir.path()).unwrap();
    fs::write(directory.quarantine().join("old"), "damaged").unwrap();
    fs::remove_file(directory.path(&root.key, Part::Full)).unwrap();
    let ours = disk_options(dir.path()).fingerprint;
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    let wanted = Collection { only: Some(ours), dry_run: true, ..Collection::default() };
    let planned = store.collect(&wanted).unwrap();
    assert_eq!(store.summary().blocks, 10);
    let report = store.collect(&Collection { dry_run: false, ..wanted }).unwrap();
    assert_eq!(planned, report);
    // Two blocks stood on the lost one; of the foreign chain the second counts as standing on the first.
    assert_eq!((report.orphan_blocks, report.foreign_blocks), (3, 1));
    assert_eq!((report.removed.blocks, report.removed.quarantine_files), (4, 1));
    assert_eq!((store.summary().blocks, store.summary().quarantine_files), (6, 0));
}

#[test]
fn a_store_is_not_copied_into_itself() {
    let dir = memory_dir();
    filled(dir.path());
    let link =
        dir.path().parent().unwrap().join(format!("{}-link", dir.path().file_name().unwrap().display()));
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    for own in [dir.path().to_owned(), dir.path().join("blocks/copy"), link.clone(), link.join("copy")] {
        let error = store.export(&own, &[], &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("the store that is exported"), "{error}");
        let error = store.import(&own, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("the store that imports"), "{error}");
    }
    assert!(!dir.path().join("blocks/copy").exists());
    fs::remove_file(link).unwrap();
}

#[test]
fn an_export_is_a_store_and_an_import_takes_only_what_is_sound() {
    let (dir, copy, third) = (memory_dir(), memory_dir(), memory_dir());
    filled(dir.path());
    let store = open(dir.path(), Purpose::Read).unwrap();
    let end = store.blocks()[2].key;
    let report = store.export(copy.path(), &[end], &mut |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.known), (3, 0));
    let report = store.export(copy.path(), &[], &mut |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.known), (6, 3));
    drop(store);
    assert_eq!(known(&mut open_cache(copy.path()), 1), 12);
    let directory = Directory::look(copy.path()).unwrap();
    fs::write(directory.path(&end, Part::Full), "nonsense").unwrap();
    drop(open_cache(third.path()));
    let mut store = open(third.path(), Purpose::Change).unwrap();
    let report = store.import(copy.path(), &mut |_, _| {}).unwrap();
    assert_eq!((report.blocks, report.refused.len()), (8, 1));
    assert_eq!(store.import(copy.path(), &mut |_, _| {}).unwrap().known, 8);
    drop(store);
    let mut cache = open_cache(third.path());
    let mut tokens: Vec<usize> = (1..=3).map(|seed| known(&mut cache, seed)).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [8, 12, 12]);
}

#[test]
fn rebuilding_makes_the_index_anew_and_says_how_far_it_is() {
    let dir = memory_dir();
    filled(dir.path());
    let mut seen = Vec::new();
    let store = Inspector::rebuild(dir.path(), &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!((store.summary().blocks, seen.last()), (9, Some(&(9, 9))));
    assert!(seen.len() >= 9);
    drop(store);
    assert_eq!(known(&mut open_cache(dir.path()), 2), 12);
    let _server = open_cache(dir.path());
    assert!(matches!(Inspector::rebuild(dir.path(), &mut |_, _| {}), Err(CacheError::Locked { .. })));
}

#[test]
fn clearing_leaves_an_empty_store() {
    let dir = memory_dir();
    filled(dir.path());
    let mut store = open(dir.path(), Purpose::Change).unwrap();
    let removed = store.clear().unwrap();
    assert_eq!((removed.blocks, store.blocks().len()), (9, 0));
    drop(store);
    assert_eq!(known(&mut open_cache(dir.path()), 1), 0);
}
