//! Rates of a model on this machine, one JSON object a line: prefill by chunk size, decode by number of rows, and a row
//! that decodes while a prompt rides along.
//!
//! `cargo run --release --example rates -- MODEL_DIR [--kv-bits k8v4] [--tokens 4096]`

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use prefixd::mlx::{BatchKv, LoadOptions, MlxEngine};
use prefixd_cache::{Memory, Payload};
use prefixd_engine::{Engine, Gate, GateError, ImportBlock, RowWork, Steps, Wanted};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Arguments {
    /// Model directory
    model: PathBuf,
    /// KV setting
    #[arg(long, default_value = "k8v4")]
    kv_bits: String,
    /// Lengths of the prompt
    #[arg(long, value_delimiter = ',', default_value = "4096")]
    tokens: Vec<usize>,
    /// Chunk sizes to prefill with
    #[arg(long, value_delimiter = ',', default_value = "2048,512,128,32,8")]
    chunks: Vec<usize>,
    /// Numbers of rows to decode
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    rows: Vec<usize>,
    /// Tokens of a prompt that ride along with one row
    #[arg(long, value_delimiter = ',', default_value = "4,8,16,32")]
    riding: Vec<usize>,
    /// Time the prompt's first token once more, out of exported blocks
    #[arg(long)]
    again: bool,
    /// Steps to decode
    #[arg(long, default_value_t = 32)]
    steps: usize,
    /// Threads that compute; default: one for each processor
    #[arg(long)]
    threads: Option<usize>,
}

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn copies(engine: &mut MlxEngine, row: &BatchKv, count: usize) -> Result<BatchKv, Failure> {
    let mut batch = engine.empty();
    for _ in 0..count {
        let copy = engine.extract(row, 0)?;
        engine.extend(&mut batch, copy)?;
    }
    Ok(batch)
}

/// Seconds from a prompt's exported blocks, and its snapshot where the model needs one, to the logits of its last token: the best of three. Then
/// what snapshots cost: their bytes, and milliseconds to take one, and to resume from it where it was taken and out of memory that no device has seen.
fn again(engine: &mut MlxEngine, row: &BatchKv, prompt: &[u32]) -> Result<Vec<Value>, Failure> {
    let kept = prompt.len().saturating_sub(1);
    let mut payloads = Vec::new();
    for start in (0..kept).step_by(engine.block_tokens()) {
        let range = start..kept.min(start + engine.block_tokens());
        payloads.push((engine.export(row, 0, range.clone())?, range.len()));
    }
    let blocks: Vec<ImportBlock<'_>> = payloads
        .iter()
        .map(|(payload, tokens)| ImportBlock { payload, block_tokens: *tokens, used_tokens: *tokens })
        .collect();
    let best = |work: &mut dyn FnMut() -> Result<f64, Failure>| -> Result<f64, Failure> {
        (0..3).try_fold(f64::MAX, |best, _| Ok(best.min(work()?)))
    };
    let (mut snapshot, mut taken) = (None, 0.0);
    if engine.info().state.has_snapshots() {
        let mut row = engine.start()?;
        engine.prefill(&mut row, &prompt[..kept])?;
        taken = best(&mut || {
            timed(|| {
                snapshot = Some(engine.snapshot(&row, 0)?);
                Ok(())
            })
        })?;
    }
    let seconds = best(&mut || {
        timed(|| {
            let mut row = engine.import(&blocks)?;
            if let Some(snapshot) = &snapshot {
                engine.resume(&mut row, 0, snapshot)?;
            }
            engine.prefill(&mut row, &prompt[kept..])?;
            Ok(())
        })
    })?;
    let mut lines = vec![json!({"what": "again", "tokens": prompt.len(), "seconds": seconds})];
    if let Some(snapshot) = snapshot {
        let mut resume = |snapshot: &Payload| {
            let mut row = engine.import(&blocks)?;
            timed(|| Ok(engine.resume(&mut row, 0, snapshot)?))
        };
        let held = best(&mut || resume(&snapshot))?;
        let copied = best(&mut || resume(&copied(&snapshot)))?;
        lines.push(json!({"what": "snapshot", "bytes": snapshot.bytes(), "taken_ms": taken * 1e3, "resumed_ms": held * 1e3,
            "resumed_from_host_ms": copied * 1e3}));
    }
    Ok(lines)
}

/// The same bytes elsewhere.
fn copied(payload: &Payload) -> Payload {
    let mut copy = payload.clone();
    for tensor in &mut copy.tensors {
        let mut buffer = Memory::default().buffer(tensor.data.len());
        buffer.copy_from_slice(&tensor.data);
        tensor.data = buffer.share();
    }
    copy
}

fn main() -> Result<(), Failure> {
    // SAFETY: this is the first thing that the process does.
    unsafe { prefixd::config::prepare_mlx() };
    let arguments = Arguments::parse();
    if let Some(threads) = arguments.threads {
        prefixd_blas::threads::start(threads).map_err(|count| format!("{count} threads compute already"))?;
    }
    let say = |line: Value| println!("{line}");
    let owner = Gate::new(|_| Err(GateError::Closed)).enter()?;
    let options = LoadOptions { kv: arguments.kv_bits.parse()?, ..LoadOptions::default() };
    let mut loaded = None;
    let seconds = timed(|| {
        loaded = Some(MlxEngine::load(owner.thread(), &arguments.model, options, &mut |_| ())?);
        Ok(())
    })?;
    let mut engine = loaded.ok_or("no engine")?;
    say(json!({"what": "load", "backend": engine.info().backend, "seconds": seconds}));
    arguments.tokens.iter().try_for_each(|length| measure(&mut engine, &arguments, *length))
}

/// All rates over a prompt of `length` tokens.
fn measure(engine: &mut MlxEngine, arguments: &Arguments, length: usize) -> Result<(), Failure> {
    let say = |line: Value| println!("{line}");
    let (vocab, steps) = (engine.info().vocab, arguments.steps);
    let prompt: Vec<u32> = (0..length).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();

    let mut row = engine.start()?;
    for chunk in &arguments.chunks {
        // Once before the clock runs: GPU kernels are compiled on their first use.
        row = engine.start()?;
        engine.prefill(&mut row, &prompt[..length.min((*chunk).max(1))])?;
        row = engine.start()?;
        let seconds = timed(|| {
            for tokens in prompt.chunks((*chunk).max(1)) {
                engine.prefill(&mut row, tokens)?;
            }
            Ok(())
        })?;
        let rate = length as f64 / seconds;
        say(
            json!({"what": "prefill", "tokens": length, "chunk": chunk, "seconds": seconds, "tokens_per_s": rate}),
        );
    }
    if arguments.again {
        again(engine, &row, &prompt)?.into_iter().for_each(say);
    }
    for rows in &arguments.rows {
        let mut batch = copies(engine, &row, *rows)?;
        engine.decode(&mut batch, &vec![prompt[0]; *rows])?;
        let seconds = timed(|| {
            for token in prompt.iter().cycle().take(steps) {
                engine.decode(&mut batch, &vec![*token; *rows])?;
            }
            Ok(())
        })?;
        let (step_ms, rate) = (seconds * 1e3 / steps as f64, (rows * steps) as f64 / seconds);
        say(
            json!({"what": "decode", "context": length, "rows": rows, "step_ms": step_ms, "tokens_per_s": rate}),
        );
    }
    for tokens in &arguments.riding {
        let mut batch = copies(engine, &row, 2)?;
        let chunk: Vec<u32> = prompt.iter().cycle().take(*tokens).copied().collect();
        let mut both = |token: u32| {
            let decoding = RowWork { row: 0, tokens: &[token], wanted: Wanted::Last };
            engine.step(&mut batch, &[decoding, RowWork { row: 1, tokens: &chunk, wanted: Wanted::Last }])
        };
        both(prompt[0])?;
        let seconds = timed(|| {
            for token in prompt.iter().cycle().take(steps) {
                both(*token)?;
            }
            Ok(())
        })?;
        let step_ms = seconds * 1e3 / steps as f64;
        say(
            json!({"what": "decode beside a prompt", "context": length, "riding": tokens, "step_ms": step_ms}),
        );
    }
    Ok(())
}
