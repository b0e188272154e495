//! What a model with recurrent layers computes again: from the deepest snapshot on, and no answer differs for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prefixd::scheduler::{PrefixPin, Request, SchedulerOptions, SchedulerThread, SnapshotPoint, Stream};
use prefixd_cache::{Miss, SnapshotKind, Tenant};
use prefixd_engine::EngineError;
use prefixd_engine::sim::SimCall;

use super::support::{
    BLOCK, Outcome, collect, hybrid, options, prompt, reference_of, request, start_on_disk, start_with, stop,
};

const ROOM: u64 = 1 << 20;

/// A chat's request: snapshots behind its system text and behind the last message of the user.
fn chat(conversation: &[u32], system: usize, max_tokens: usize) -> Request {
    let points = [(system, SnapshotKind::Anchor), (conversation.len() - 3, SnapshotKind::Message)];
    let mut request = request(conversation.to_vec(), max_tokens);
    request.hold.snapshots = points.map(|(tokens, kind)| SnapshotPoint { tokens, kind }).to_vec();
    request
}

fn answer(scheduler: &SchedulerThread, request: Request) -> Outcome {
    let (asked, max_tokens) = (request.prompt.clone(), request.max_tokens);
    let outcome = collect(scheduler.handle().submit(request).unwrap());
    assert_eq!((outcome.answer.clone(), outcome.reason), reference_of(hybrid(), &asked, max_tokens));
    outcome
}

/// Twelve turns of a conversation; `told` says what the next turn shows of an answer. Returns what each turn computed beyond
/// its new tokens.
fn converse(told: impl Fn(&[u32]) -> Vec<u32>) -> Vec<usize> {
    let scheduler = start_with(hybrid(), options(), ROOM);
    let system = prompt(7, 70);
    let mut conversation = [&system[..], &prompt(70, 20)].concat();
    let (mut again, mut known) = (Vec::new(), 0);
    for turn in 0..12 {
        let outcome = answer(&scheduler, chat(&conversation, 70, 25));
        again.push(known - outcome.usage.cached_tokens.min(known));
        // Up to the end of the last message of the user nothing changes.
        known = conversation.len() - 3;
        conversation.extend(told(&outcome.answer));
        conversation.extend(prompt(100 + turn, 9));
    }
    stop(scheduler);
    again
}

#[test]
fn every_turn_computes_what_is_behind_the_last_message_of_the_user_and_no_more() {
    assert_eq!(converse(<[u32]>::to_vec), [0; 12]);
    // Thoughts are left out of the next turn.
    assert_eq!(converse(|answer| answer[answer.len() / 2..].to_vec()), [0; 12]);
}

#[test]
fn a_restart_between_turns_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let start = || start_on_disk(hybrid(), dir.path(), ROOM, 64 << 20);
    let system = prompt(7, 70);
    let mut conversation = [&system[..], &prompt(70, 20)].concat();
    let mut known = 0;
    for turn in 0..5 {
        let scheduler = start();
        let outcome = answer(&scheduler, chat(&conversation, 70, 25));
        assert!(outcome.usage.cached_tokens >= known, "turn {turn}: {:?}, expected {known}", outcome.usage);
        assert_eq!(outcome.usage.disk_tokens, outcome.usage.cached_tokens);
        stop(scheduler);
        conversation.extend(outcome.answer);
        known = conversation.len() - 1;
        conversation.extend(prompt(100 + turn, 9));
    }
}

#[test]
fn conversations_that_begin_alike_share_the_beginning_and_edits_go_back_no_further() {
    let scheduler = start_with(hybrid(), options(), ROOM);
    let system = prompt(8, 70);
    for agent in 0..3 {
        let conversation = [&system[..], &prompt(200 + agent, 40)].concat();
        let outcome = answer(&scheduler, chat(&conversation, 70, 10));
        assert_eq!(outcome.usage.cached_tokens, if agent == 0 { 0 } else { 70 }, "agent {agent}");
    }
    // The last message is edited: the one before it ends where a snapshot is.
    let first = [&system[..], &prompt(200, 40)].concat();
    let second = [&first[..], &prompt(300, 50)].concat();
    answer(&scheduler, chat(&second, 70, 10));
    let edited = [&first[..], &prompt(301, 50)].concat();
    let outcome = answer(&scheduler, chat(&edited, 70, 10));
    assert_eq!(outcome.usage.cached_tokens, first.len() - 3);
    stop(scheduler);
}

#[test]
fn tokens_that_are_lost_to_a_missing_state_are_counted_and_the_place_is_kept_for_the_next() {
    let scheduler = start_with(hybrid(), options(), ROOM);
    let shared = prompt(9, 200);
    let ask = |seed| answer(&scheduler, request([&shared[..], &prompt(seed, 30)].concat(), 5)).usage;
    assert_eq!(ask(400).cached_tokens, 0);
    let second = ask(401);
    assert_eq!((second.cached_tokens, second.no_state_tokens), (0, 200));
    assert!(matches!(second.miss, Some(Miss::Diverged { .. } | Miss::NoState { .. })), "{second:?}");
    let third = ask(402);
    assert_eq!(
        (third.cached_tokens, third.no_state_tokens),
        (200, 0),
        "a snapshot was taken where they part"
    );
    assert_eq!(scheduler.handle().status().cache.snapshots.no_state_tokens, 200);
    stop(scheduler);
}

/// A scheduler, and how many tokens of prompts it computed.
fn counted(options: SchedulerOptions) -> (SchedulerThread, Arc<AtomicUsize>) {
    let computed = Arc::new(AtomicUsize::new(0));
    let count = computed.clone();
    let engine = hybrid().with_hook(move |call| {
        count.fetch_add(call.prefilling(), Ordering::SeqCst);
        Ok(())
    });
    (start_with(engine, options, ROOM), computed)
}

#[test]
fn requests_that_come_together_wait_for_the_state_where_they_part() {
    let (scheduler, computed) = counted(options());
    let shared = prompt(10, 320);
    let asked: Vec<Vec<u32>> = (0..4).map(|seed| [&shared[..], &prompt(500 + seed, 20)].concat()).collect();
    let streams: Vec<Stream> =
        asked.iter().map(|prompt| scheduler.handle().submit(request(prompt.clone(), 5)).unwrap()).collect();
    for (stream, prompt) in streams.into_iter().zip(&asked) {
        let outcome = collect(stream);
        assert_eq!((outcome.answer, outcome.reason), reference_of(hybrid(), prompt, 5));
    }
    assert_eq!(computed.load(Ordering::SeqCst), 320 + 4 * 20);
    // One prompt, many answers: all but its end is computed once.
    let same = prompt(11, 333);
    let before = computed.load(Ordering::SeqCst);
    let streams: Vec<Stream> =
        (0..4).map(|_| scheduler.handle().submit(request(same.clone(), 5)).unwrap()).collect();
    for stream in streams {
        collect(stream);
    }
    assert_eq!(computed.load(Ordering::SeqCst) - before, 333 + 3);
    stop(scheduler);
}

#[test]
fn a_prompt_that_is_cancelled_goes_on_where_it_was() {
    let asked = prompt(12, 1_000);
    let (reached, seen) = crossbeam_channel::bounded(0);
    let (go_on, wait) = crossbeam_channel::bounded(0);
    let mut steps = 0;
    let engine = hybrid().with_hook(move |call| {
        if matches!(call, SimCall::Step(_)) {
            steps += 1;
        }
        if steps == 20 {
            reached.send(()).ok();
            wait.recv().ok();
        }
        Ok(())
    });
    let scheduler = start_with(engine, options(), ROOM);
    let stream = scheduler.handle().submit(request(asked.clone(), 5)).unwrap();
    seen.recv().unwrap();
    drop((stream, seen));
    go_on.send(()).unwrap();
    drop(go_on);
    let outcome = answer(&scheduler, request(asked, 5));
    assert_eq!(outcome.usage.cached_tokens, 20 * 32, "what twenty chunks computed");
    stop(scheduler);
}

#[test]
fn a_request_that_only_reads_leaves_nothing() {
    let scheduler = start_with(hybrid(), options(), ROOM);
    let agents = || scheduler.handle().agents(Tenant::PUBLIC).unwrap().len();
    let stats = || {
        // It answers between two steps: what the last one did is counted.
        agents();
        scheduler.handle().status().cache
    };
    let read_only = |prompt: Vec<u32>| {
        let mut request = request(prompt, 5);
        request.hold.read_only = true;
        request.hold.agent = Some("sess_title".into());
        request.hold.pins = vec![PrefixPin { tokens: 50, time: Duration::from_mins(5) }];
        request
    };
    answer(&scheduler, read_only(prompt(13, 100)));
    assert_eq!((stats().resident.blocks, stats().snapshots.resident, stats().retained_blocks), (0, 0, 0));
    assert_eq!(agents(), 0);
    answer(&scheduler, request(prompt(13, 100), 5));
    let kept = (stats().resident.blocks, stats().snapshots.resident);
    let outcome = answer(&scheduler, read_only([prompt(13, 100), prompt(14, 100)].concat()));
    assert!(outcome.usage.cached_tokens >= 99, "what is known is used: {:?}", outcome.usage);
    assert_eq!((stats().resident.blocks, stats().snapshots.resident), kept);
    stop(scheduler);
}

#[test]
fn a_state_that_cannot_be_given_back_costs_time_and_nothing_else() {
    let engine = hybrid().with_hook(|call| match call {
        SimCall::Resume { .. } => Err(EngineError::Block("damaged".into())),
        _ => Ok(()),
    });
    let scheduler = start_with(engine, options(), ROOM);
    for _ in 0..2 {
        let outcome = answer(&scheduler, request(prompt(15, 100), 5));
        assert_eq!(outcome.usage.cached_tokens, 0);
    }
    stop(scheduler);
}

#[test]
fn with_exact_chunks_states_lie_where_chunks_end() {
    let exact = SchedulerOptions { exact: true, ..options() };
    let scheduler = start_with(hybrid(), exact, ROOM);
    let conversation = prompt(16, 200);
    answer(&scheduler, chat(&conversation, 75, 5));
    let outcome = answer(&scheduler, chat(&conversation, 75, 5));
    assert_eq!(outcome.usage.cached_tokens, 197 / 32 * 32);
    assert_eq!(197 / 32 * 32 % BLOCK, 0);
    stop(scheduler);
}
