//! What a batch costs on this machine, on the embedded model: rows decoded together against the same rows alone, and a
//! running stream's pace while another request's prompt is computed, or restored from disk.
//!
//! `cargo bench --bench batch`. Every figure is a ratio of two measurements of this run, taken in turns, because a
//! shared machine is not the same one a minute later.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use prefixd::mlx::{LoadOptions, Mlx, MlxEngine};
use prefixd::scheduler::{Event, Hold, Request, SchedulerOptions, SchedulerThread, StartError, Stream};
use prefixd_cache::{CacheOptions, DiskOptions, Tenant};
use prefixd_engine::{Engine, Gate, GateError, Sampling, Steps};

type Failure = Box<dyn std::error::Error>;

const CONTEXT_TOKENS: usize = 2048;
const PROMPT_TOKENS: usize = 4096;
/// Two such prompts are restored beside a stream.
const RESTORED_TOKENS: usize = 32_000;
const STEPS: usize = 24;
const ROUNDS: usize = 5;

fn model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")
}

fn load(mx: &Mlx) -> Result<MlxEngine, StartError> {
    let loaded = MlxEngine::load(mx, &model(), LoadOptions::default(), &mut |_| ());
    loaded.map_err(|error| StartError::Engine(error.to_string()))
}

fn prompt(seed: usize, tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7919 + seed * 104_729 + 13) % 4000) as u32 + 20).collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Milliseconds of a step of `rows` rows, each with a context of its own.
fn step_ms(engine: &mut MlxEngine, rows: usize) -> Result<f64, Failure> {
    let mut batch = engine.empty();
    for row in 0..rows {
        let mut own = engine.start()?;
        for chunk in prompt(row, CONTEXT_TOKENS).chunks(512) {
            engine.prefill(&mut own, chunk)?;
        }
        engine.extend(&mut batch, own)?;
    }
    let begin = Instant::now();
    for step in 0..STEPS {
        engine.decode(&mut batch, &vec![step as u32 + 20; rows])?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3 / STEPS as f64)
}

fn rows_together() -> Result<(), Failure> {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter()?;
    let mut engine = load(owner.thread())?;
    let mut shown =
        table(&["rows", "ms a step", "ms alone, one after the other", "alone / together", "tokens/s"]);
    for rows in [1, 2, 4, 8] {
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(step_ms(&mut engine, 1)? * rows as f64);
            together.push(step_ms(&mut engine, rows)?);
        }
        let (together, alone) = (median(together), median(alone));
        shown.add_row([
            rows.to_string(),
            format!("{together:.2}"),
            format!("{alone:.2}"),
            format!("{:.2}", alone / together),
            format!("{:.0}", 1e3 * rows as f64 / together),
        ]);
    }
    println!("Decoding at {CONTEXT_TOKENS} tokens of context, K8V4\n{shown}\n");
    Ok(())
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt,
        max_tokens,
        min_tokens: 0,
        stop_tokens: Arc::from([]),
        sampling: Sampling::default(),
        constraint: None,
        top_logprobs: None,
        tenant: Tenant::PUBLIC,
        hold: Hold::default(),
    }
}

/// Milliseconds between the stream's tokens until `until` says that it is enough.
fn gaps(stream: &mut Stream, mut until: impl FnMut(usize) -> bool) -> Result<Vec<f64>, Failure> {
    let (mut gaps, mut last) = (Vec::new(), Instant::now());
    while !until(gaps.len()) {
        match stream.blocking_next() {
            Some(Event::Token(_)) => {
                gaps.push(last.elapsed().as_secs_f64() * 1e3);
                last = Instant::now();
            }
            Some(Event::Started(_)) => last = Instant::now(),
            other => return Err(format!("the stream ended early: {other:?}").into()),
        }
    }
    Ok(gaps)
}

fn pace(decode_slowdown: f64, shown: &mut Table) -> Result<(), Failure> {
    let options = SchedulerOptions { decode_slowdown, ..SchedulerOptions::default() };
    let scheduler = SchedulerThread::spawn(options, load, |_| None)?;
    let handle = scheduler.handle().clone();
    let (mut solo, mut beside, mut prefills) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut running = handle.submit(request(prompt(100 + round, CONTEXT_TOKENS), 8000))?;
        gaps(&mut running, |count| count == 10)?;
        solo.extend(gaps(&mut running, |count| count == 200)?);
        let begin = Instant::now();
        let mut newcomer = handle.submit(request(prompt(200 + round, PROMPT_TOKENS), 1))?;
        let done = std::thread::spawn(move || {
            while newcomer.blocking_next().is_some() {}
            begin.elapsed()
        });
        beside.extend(gaps(&mut running, |_| done.is_finished())?);
        prefills.push(done.join().map_err(|_| "the newcomer's reader panicked")?.as_secs_f64());
    }
    let name = if decode_slowdown > 1e3 { "no limit".to_owned() } else { decode_slowdown.to_string() };
    let mut row = vec![name];
    for share in [0.5, 0.95] {
        let (solo, beside) = (percentile(&solo, share), percentile(&beside, share));
        row.extend([format!("{solo:.2}"), format!("{beside:.2}"), format!("{:.2}", beside / solo)]);
    }
    row.push(format!("{:.2}", median(prefills)));
    shown.add_row(row);
    handle.drain(Duration::ZERO);
    Ok(scheduler.join()?)
}

/// A stream's pace while two long prompts are read from disk and imported.
fn beside_restores() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let disk = DiskOptions {
        dir: dir.path().to_owned(),
        budget_bytes: 4 << 30,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 30,
        readers: 2,
    };
    // Nothing stays in RAM.
    let cache = move |info: &prefixd_engine::EngineInfo| {
        let (fingerprint, block_tokens) = (info.fingerprint, 256);
        Some(CacheOptions { fingerprint, block_tokens, resident_bytes: 0, disk: Some(disk) })
    };
    let scheduler = SchedulerThread::spawn(SchedulerOptions::default(), load, cache)?;
    let handle = scheduler.handle().clone();
    let long = [prompt(301, RESTORED_TOKENS), prompt(302, RESTORED_TOKENS)];
    for prompt in &long {
        let mut stream = handle.submit(request(prompt.clone(), 1))?;
        while stream.blocking_next().is_some() {}
    }
    let (mut solo, mut beside, mut restores, mut cached) = (Vec::new(), Vec::new(), Vec::new(), usize::MAX);
    for round in 0..ROUNDS {
        let mut running = handle.submit(request(prompt(400 + round, CONTEXT_TOKENS), 8000))?;
        gaps(&mut running, |count| count == 10)?;
        solo.extend(gaps(&mut running, |count| count == 200)?);
        let begin = Instant::now();
        let newcomers = long.iter().map(|prompt| handle.submit(request(prompt.clone(), 1)));
        let newcomers: Vec<Stream> = newcomers.collect::<Result<_, _>>()?;
        let done = std::thread::spawn(move || {
            let first = |mut stream: Stream| match stream.blocking_next() {
                Some(Event::Started(usage)) => usage.disk_tokens,
                _ => 0,
            };
            let known = newcomers.into_iter().map(first).min().unwrap_or_default();
            (begin.elapsed().as_secs_f64(), known)
        });
        beside.extend(gaps(&mut running, |_| done.is_finished())?);
        let (seconds, known) = done.join().map_err(|_| "the newcomers' reader panicked")?;
        restores.push(seconds);
        cached = cached.min(known);
    }
    let mut shown = table(&["", "p50 ms", "p95 ms"]);
    let of = |values: &[f64]| [0.5, 0.95].map(|share| percentile(values, share));
    let (solo, beside) = (of(&solo), of(&beside));
    let row = |name: &str, values: [f64; 2]| {
        [name.to_owned(), format!("{:.2}", values[0]), format!("{:.2}", values[1])]
    };
    shown.add_row(row("alone", solo));
    shown.add_row(row("beside", beside));
    shown.add_row(row("ratio", [beside[0] / solo[0], beside[1] / solo[1]]));
    println!(
        "Time between a running stream's tokens, alone and while two prompts of {RESTORED_TOKENS} tokens are restored from disk\n\
         ({cached} tokens of each from disk, both started after {:.2} s)\n{shown}\n",
        median(restores)
    );
    handle.drain(Duration::ZERO);
    Ok(scheduler.join()?)
}

fn main() -> Result<(), Failure> {
    rows_together()?;
    beside_restores()?;
    let mut shown = table(&[
        "decode_slowdown",
        "p50 ms solo",
        "p50 ms beside",
        "ratio",
        "p95 ms solo",
        "p95 ms beside",
        "ratio",
        "TTFT of the prompt, s",
    ]);
    for slowdown in [SchedulerOptions::default().decode_slowdown, 3.0, 1e9] {
        pace(slowdown, &mut shown)?;
    }
    println!(
        "Time between a running stream's tokens, alone and while a prompt of {PROMPT_TOKENS} tokens is computed\n{shown}"
    );
    Ok(())
}
