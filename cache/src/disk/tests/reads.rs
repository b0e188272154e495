//! A disk that does not give what it has: serving goes on, the state is said, and it passes by itself.

use std::time::Duration;

use super::{ALICE, check, cold, flush, prompt};
use crate::disk::testing::{Fault, FaultyFileSystem, ReadFault, disk_options, open_tuned_on};
use crate::testing::{restore, serve};
use crate::{Miss, PrefixCache, ReadError, Tuning};

const EIO: i32 = 5;

fn tuning() -> Tuning {
    Tuning { read_stall: Duration::ZERO, read_retry: Duration::ZERO, ..Tuning::default() }
}

fn open(dir: &std::path::Path, files: &std::sync::Arc<FaultyFileSystem>, tuning: Tuning) -> PrefixCache {
    open_tuned_on(disk_options(dir), tuning, files)
}

fn degraded(cache: &PrefixCache) -> Option<String> {
    cache.stats().disk.unwrap().degraded
}

#[test]
fn a_read_error_is_a_miss_with_a_reason_and_passes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 12));
    let files = FaultyFileSystem::new(Fault::None);
    let never = Tuning { read_retry: Duration::MAX, ..tuning() };
    let mut cache = open(dir.path(), &files, never);
    *files.reads.lock() = ReadFault::Errno(EIO);
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    let restored = restore(&mut cache, &lookup, 0);
    assert!(matches!(restored.failure, Some((_, ReadError::Io(_)))), "{:?}", restored.failure);
    assert!(degraded(&cache).unwrap().contains("Input/output error"));
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    assert_eq!((lookup.tokens, lookup.miss), (0, Miss::Unreadable { at: 0 }));
    // It goes on serving, and writing.
    serve(&mut cache, &ALICE, &prompt(2, 8));
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 8)), 8);
    flush(&mut cache);
    drop(cache);
    // After the retry time the blocks are back.
    *files.reads.lock() = ReadFault::Errno(EIO);
    let mut cache = open(dir.path(), &files, tuning());
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    restore(&mut cache, &lookup, 0);
    *files.reads.lock() = ReadFault::None;
    cache.poll();
    assert_eq!((check(&mut cache, &ALICE, &prompt(1, 12)), degraded(&cache)), (12, None));
    assert_eq!(cache.stats().disk.unwrap().quarantined, 0);
}

#[test]
fn a_stalled_read_keeps_nobody_waiting_and_passes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 12));
    let files = FaultyFileSystem::new(Fault::None);
    let mut options = disk_options(dir.path());
    options.disk.as_mut().unwrap().readers = 1;
    let mut cache = open_tuned_on(options, tuning(), &files);
    let (hold, held) = crossbeam_channel::bounded(0);
    *files.reads.lock() = ReadFault::Stall(held);
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    assert_eq!(lookup.tokens, 12);
    let (send, receive) = crossbeam_channel::unbounded();
    cache.restore(&lookup, 0, Box::new(move |restored| send.send(restored).unwrap()));
    let restored = loop {
        cache.poll();
        if let Ok(restored) = receive.try_recv() {
            break restored;
        }
    };
    cache.absorb(&restored);
    assert!(matches!(&restored.failure, Some((_, ReadError::Io(reason))) if reason.contains("longer than")));
    assert_eq!(cache.lookup(&ALICE, &prompt(1, 12), 12).miss, Miss::Unreadable { at: 0 });
    // The reader is stuck: that is said, and everything else works.
    cache.poll();
    assert_eq!(degraded(&cache).unwrap(), "the cache's disk does not answer reads");
    serve(&mut cache, &ALICE, &prompt(2, 8));
    assert_eq!(check(&mut cache, &ALICE, &prompt(2, 8)), 8);
    // The disk answers again.
    *files.reads.lock() = ReadFault::None;
    drop(hold);
    while degraded(&cache).is_some() {
        cache.poll();
    }
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    assert_eq!(lookup.tokens, 12);
    drop(cache);
    assert_eq!(check(&mut cold(dir.path()), &ALICE, &prompt(1, 12)), 12);
}

#[test]
fn a_cache_over_a_disk_that_never_answers_can_be_closed() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 4));
    let files = FaultyFileSystem::new(Fault::None);
    let mut cache = open(dir.path(), &files, tuning());
    let (_hold, held) = crossbeam_channel::bounded::<()>(0);
    *files.reads.lock() = ReadFault::Stall(held);
    let lookup = cache.lookup(&ALICE, &prompt(1, 4), 4);
    let (send, receive) = crossbeam_channel::unbounded();
    cache.restore(&lookup, 0, Box::new(move |restored| send.send(restored).unwrap()));
    while receive.is_empty() {
        cache.poll();
    }
    drop(cache);
}

#[test]
fn the_time_of_a_restore_is_divided_between_reading_and_verifying() {
    let dir = tempfile::tempdir().unwrap();
    serve(&mut cold(dir.path()), &ALICE, &prompt(1, 12));
    let mut cache = cold(dir.path());
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    let read = restore(&mut cache, &lookup, 0);
    assert!(read.read > Duration::ZERO && read.verify > Duration::ZERO, "{read:?}");
    assert_eq!(read.read + read.verify, read.elapsed);
    let lookup = cache.lookup(&ALICE, &prompt(1, 12), 12);
    let resident = restore(&mut cache, &lookup, 0);
    assert_eq!((resident.tokens, resident.read, resident.verify), (12, Duration::ZERO, Duration::ZERO));
}
