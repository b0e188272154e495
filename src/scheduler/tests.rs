//! Fairness and pace, step by step and without a thread: whatever comes, everyone is served in order and in bounded time,
//! and a running stream goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use prefixd_cache::{CacheOptions, PrefixCache, Tenant};
use prefixd_engine::sim::{SimCall, SimEngine};
use prefixd_engine::{Engine, EngineError, Gate, GateError, Sampling};
use proptest::prelude::*;

use super::handle::{Condition, Message, Place, Shared, Submission};
use super::message::{Event, Finish, Hold, Request, Stream};
use super::options::{Clock, SchedulerOptions};
use super::step::{Scheduler, StepOutcome};

/// A clock that goes on when told.
#[derive(Clone)]
struct Time {
    start: Instant,
    nanos: Arc<AtomicU64>,
}

impl Time {
    fn new() -> Self {
        Self { start: Instant::now(), nanos: Arc::default() }
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Arc::new(move || time.now())
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn pass(&self, seconds: f64) {
        self.nanos.fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
    }
}

/// A scheduler without a thread, and its inbox.
struct Bench {
    scheduler: Scheduler<SimEngine>,
    inbox: Sender<Message>,
    shared: Arc<Shared>,
    time: Time,
}

impl Bench {
    fn new(engine: SimEngine, options: SchedulerOptions, time: Time, cached: bool) -> Self {
        let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
        let (inbox, messages) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared::new());
        let cache = cached.then(|| {
            let fingerprint = engine.info().fingerprint;
            let block_tokens = options.block_tokens;
            PrefixCache::open(CacheOptions { fingerprint, block_tokens, resident_bytes: 1 << 30, disk: None })
        });
        let cache = cache.transpose().unwrap();
        let options = SchedulerOptions { clock: time.clock(), ..options };
        let scheduler = Scheduler::new(engine, cache, options, owner, messages, shared.clone());
        Self { scheduler, inbox, shared, time }
    }

    fn submit(&self, prompt: Vec<u32>, max_tokens: usize) -> Stream {
        let (events, stream) = Stream::channel(max_tokens);
        let request = Request {
            prompt,
            max_tokens,
            min_tokens: 0,
            stop_tokens: Arc::from([]),
            sampling: Sampling::default(),
            constraint: None,
            top_logprobs: None,
            tenant: Tenant::PUBLIC,
            hold: Hold::default(),
        };
        let (place, _) = Place::take(&self.shared.waiting);
        let submission = Submission { request, events, submitted: self.time.now(), place };
        self.inbox.send(Message::Submit(submission)).unwrap();
        stream
    }

    /// Steps until nothing is left to do.
    fn finish(&mut self) {
        while self.scheduler.step() == StepOutcome::Worked {}
    }
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) % 60 + 1)
        .collect()
}

fn answer(stream: &mut Stream) -> (Vec<u32>, Option<Finish>) {
    let mut answer = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(Event::Token(choice)) => answer.push(choice.id),
            Some(Event::Finished(finish)) => return (answer, Some(finish)),
            Some(Event::Started(_)) => {}
            _ => return (answer, None),
        }
    }
}

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
        let options = SchedulerOptions {
            max_batch,
            prefill_step_tokens: 32,
            live_bytes: live_tokens * 16,
            ..SchedulerOptions::default()
        };
        // Time stands still: prompts ride along in the smallest chunks.
        let mut bench = Bench::new(SimEngine::new(64, 4096, 24), options, Time::new(), false);
        let mut streams: Vec<Stream> = Vec::new();
        // Every pass computes a row's token or at least one token of a prompt, and each arrival may cost one more pass.
        let work: usize = all.iter().map(|coming| coming.prompt_tokens + coming.max_tokens + 2).sum();
        let last = all.last().map_or(0, |coming| coming.at_step);
        for step in 0..=last + work {
            while let Some(coming) = all.get(streams.len()).filter(|coming| coming.at_step <= step) {
                let salt = streams.len() as u32;
                let prompt = (0..coming.prompt_tokens as u32).map(|at| (at * 7 + salt * 13) % 60 + 1).collect();
                streams.push(bench.submit(prompt, coming.max_tokens));
            }
            bench.scheduler.step();
            let waiting = bench.scheduler.queue.prompts();
            let newest = &all[streams.len() - waiting.len()..streams.len()];
            let expected: Vec<usize> = newest.iter().map(|coming| coming.prompt_tokens).collect();
            prop_assert_eq!(bench.shared.waiting.load(Ordering::Relaxed), waiting.len());
            prop_assert_eq!(waiting, expected, "who still waits came last");
        }
        prop_assert_eq!(streams.len(), all.len());
        prop_assert_eq!(bench.scheduler.step(), StepOutcome::Idle);
        for (stream, coming) in streams.iter_mut().zip(&all) {
            let (answer, finish) = answer(stream);
            prop_assert_eq!(answer.len(), coming.max_tokens);
            prop_assert!(finish.is_some());
        }
    }
}

/// Seconds of a pass over the rows alone, and of a token of a prompt beside them.
const ALONE: f64 = 4e-3;
const PROMPT_TOKEN: f64 = 5e-5;

/// An engine on that clock: what it does takes as long as said here.
fn timed(time: &Time, import_token: f64) -> SimEngine {
    let time = time.clone();
    SimEngine::new(64, 100_000, 24).with_hook(move |call| {
        time.pass(match &call {
            SimCall::Import { tokens } => import_token * *tokens as f64,
            SimCall::Resume { .. } => 0.0,
            step @ SimCall::Step(_) => ALONE + PROMPT_TOKEN * step.prefilling() as f64,
        });
        Ok(())
    })
}

/// Seconds between the tokens of a running stream, from the arrival of `coming` until all of them have started.
fn gaps(bench: &mut Bench, running: &mut Stream, coming: Vec<Vec<u32>>) -> Vec<f64> {
    let mut streams: Vec<Stream> = coming.into_iter().map(|prompt| bench.submit(prompt, 1)).collect();
    let (mut gaps, mut last) = (Vec::new(), bench.time.now());
    let mut started = 0;
    while started < streams.len() {
        bench.scheduler.step();
        let tokens =
            std::iter::from_fn(|| running.try_next()).filter(|event| matches!(event, Event::Token(_)));
        for _ in 0..tokens.count() {
            gaps.push((bench.time.now() - last).as_secs_f64());
            last = bench.time.now();
        }
        let events = streams.iter_mut().flat_map(|stream| std::iter::from_fn(|| stream.try_next()));
        started += events.filter(|event| matches!(event, Event::Started(_))).count();
        assert!(gaps.len() < 20_000, "no end");
    }
    gaps
}

/// A bench whose cache holds `known` and that decodes one endless stream.
fn running(options: SchedulerOptions, known: &[u32], import_token: f64) -> (Bench, Stream) {
    let time = Time::new();
    let mut bench = Bench::new(timed(&time, import_token), options, time, true);
    let mut first = bench.submit(known.to_vec(), 1);
    bench.finish();
    assert_eq!(answer(&mut first).0.len(), 1);
    let mut stream = bench.submit(tokens(900, 8), 30_000);
    for _ in 0..20 {
        bench.scheduler.step();
    }
    while stream.try_next().is_some() {}
    (bench, stream)
}

#[test]
fn a_restore_of_64k_tokens_does_not_stall_a_running_stream() {
    let known = tokens(1, 65_536);
    let options = SchedulerOptions::default();
    let slowdown = options.decode_slowdown;
    // At once it would take 0.3 s: 80 times the gap of the stream alone.
    let (mut bench, mut stream) = running(options, &known, 5e-6);
    let again = [known, tokens(2, 10)].concat();
    let gaps = gaps(&mut bench, &mut stream, vec![again]);
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    assert!(longest <= slowdown * ALONE * 1.001, "{longest} s");
    assert!(gaps.len() < 200, "{} steps: it uses the time that it may", gaps.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever imports cost, a stream's gaps stay within the factor, or are those of one block or of the first chunk.
    #[test]
    fn a_running_stream_keeps_its_pace_beside_restores_and_prompts(
        known_tokens in 16_usize..3000,
        cold_tokens in 0_usize..600,
        import_us in 1_u32..200,
        slowdown in 1.5_f64..4.0,
        restores in 1_usize..4,
    ) {
        let known = tokens(1, known_tokens);
        let options = SchedulerOptions { block_tokens: 16, decode_slowdown: slowdown, ..SchedulerOptions::default() };
        let import_token = f64::from(import_us) * 1e-6;
        let (mut bench, mut stream) = running(options, &known, import_token);
        let mut coming: Vec<_> =
            (0..restores).map(|i| [known.clone(), tokens(10 + i as u32, 9)].concat()).collect();
        if cold_tokens > 0 {
            coming.push(tokens(500, cold_tokens));
        }
        let gaps = gaps(&mut bench, &mut stream, coming);
        let allowed = (slowdown * ALONE).max(ALONE + 16.0 * import_token) * 1.001;
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        prop_assert!(longest <= allowed, "{longest} s, allowed {allowed} s");
    }
}

#[test]
fn a_restore_in_pieces_answers_as_the_computed_prompt() {
    let known = tokens(1, 3000);
    let again = [known.clone(), tokens(2, 10)].concat();
    let time = Time::new();
    let mut alone = Bench::new(timed(&time, 0.0), SchedulerOptions::default(), time, false);
    let mut expected = alone.submit(again.clone(), 20);
    alone.finish();
    drop(alone);
    let options = SchedulerOptions { block_tokens: 16, ..SchedulerOptions::default() };
    let (mut bench, _stream) = running(options, &known, 2e-5);
    let mut restored = bench.submit(again, 20);
    for _ in 0..2000 {
        bench.scheduler.step();
    }
    let (found, finish) = answer(&mut restored);
    assert_eq!(found, answer(&mut expected).0);
    assert!(finish.is_some());
}

#[test]
fn an_engine_that_fails_step_after_step_says_so_until_it_works_again() {
    let time = Time::new();
    let broken = Arc::new(AtomicU64::new(1));
    let switch = broken.clone();
    let engine = SimEngine::new(64, 4096, 24).with_hook(move |_| {
        let fails = switch.load(Ordering::Relaxed) == 1;
        if fails { Err(EngineError::OutOfMemory("planted".into())) } else { Ok(()) }
    });
    let mut bench = Bench::new(engine, SchedulerOptions::default(), time.clone(), false);
    let condition = |bench: &Bench| bench.shared.status.lock().condition.clone();
    assert_eq!(condition(&bench), Condition::Starting);
    for _ in 0..2 {
        let _reading = bench.submit(tokens(1, 9), 3);
        bench.scheduler.step();
        assert_eq!(condition(&bench), Condition::Ready);
    }
    let mut last = bench.submit(tokens(1, 9), 3);
    bench.scheduler.step();
    assert!(matches!(condition(&bench), Condition::Failing(reason) if reason.contains("planted")));
    assert!(answer(&mut last).1.is_none(), "its client was told");
    broken.store(0, Ordering::Relaxed);
    bench.scheduler.step();
    assert!(matches!(condition(&bench), Condition::Failing(_)), "it is tried again when it is time");
    time.pass(60.0);
    bench.scheduler.step();
    assert_eq!(condition(&bench), Condition::Ready);
}
