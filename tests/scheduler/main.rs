//! The scheduler's laws, on the engine that digests tokens: every wrong, missing or foreign entry changes the answer. Histories run on a
//! small model too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod histories;
mod recurrent;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prefixd::scheduler::{Condition, Event, FinishReason, Request, SchedulerOptions, Stream, SubmitError};
use prefixd_cache::Tenant;
use prefixd_engine::{Engine, EngineError};
use support::{
    BLOCK, VOCAB, block_files, collect, engine, options, prompt, reference, request, start, start_on_disk,
    start_with, stop,
};

#[test]
fn whoever_hears_that_it_is_ready_finds_its_state_told() {
    for _ in 0..50 {
        let scheduler = start();
        let status = scheduler.handle().status();
        assert_eq!((status.condition, status.cache.resident.budget_bytes), (Condition::Ready, 1 << 20));
        stop(scheduler);
    }
}

#[test]
fn a_repeated_prompt_is_answered_alike_and_computed_once() {
    let scheduler = start();
    let ask = |tokens| collect(scheduler.handle().submit(request(prompt(1, tokens), 20)).unwrap());
    let cold = ask(100);
    let warm = ask(100);
    assert_eq!((cold.usage.cached_tokens, warm.usage.cached_tokens), (0, 99));
    assert_eq!(cold.answer, warm.answer);
    assert_eq!((warm.answer, warm.reason), reference(&prompt(1, 100), 20));
    stop(scheduler);
}

#[test]
fn the_next_turn_finds_prompt_and_answer_of_the_last() {
    let scheduler = start();
    let mut conversation = prompt(2, 75);
    let mut known = 0;
    for turn in 0..5 {
        let outcome = collect(scheduler.handle().submit(request(conversation.clone(), 30)).unwrap());
        assert_eq!((outcome.answer.clone(), outcome.reason), reference(&conversation, 30), "turn {turn}");
        assert!(
            outcome.usage.cached_tokens >= known,
            "turn {turn} found {:?}, expected {known}",
            outcome.usage
        );
        conversation.extend(outcome.answer);
        // All but the token that was chosen last is in KV; what is shorter than a tail is not kept.
        known = (conversation.len() - 1) / BLOCK * BLOCK;
        conversation.extend(prompt(100 + turn, 9));
    }
    stop(scheduler);
}

#[test]
fn a_long_prefix_comes_from_disk_in_parts_and_one_that_fails_costs_tokens_and_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(9, 40 * BLOCK);
    // The answer is shorter than a tail: all blocks are the prompt's.
    let expected = reference(&asked, 12);
    let ask = || {
        let scheduler = start_on_disk(engine(), dir.path(), 1 << 20, 1 << 24);
        let outcome = collect(scheduler.handle().submit(request(asked.clone(), 12)).unwrap());
        stop(scheduler);
        assert_eq!((outcome.answer, outcome.reason), expected);
        outcome.usage
    };
    assert_eq!(ask().cached_tokens, 0);
    let whole = ask();
    assert_eq!((whole.cached_tokens, whole.disk_tokens), (asked.len() - 1, asked.len() - 1));
    for nth in [0, 15, 30] {
        let file = &block_files(dir.path())[nth];
        let mut bytes = std::fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(file, bytes).unwrap();
        let found = ask().cached_tokens;
        assert!(found < asked.len() - 1 && found % BLOCK == 0, "{nth}: {found}");
        assert_eq!(ask().cached_tokens, asked.len() - 1, "what was lost is written again");
    }
}

#[test]
fn requests_that_share_an_uncached_prefix_compute_it_once() {
    let computed = Arc::new(AtomicUsize::new(0));
    let count = computed.clone();
    let engine = engine().with_hook(move |call| {
        count.fetch_add(call.prefilling(), Ordering::SeqCst);
        Ok(())
    });
    let scheduler = start_with(engine, options(), 1 << 20);
    let shared = prompt(3, 320);
    let streams: Vec<Stream> = (0..4)
        .map(|row| {
            let own = [shared.clone(), prompt(200 + row, 10)].concat();
            scheduler.handle().submit(request(own, 5)).unwrap()
        })
        .collect();
    for (row, stream) in streams.into_iter().enumerate() {
        let own = [shared.clone(), prompt(200 + row as u32, 10)].concat();
        let outcome = collect(stream);
        assert_eq!((outcome.answer, outcome.reason), reference(&own, 5));
    }
    let computed = computed.load(Ordering::SeqCst);
    assert!(computed <= 320 + 4 * (10 + BLOCK), "four requests of 330 tokens computed {computed}");
    stop(scheduler);
}

#[test]
fn exact_reuse_stops_at_a_prefill_step() {
    let scheduler = start_with(engine(), SchedulerOptions { exact: true, ..options() }, 1 << 20);
    let ask = || collect(scheduler.handle().submit(request(prompt(4, 100), 3)).unwrap());
    assert_eq!(ask().usage.cached_tokens, 0);
    assert_eq!(ask().usage.cached_tokens, 96);
    stop(scheduler);
}

#[test]
fn one_tenant_never_hits_another_s_prefix() {
    let scheduler = start();
    let ask = |tenant| {
        collect(scheduler.handle().submit(Request { tenant, ..request(prompt(5, 100), 3) }).unwrap())
    };
    assert_eq!(ask(Tenant::derive(b"one")).usage.cached_tokens, 0);
    assert_eq!(ask(Tenant::derive(b"two")).usage.cached_tokens, 0);
    assert_eq!(ask(Tenant::derive(b"one")).usage.cached_tokens, 96);
    stop(scheduler);
}

#[test]
fn a_producer_that_pauses_loses_nothing() {
    let (resume, paused) = crossbeam_channel::bounded::<()>(0);
    let engine = engine().with_hook(move |call| {
        if call.decoding() > 0 {
            paused.recv().ok();
        }
        Ok(())
    });
    let scheduler = start_with(engine, options(), 1 << 20);
    let mut stream = scheduler.handle().submit(request(prompt(6, 40), 6)).unwrap();
    let (expected, reason) = reference(&prompt(6, 40), 6);
    assert!(matches!(stream.blocking_next(), Some(Event::Started(_))));
    for (at, token) in expected.iter().enumerate() {
        let Some(Event::Token(choice)) = stream.blocking_next() else { panic!("the pause ended the stream") };
        assert_eq!(choice.id, *token);
        // The engine stands still until the reader has seen this token.
        if at + 1 < expected.len() || reason == FinishReason::Stop {
            resume.send(()).unwrap();
        }
    }
    assert!(matches!(stream.blocking_next(), Some(Event::Finished(finish)) if finish.reason == reason));
    drop(resume);
    stop(scheduler);
}

#[test]
fn a_client_that_leaves_frees_its_row_and_its_blocks_stay() {
    let scheduler = start_with(engine(), SchedulerOptions { max_batch: 1, ..options() }, 1 << 20);
    let endless = Request { stop_tokens: Arc::from([]), ..request(prompt(7, 64), 4000) };
    let mut first = scheduler.handle().submit(endless.clone()).unwrap();
    for _ in 0..20 {
        first.blocking_next();
    }
    let second = scheduler.handle().submit(request(prompt(7, 64), 3)).unwrap();
    drop(first);
    let outcome = collect(second);
    assert_eq!(outcome.usage.cached_tokens, 63, "what the leaver computed is reused");
    let handle = scheduler.handle().clone();
    stop(scheduler);
    let status = handle.status();
    assert_eq!((status.cancelled, status.decoding, status.prefilling), (1, 0, 0));
}

#[test]
fn a_full_queue_refuses_and_an_answered_one_accepts_again() {
    let (resume, paused) = crossbeam_channel::bounded::<()>(0);
    let engine = engine().with_hook(move |_| {
        paused.recv().ok();
        Ok(())
    });
    let scheduler =
        start_with(engine, SchedulerOptions { max_batch: 1, queue_limit: 2, ..options() }, 1 << 20);
    let running = scheduler.handle().submit(request(prompt(8, 8), 1)).unwrap();
    while scheduler.handle().status().waiting > 0 {
        std::thread::yield_now();
    }
    let waiting: Vec<Stream> =
        (0..2).map(|i| scheduler.handle().submit(request(prompt(9 + i, 8), 1)).unwrap()).collect();
    let refused = scheduler.handle().submit(request(prompt(30, 8), 1)).unwrap_err();
    assert_eq!(refused, SubmitError::Busy { waiting: 2, limit: 2 });
    drop(resume);
    collect(running);
    waiting.into_iter().map(collect).for_each(drop);
    assert!(scheduler.handle().submit(request(prompt(31, 8), 1)).is_ok());
    stop(scheduler);
}

#[test]
fn bad_requests_are_refused_with_what_was_found() {
    let scheduler = start();
    let submit = |prompt| scheduler.handle().submit(request(prompt, 5)).map(|_| ()).unwrap_err();
    assert_eq!(submit(vec![]), SubmitError::Empty);
    assert_eq!(submit(vec![1; 4096]), SubmitError::TooLong { prompt_tokens: 4096, context_tokens: 4096 });
    assert_eq!(submit(vec![1, 97]), SubmitError::Vocabulary { token: 97, at: 1, vocab: VOCAB });
    stop(scheduler);
}

#[test]
fn what_can_never_fit_into_the_room_of_all_rows_is_refused_and_what_fits_ends_there() {
    let state = engine().info().state.clone();
    let scheduler =
        start_with(engine(), SchedulerOptions { live_bytes: state.row_bytes(200), ..options() }, 1 << 20);
    let submit = |tokens: usize| scheduler.handle().submit(request(prompt(3, tokens), 500));
    assert_eq!(scheduler.handle().info().context_tokens, 200);
    let refused = submit(200).map(|_| ()).unwrap_err();
    assert_eq!(refused, SubmitError::TooLong { prompt_tokens: 200, context_tokens: 200 });
    // Together they would take twice the room: one waits for the other.
    let both: Vec<Stream> = (0..2).map(|_| submit(150).unwrap()).collect();
    for stream in both {
        let outcome = collect(stream);
        assert!(outcome.answer.len() <= 50, "{} tokens behind 150", outcome.answer.len());
    }
    stop(scheduler);
}

#[test]
fn a_failing_engine_fails_the_sequence_and_the_next_is_served() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let engine = engine().with_hook(move |call| {
        let fails = call.decoding() > 0 && switch.load(Ordering::SeqCst);
        if fails { Err(EngineError::Backend("planted".into())) } else { Ok(()) }
    });
    let scheduler = start_with(engine, options(), 1 << 20);
    let mut stream = scheduler.handle().submit(request(prompt(10, 40), 6)).unwrap();
    let events: Vec<Event> = std::iter::from_fn(|| stream.blocking_next()).collect();
    assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
    broken.store(false, Ordering::SeqCst);
    let outcome = collect(scheduler.handle().submit(request(prompt(10, 40), 6)).unwrap());
    assert_eq!((outcome.answer, outcome.reason), reference(&prompt(10, 40), 6));
    stop(scheduler);
}

#[test]
fn a_scheduler_that_panics_says_so_to_its_streams_and_to_health() {
    let engine = engine().with_hook(|call| {
        assert!(call.decoding() == 0, "planted panic");
        Ok(())
    });
    let scheduler = start_with(engine, options(), 1 << 20);
    let mut stream = scheduler.handle().submit(request(prompt(11, 40), 6)).unwrap();
    let events: Vec<Event> = std::iter::from_fn(|| stream.blocking_next()).collect();
    assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
    let handle = scheduler.handle().clone();
    assert!(scheduler.join().unwrap_err().contains("planted panic"));
    assert!(
        matches!(handle.status().condition, Condition::Failed(reason) if reason.contains("planted panic"))
    );
    assert_eq!(handle.submit(request(prompt(11, 40), 6)).map(|_| ()).unwrap_err(), SubmitError::Closed);
}

#[test]
fn a_drain_finishes_what_runs_and_refuses_what_comes() {
    let scheduler = start();
    let running = scheduler.handle().submit(request(prompt(12, 200), 50)).unwrap();
    scheduler.handle().drain(Duration::from_secs(30));
    let handle = scheduler.handle().clone();
    let outcome = collect(running);
    assert_eq!((outcome.answer, outcome.reason), reference(&prompt(12, 200), 50));
    scheduler.join().unwrap();
    assert_eq!(handle.submit(request(prompt(12, 20), 5)).map(|_| ()).unwrap_err(), SubmitError::Closed);
    assert_eq!(handle.status().condition, Condition::Stopped);
}

#[test]
fn gate_jobs_run_between_steps_while_rows_decode() {
    let scheduler = start();
    let endless = Request { stop_tokens: Arc::from([]), ..request(prompt(13, 64), 3000) };
    let stream = scheduler.handle().submit(endless).unwrap();
    let callers: Vec<_> = (0..8_u64)
        .map(|caller| {
            let gate = scheduler.handle().gate().clone();
            std::thread::spawn(move || {
                (0..50_u64).map(|job| gate.run(move |_| caller * 1000 + job).unwrap()).collect::<Vec<_>>()
            })
        })
        .collect();
    for (caller, thread) in callers.into_iter().enumerate() {
        let expected: Vec<u64> = (0..50).map(|job| caller as u64 * 1000 + job).collect();
        assert_eq!(thread.join().unwrap(), expected);
    }
    assert_eq!(collect(stream).answer.len(), 3000);
    stop(scheduler);
}
