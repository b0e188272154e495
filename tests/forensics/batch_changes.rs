//! Grouped heads and a changing batch: when the batch shrank in mid-decode, masks and shapes of the larger one were used
//! once more, and grouped key heads were repeated for the wrong number of rows.
//!
//! Protections: rows share no storage and no mask, and every change of the batch evaluates before it returns. Shown by
//! leaving out `self.filter(&keep)` in `scheduler/decode.rs` (a row too many), or by keeping rows in another order than
//! the batch (`filter(&keep)` with `keep` reversed): answers change, or the step is refused.

use std::sync::Arc;

use prefixd::mlx::LoadOptions;
use prefixd::prompt::ModelText;
use prefixd::scheduler::{Event, Request, SchedulerOptions, Stream};

use super::support::{Answer, alone, chat, clerk, collect, handbook, request, root, start, stop};

/// The next `count` tokens of a stream.
fn read(stream: &mut Stream, count: usize) -> Vec<u32> {
    let mut tokens = Vec::new();
    while tokens.len() < count {
        match stream.blocking_next() {
            Some(Event::Started(_)) => {}
            Some(Event::Token(token)) => tokens.push(token.id),
            other => panic!("unexpected {other:?}"),
        }
    }
    tokens
}

#[test]
fn rows_that_leave_and_join_change_nobody_s_answer() {
    let text = ModelText::open(&clerk()).unwrap();
    let never: Arc<[u32]> = Arc::from([]);
    // The first stays throughout and is left at the end; the others end at different steps, and three more come when it
    // is alone.
    let shapes = [(500, 12_000), (700, 6), (120, 19), (350, 40), (60, 30), (640, 45), (240, 25)];
    let requests: Vec<Request> = shapes
        .iter()
        .enumerate()
        .map(|(i, (words, max_tokens))| {
            request(chat(&text, &handbook(i, *words), "Who is in room 1?"), *max_tokens, &never)
        })
        .collect();
    let reference = alone();
    let solo = |request: &Request| collect(reference.handle().submit(request.clone()).unwrap());
    let expected: Vec<Answer> = requests[1..].iter().map(solo).collect();

    let options = SchedulerOptions { max_batch: 4, ..SchedulerOptions::default() };
    let scheduler = start(&clerk(), LoadOptions::default(), options, |_| None);
    let handle = scheduler.handle();
    let submit = |i: usize| handle.submit(requests[i].clone()).unwrap();
    let mut first = submit(0);
    let mut begun = read(&mut first, 3);
    // Every step from here on brings it one token.
    let steps = handle.status().steps;
    for together in [1..4, 4..7] {
        let streams: Vec<Stream> = together.clone().map(submit).collect();
        for (i, stream) in together.zip(streams) {
            assert_eq!(collect(stream), expected[i - 1], "request {i}");
        }
        while handle.status().decoding > 1 {
            std::thread::yield_now();
        }
        assert_eq!(handle.status().decoding, 1, "the first row saw them all");
        // Only the first is left: what it computed beside the others, and some steps by itself.
        let made = 3 + handle.status().steps - steps + 20;
        begun.extend(read(&mut first, made as usize - begun.len()));
    }
    drop(first);
    stop(scheduler);
    let as_long = solo(&Request { max_tokens: begun.len(), ..requests[0].clone() });
    assert_eq!(begun, as_long.tokens, "the row that saw them all come and go");
    stop(reference);
}

#[test]
fn every_family_and_setting_survives_four_three_one_four() {
    let never: Arc<[u32]> = Arc::from([]);
    for case in ["llama3", "qwen3", "gemma3"] {
        let dir = root().join("tests/golden").join(case);
        let load = LoadOptions { kv: "16".parse().unwrap(), ..LoadOptions::default() };
        let prompt = |i: u32, length: u32| (0..length).map(|at| (at * 31 + i * 17 + 5) % 250).collect();
        // Ends after 4, 9 and 14 tokens; the last stays for 40, then three more come.
        let shapes = [(70, 4), (33, 9), (90, 14), (50, 40), (20, 12), (81, 12), (5, 12)];
        let requests: Vec<Request> = (0..)
            .zip(shapes)
            .map(|(i, (length, max_tokens))| request(prompt(i, length), max_tokens, &never))
            .collect();
        let single = SchedulerOptions { max_batch: 1, ..SchedulerOptions::default() };
        let reference = start(&dir, load, single, |_| None);
        let expected: Vec<Answer> = requests
            .iter()
            .map(|request| collect(reference.handle().submit(request.clone()).unwrap()))
            .collect();
        stop(reference);
        let options = SchedulerOptions { max_batch: 4, ..SchedulerOptions::default() };
        let scheduler = start(&dir, load, options, |_| None);
        let mut streams: Vec<Stream> =
            requests[..4].iter().map(|request| scheduler.handle().submit(request.clone()).unwrap()).collect();
        let mut stayer = streams.pop().unwrap();
        for (i, stream) in streams.into_iter().enumerate() {
            assert_eq!(collect(stream), expected[i], "{case}, request {i}");
        }
        let begun = read(&mut stayer, 16);
        let late: Vec<Stream> =
            requests[4..].iter().map(|request| scheduler.handle().submit(request.clone()).unwrap()).collect();
        for (stream, expected) in late.into_iter().zip(&expected[4..]) {
            assert_eq!(collect(stream), *expected, "{case}, a late one");
        }
        let mut answer = collect(stayer);
        answer.tokens.splice(0..0, begun);
        assert_eq!(answer, expected[3], "{case}, the one that stayed");
        stop(scheduler);
    }
}
