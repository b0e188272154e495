//! What a long prompt costs that is known already, on the embedded model: time to the first token after a prefix in RAM,
//! by its length.
//!
//! `cargo bench --bench warm`. Lengths take turns, so that whatever else the machine does meets all of them. The times are
//! those of the scheduler, from the request to its first token, and of its parts: text and HTTP are not in them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::scheduler::{
    Event, Handle, Hold, PromptUsage, Request, SchedulerOptions, SchedulerThread, StartError,
};
use prefixd_cache::{CacheOptions, Tenant};
use prefixd_engine::Sampling;

type Failure = Box<dyn std::error::Error>;

const LENGTHS: [usize; 4] = [256, 1024, 4096, 16_384];
const ROUNDS: usize = 41;

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7919 + tokens * 104_729 + 13) % 4000) as u32 + 20).collect()
}

/// Milliseconds to the first token, and the scheduler's account.
fn first_token(handle: &Handle, tokens: usize) -> Result<(f64, PromptUsage), Failure> {
    let request = Request {
        prompt: prompt(tokens),
        max_tokens: 1,
        min_tokens: 0,
        stop_tokens: Arc::from([]),
        sampling: Sampling::default(),
        constraint: None,
        top_logprobs: None,
        tenant: Tenant::PUBLIC,
        hold: Hold::default(),
    };
    let begin = Instant::now();
    let (mut stream, mut usage, mut first) = (handle.submit(request)?, None, None);
    loop {
        match stream.blocking_next() {
            Some(Event::Started(started)) => usage = Some(started),
            Some(Event::Token(_)) => first = first.or(Some(begin.elapsed().as_secs_f64() * 1e3)),
            Some(Event::Finished(_)) => break,
            other => return Err(format!("the stream ended early: {other:?}").into()),
        }
    }
    Ok(first.zip(usage).ok_or("a stream without a token")?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Failure> {
    let load = |mx: &_| {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk");
        let loaded = MlxEngine::load(mx, &model, LoadOptions::default(), &mut |_| ());
        loaded.map_err(|error| StartError::Engine(error.to_string()))
    };
    let scheduler = SchedulerThread::spawn(SchedulerOptions::default(), load, |info| {
        Some(CacheOptions {
            fingerprint: info.fingerprint,
            block_tokens: 256,
            resident_bytes: 1 << 30,
            disk: None,
        })
    })?;
    let handle = scheduler.handle().clone();
    for tokens in LENGTHS {
        first_token(&handle, tokens)?;
    }
    let mut taken = LENGTHS.map(|_| (Vec::new(), Vec::new(), Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (tokens, (whole, lookup, import, prefill)) in LENGTHS.into_iter().zip(&mut taken) {
            let (ms, usage) = first_token(&handle, tokens)?;
            whole.push(ms);
            lookup.push(usage.restore_parts.lookup_ms);
            import.push(usage.restore_parts.import_ms);
            prefill.push(usage.prefill_ms);
        }
    }
    println!("tokens | to the first token, ms | times that of {} | lookup | import | prefill", LENGTHS[0]);
    let mut shortest = None;
    for (tokens, (whole, lookup, import, prefill)) in LENGTHS.into_iter().zip(taken) {
        let [whole, lookup, import, prefill] = [whole, lookup, import, prefill].map(median);
        let ratio = whole / *shortest.get_or_insert(whole);
        println!("{tokens:6} | {whole:.2} | {ratio:.2} | {lookup:.2} | {import:.2} | {prefill:.2}");
    }
    handle.drain(Duration::ZERO);
    Ok(scheduler.join()?)
}
