//! Hours in minutes: clients that ask, stop half-way and come back, over a cache so small that it evicts all the time.
//!
//! `cargo bench --bench soak -- 10` runs ten minutes (one without a number). It fails where an answer differs from the
//! one computed alone and without a cache, where memory grew, or where a row, a lease or a queue place was kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::scheduler::{Event, Handle, Hold, Request, SchedulerOptions, SchedulerThread, StartError};
use prefixd_cache::{CacheOptions, DiskOptions, Fingerprint, Tenant};
use prefixd_engine::Sampling;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sysinfo::{ProcessesToUpdate, System};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: usize = 8;
const PROMPTS: usize = 24;
const BLOCK: usize = 64;
/// Of the requests, how many are left half-way.
const CANCELLED: f64 = 0.25;
/// Memory may grow by this share after the first fifth of the time.
const GROWTH: f64 = 0.1;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")
}

fn start(
    options: SchedulerOptions,
    cache: impl FnOnce(Fingerprint) -> Option<CacheOptions> + Send + 'static,
) -> Result<SchedulerThread, StartError> {
    let load = LoadOptions { block_tokens: BLOCK, ..LoadOptions::default() };
    SchedulerThread::spawn(
        SchedulerOptions { block_tokens: BLOCK, ..options },
        move |mx| {
            MlxEngine::load(mx, &model(), load, &mut |_| ())
                .map_err(|error| StartError::Engine(error.to_string()))
        },
        move |info| cache(info.fingerprint),
    )
}

/// Prompts of 50 to 2,500 tokens; three share each beginning.
fn requests() -> Vec<Request> {
    (0..PROMPTS)
        .map(|i| {
            let (family, own) = (i / 3, i % 3);
            let shared = 40 + family * family * 35;
            let token = |at: usize, salt: usize| ((at * 7919 + salt * 104_729 + 13) % 4000) as u32 + 20;
            let mut prompt: Vec<u32> = (0..shared).map(|at| token(at, family)).collect();
            prompt.extend((0..10 + own * 300).map(|at| token(at, 1000 + i)));
            Request {
                prompt,
                max_tokens: 12 + 17 * own,
                min_tokens: 0,
                stop_tokens: Arc::from([]),
                sampling: Sampling::default(),
                top_logprobs: None,
                tenant: Tenant::PUBLIC,
                hold: Hold::default(),
                constraint: None,
            }
        })
        .collect()
}

/// The first `limit` tokens of the answer; fewer than that when it ends before.
fn ask(handle: &Handle, request: &Request, limit: usize) -> Result<Vec<u32>, Failure> {
    let mut stream = handle.submit(request.clone())?;
    let mut tokens = Vec::new();
    while tokens.len() < limit {
        match stream.blocking_next() {
            Some(Event::Started(_)) => {}
            Some(Event::Token(token)) => tokens.push(token.id),
            Some(Event::Finished(_)) => break,
            other => return Err(format!("a stream ended with {other:?}").into()),
        }
    }
    Ok(tokens)
}

struct Counters {
    answers: AtomicU64,
    left: AtomicU64,
    over: AtomicBool,
}

fn client(
    seed: u64,
    handle: &Handle,
    requests: &[Request],
    expected: &[Vec<u32>],
    counters: &Counters,
) -> Result<(), Failure> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    while !counters.over.load(Ordering::Relaxed) {
        let at = random.random_range(0..requests.len());
        let whole = expected[at].len();
        let limit = if random.random_bool(CANCELLED) { random.random_range(0..whole) } else { usize::MAX };
        let found = ask(handle, &requests[at], limit)?;
        if found[..] != expected[at][..limit.min(whole)] {
            counters.over.store(true, Ordering::Relaxed);
            return Err(format!("request {at}: {found:?}, alone it was {:?}", expected[at]).into());
        }
        let counter = if limit < whole { &counters.left } else { &counters.answers };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn memory_bytes(system: &mut System) -> Result<u64, Failure> {
    let own = sysinfo::get_current_pid()?;
    system.refresh_processes(ProcessesToUpdate::Some(&[own]), true);
    Ok(system.process(own).ok_or("this process is not listed")?.memory())
}

fn main() -> Result<(), Failure> {
    let minutes = std::env::args().skip(1).find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(1.0);
    let requests = requests();
    let alone = start(SchedulerOptions { max_batch: 1, ..SchedulerOptions::default() }, |_| None)?;
    let expected = requests
        .iter()
        .map(|request| ask(alone.handle(), request, usize::MAX))
        .collect::<Result<Vec<_>, _>>()?;
    alone.handle().drain(Duration::ZERO);
    alone.join()?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().to_owned();
    let scheduler = start(SchedulerOptions { max_batch: 4, ..SchedulerOptions::default() }, |fingerprint| {
        let disk = DiskOptions {
            dir: path,
            budget_bytes: 20 << 20,
            free_floor_bytes: 0,
            write_queue_bytes: 16 << 20,
            readers: 2,
        };
        Some(CacheOptions { fingerprint, block_tokens: BLOCK, resident_bytes: 6 << 20, disk: Some(disk) })
    })?;
    let handle = scheduler.handle().clone();
    let counters = Counters { answers: 0.into(), left: 0.into(), over: false.into() };
    let total = Duration::from_secs_f64(minutes * 60.0);
    let progress = ProgressBar::new(total.as_secs());
    progress.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} s {msg}")?);
    let (mut system, mut samples) = (System::new()?, Vec::new());
    let watched = std::thread::scope(|scope| -> Result<(), Failure> {
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|seed| {
                let (handle, expected, counters) = (&handle, &expected, &counters);
                let requests = requests.clone();
                scope.spawn(move || client(seed, handle, &requests, expected, counters))
            })
            .collect();
        let begin = Instant::now();
        while begin.elapsed() < total && !counters.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            samples.push(memory_bytes(&mut system)?);
            progress.set_position(begin.elapsed().as_secs());
            progress.set_message(format!("{} answers", counters.answers.load(Ordering::Relaxed)));
        }
        counters.over.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| "a client panicked")?)
    });
    progress.finish_and_clear();
    watched?;
    handle.drain(Duration::from_secs(30));
    scheduler.join()?;

    let status = handle.status();
    let disk = status.cache.disk.clone().ok_or("no disk tier")?;
    let largest = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0) as f64 / f64::from(1 << 20);
    let (early, late) = samples.split_at(samples.len() / 5);
    let (early, late) = (largest(early), largest(late));
    println!(
        "{minutes} min, {CLIENTS} clients: {} answers right, {} left half-way, 0 wrong; {:.0} % of prompt tokens cached; \
         {} blocks written, {} evicted; memory {early:.0} MiB in the first fifth, {late:.0} MiB after; \
         waiting {}, prefilling {}, decoding {}, pinned blocks {}",
        counters.answers.load(Ordering::Relaxed),
        counters.left.load(Ordering::Relaxed),
        100.0 * status.cached_tokens as f64 / status.prompt_tokens.max(1) as f64,
        disk.writes.written_blocks,
        status.cache.evicted_blocks,
        status.waiting,
        status.prefilling,
        status.decoding,
        status.cache.pinned_blocks,
    );
    if status.waiting + status.prefilling + status.decoding > 0 || status.cache.pinned_blocks > 0 {
        return Err("something was not given back".into());
    }
    if late > early * (1.0 + GROWTH) {
        return Err(format!("memory grew from {early:.0} to {late:.0} MiB").into());
    }
    Ok(())
}
