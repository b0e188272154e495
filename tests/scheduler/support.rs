//! The engine that digests tokens, on a scheduler, and what it must answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prefixd::scheduler::{
    Event, FinishReason, Hold, PromptUsage, Request, SchedulerOptions, SchedulerThread, Stream,
};
use prefixd_cache::{CacheOptions, DiskOptions, Tenant};
use prefixd_engine::sim::SimEngine;
use prefixd_engine::{Engine, Sampling, Steps};

pub const VOCAB: usize = 97;
pub const WINDOW: usize = 24;
pub const BLOCK: usize = 16;
pub const STOP: u32 = 0;

pub fn engine() -> SimEngine {
    SimEngine::new(VOCAB, 4096, WINDOW)
}

/// The same with a recurrent layer.
pub fn hybrid() -> SimEngine {
    SimEngine::hybrid(VOCAB, 4096, WINDOW)
}

pub fn options() -> SchedulerOptions {
    SchedulerOptions {
        max_batch: 4,
        prefill_step_tokens: 32,
        block_tokens: BLOCK,
        ..SchedulerOptions::default()
    }
}

pub fn start_with(engine: SimEngine, options: SchedulerOptions, resident_bytes: u64) -> SchedulerThread {
    spawn(engine, options, resident_bytes, None)
}

/// As [`start_with`], with a disk tier in `dir` of about so many bytes.
pub fn start_on_disk(
    engine: SimEngine,
    dir: &Path,
    resident_bytes: u64,
    budget_bytes: u64,
) -> SchedulerThread {
    spawn(engine, options(), resident_bytes, Some(disk(dir, budget_bytes)))
}

/// A disk tier in `dir` of about so many bytes.
pub fn disk(dir: &Path, budget_bytes: u64) -> DiskOptions {
    DiskOptions {
        dir: dir.to_owned(),
        budget_bytes,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 20,
        readers: 2,
    }
}

fn spawn(
    engine: SimEngine,
    options: SchedulerOptions,
    resident_bytes: u64,
    disk: Option<DiskOptions>,
) -> SchedulerThread {
    let block_tokens = options.block_tokens;
    let cache = move |info: &prefixd_engine::EngineInfo| {
        Some(CacheOptions { fingerprint: info.fingerprint, block_tokens, resident_bytes, disk })
    };
    SchedulerThread::spawn(options, move |_| Ok(engine), cache).unwrap()
}

pub fn start() -> SchedulerThread {
    start_with(engine(), options(), 1 << 20)
}

pub fn stop(scheduler: SchedulerThread) {
    scheduler.handle().drain(Duration::from_secs(30));
    scheduler.join().unwrap();
}

pub fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt,
        max_tokens,
        min_tokens: 0,
        stop_tokens: Arc::from([STOP]),
        sampling: Sampling::default(),
        constraint: None,
        top_logprobs: None,
        tenant: Tenant::PUBLIC,
        hold: Hold::default(),
    }
}

/// A prompt that is the same for the same seed, and shares its first tokens with longer ones of that seed.
pub fn prompt(seed: u32, tokens: usize) -> Vec<u32> {
    (0..tokens as u32)
        .map(|at| 1 + (at.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) % (VOCAB as u32 - 1))
        .collect()
}

/// What the engine alone answers: no scheduler, no batch, no cache.
pub fn reference(prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason) {
    reference_of(engine(), prompt, max_tokens)
}

/// What an engine alone answers.
pub fn reference_of(mut engine: SimEngine, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason) {
    let mut row = engine.start().unwrap();
    let mut logits = engine.prefill(&mut row, prompt).unwrap();
    let mut answer = Vec::new();
    loop {
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        if best == STOP {
            return (answer, FinishReason::Stop);
        }
        answer.push(best);
        if answer.len() == max_tokens {
            return (answer, FinishReason::Length);
        }
        logits = engine.decode(&mut row, &[best]).unwrap().remove(0);
    }
}

pub struct Outcome {
    pub usage: PromptUsage,
    pub answer: Vec<u32>,
    pub reason: FinishReason,
}

pub fn collect(mut stream: Stream) -> Outcome {
    let Some(Event::Started(usage)) = stream.blocking_next() else { panic!("a stream begins with Started") };
    let mut answer = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(Event::Token(token)) => answer.push(token.id),
            Some(Event::Finished(finish)) => {
                assert_eq!(stream.blocking_next(), None, "nothing follows the end");
                return Outcome { usage, answer, reason: finish.reason };
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// The files of all blocks of a store, in order of name, without those of window parts.
pub fn block_files(dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(dir.join("blocks")).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| !path.to_str().unwrap().ends_with(".window.safetensors"));
    files.sort();
    files
}
