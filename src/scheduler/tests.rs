//! Fairness, step by step and without a thread: whatever comes, everyone is served in order and in bounded time.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prefixd_cache::Tenant;
use prefixd_engine::sim::SimEngine;
use prefixd_engine::{Gate, GateError, Sampling};
use proptest::prelude::*;

use super::handle::{Message, Shared, Submission};
use super::message::{Event, Hold, Request, Stream};
use super::options::SchedulerOptions;
use super::step::{Scheduler, StepOutcome};
use super::thread::starting;

/// A request and the step before which it comes.
#[derive(Clone, Debug)]
struct Coming {
    at_step: usize,
    prompt_tokens: usize,
    max_tokens: usize,
}

fn coming() -> impl Strategy<Value = Coming> {
    (0_usize..60, 1_usize..300, 1_usize..40).prop_map(|(at_step, prompt_tokens, max_tokens)| Coming {
        at_step,
        prompt_tokens,
        max_tokens,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Rows are given in the order of arrival, however much memory each will need, and every step computes something:
    /// so nobody starves.
    #[test]
    fn nobody_is_overtaken_and_everyone_ends(
        mut all in prop::collection::vec(coming(), 1..20),
        max_batch in 1_usize..5,
        live_tokens in 50_u64..900,
    ) {
        all.sort_by_key(|coming| coming.at_step);
        let now = Instant::now();
        let engine = SimEngine::new(64, 4096, 24);
        let options = SchedulerOptions {
            max_batch,
            prefill_step_tokens: 32,
            live_bytes: live_tokens * 16,
            // Time stands still: prompts ride along in the smallest chunks.
            clock: Arc::new(move || now),
            ..SchedulerOptions::default()
        };
        let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
        let (sender, inbox) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared { status: Mutex::new(starting()), waiting: 0.into() });
        let mut scheduler = Scheduler::new(engine, None, options, owner, inbox, shared.clone());
        let mut streams: Vec<Stream> = Vec::new();
        // Every pass computes a row's token or at least one token of a prompt, and each arrival may cost one more pass.
        let work: usize = all.iter().map(|coming| coming.prompt_tokens + coming.max_tokens + 2).sum();
        let last = all.last().map_or(0, |coming| coming.at_step);
        for step in 0..=last + work {
            while let Some(coming) = all.get(streams.len()).filter(|coming| coming.at_step <= step) {
                let (events, stream) = Stream::channel(coming.max_tokens);
                let salt = streams.len() as u32;
                let request = Request {
                    prompt: (0..coming.prompt_tokens as u32).map(|at| (at * 7 + salt * 13) % 60 + 1).collect(),
                    max_tokens: coming.max_tokens,
                    min_tokens: 0,
                    stop_tokens: Arc::from([]),
                    sampling: Sampling::default(),
                    constraint: None,
                    top_logprobs: None,
                    tenant: Tenant::PUBLIC,
                    hold: Hold::default(),
                };
                shared.waiting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let submission = Submission { request, events, submitted: now };
                sender.send(Message::Submit(submission)).unwrap();
                streams.push(stream);
            }
            scheduler.step();
            let waiting: Vec<usize> =
                scheduler.waiting.iter().map(|waiting| waiting.request.prompt.len()).collect();
            let newest = &all[streams.len() - waiting.len()..streams.len()];
            let expected: Vec<usize> = newest.iter().map(|coming| coming.prompt_tokens).collect();
            prop_assert_eq!(waiting, expected, "who still waits came last");
        }
        prop_assert_eq!(streams.len(), all.len());
        prop_assert_eq!(scheduler.step(), StepOutcome::Idle);
        for (stream, coming) in streams.iter_mut().zip(&all) {
            let events: Vec<Event> = std::iter::from_fn(|| stream.blocking_next()).collect();
            prop_assert_eq!(events.len(), coming.max_tokens + 2);
            prop_assert!(matches!(events.last(), Some(Event::Finished(_))));
        }
    }
}
