//! The race: a thread that saved blocks evaluated arrays while the batch decoded, and answers came out empty, ended
//! early, or were another row's.
//!
//! Protections: only the scheduler's thread can touch arrays (a token that no other thread can hold, see `gate`), a
//! block's bytes are copied out before the next step, and every row exports its own. Shown by exporting row 0 for every
//! row (`keep_blocks(row, &batch, 0, ..)` in `scheduler/decode.rs`): blocks then hold another row's tokens, and this test
//! fails within a few rounds.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use prefixd::mlx::LoadOptions;
use prefixd::prompt::ModelText;
use prefixd::scheduler::{Event, Request, SchedulerOptions, Stream};
use prefixd_cache::{CacheOptions, DiskOptions};

use super::support::{alone, chat, clerk, collect, handbook, request, start, stop};

const ROUNDS: usize = 200;
const BLOCK: usize = 64;

/// How the second request of a round meets the first.
#[derive(Clone, Copy)]
enum Arrival {
    Together,
    Later(Duration),
    DuringPrefill,
    DuringDecode(usize),
}

const ARRIVALS: [Arrival; 4] = [
    Arrival::Together,
    Arrival::Later(Duration::from_millis(15)),
    Arrival::DuringPrefill,
    Arrival::DuringDecode(5),
];

/// Waits until `first`, whose answer has `length` tokens, is as far as the arrival wants it and not at its end; gives back the
/// tokens read meanwhile.
fn meet(arrival: Arrival, first: &mut Stream, length: usize) -> Vec<u32> {
    let wanted = match arrival {
        Arrival::Together | Arrival::DuringPrefill => 0,
        Arrival::Later(stagger) => {
            // The stagger is the condition under test, not a wait for a result.
            let (_never, timer) = mpsc::channel::<()>();
            timer.recv_timeout(stagger).ok();
            0
        }
        Arrival::DuringDecode(tokens) => tokens.min(length - 1),
    };
    let mut tokens = Vec::new();
    while tokens.len() < wanted {
        match first.blocking_next() {
            Some(Event::Started(_)) => {}
            Some(Event::Token(token)) => tokens.push(token.id),
            other => panic!("ended before its {wanted}th token: {other:?}"),
        }
    }
    tokens
}

#[test]
fn saves_evictions_and_arrivals_leave_every_answer_alone() {
    let text = ModelText::open(&clerk()).unwrap();
    let never: Arc<[u32]> = Arc::from([]);
    let requests: Vec<Request> = (0..10)
        .map(|i| {
            // Two questions to each of five handbooks of 1,000 to 2,000 tokens. Some answers go on past their end, so
            // that rows decode side by side for long and blocks complete while they do.
            let handbook = handbook(i / 2, 540 + 115 * (i / 2));
            let question =
                ["Who has the door code 10000?", "What is the badge number of Elena Marsh?"][i % 2];
            let stops = if i % 3 == 0 { &text.stop_tokens } else { &never };
            request(chat(&text, &handbook, question), 90, stops)
        })
        .collect();
    let lengths: Vec<usize> = requests.iter().map(|request| request.prompt.len()).collect();
    assert!(lengths.iter().all(|length| (1000..2100).contains(length)), "{lengths:?}");
    let reference = alone();
    let expected: Vec<_> =
        requests.iter().map(|request| collect(reference.handle().submit(request.clone()).unwrap())).collect();
    stop(reference);
    assert!(expected.iter().all(|answer| !answer.tokens.is_empty()));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let options = SchedulerOptions { max_batch: 2, block_tokens: BLOCK, ..SchedulerOptions::default() };
    let load = LoadOptions { block_tokens: BLOCK, ..LoadOptions::default() };
    let scheduler = start(&clerk(), load, options, move |fingerprint| {
        // Room for about two handbooks in memory and two or three on disk: something is always evicted.
        let disk = DiskOptions {
            dir: path,
            budget_bytes: 10 << 20,
            free_floor_bytes: 0,
            write_queue_bytes: 64 << 20,
            readers: 2,
        };
        Some(CacheOptions { fingerprint, block_tokens: BLOCK, resident_bytes: 5 << 20, disk: Some(disk) })
    });
    let handle = scheduler.handle();
    let mut random = 7_usize;
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (one, two) = ((random >> 33) % 10, (random >> 45) % 10);
        let mut first = handle.submit(requests[one].clone()).unwrap();
        let begun = meet(ARRIVALS[round % ARRIVALS.len()], &mut first, expected[one].tokens.len());
        let second = handle.submit(requests[two].clone()).unwrap();
        let second = std::thread::spawn(move || collect(second));
        let mut answer = collect(first);
        answer.tokens.splice(0..0, begun);
        assert_eq!(answer, expected[one], "round {round}: request {one}, met by {two}");
        assert_eq!(second.join().unwrap(), expected[two], "round {round}: request {two}, after {one}");
    }
    let handle = handle.clone();
    stop(scheduler);
    // The conditions were there: blocks were found in both tiers, written, and evicted all along.
    let status = handle.status();
    let cache = status.cache.clone();
    let disk = cache.disk.unwrap();
    assert!(cache.resident_hit_tokens > 10_000 && cache.disk_hit_tokens > 10_000, "{status:?}");
    assert!(cache.evicted_blocks > 40 && disk.writes.written_blocks > 100, "{status:?}");
    assert_eq!((status.failed, status.cancelled, cache.pinned_blocks), (0, 0, 0));
}
