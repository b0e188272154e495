//! Rates of a model on this machine: prefill by chunk size, decode by batch size.
//!
//! `cargo run --release --example rates -- MODEL_DIR [KV_SETTING] [PROMPT_TOKENS] [ROWS]`

use std::path::Path;
use std::time::Instant;

use prefixd::engine::Engine;
use prefixd::mlx::{Gate, GateError, LoadOptions, MlxEngine};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = arguments.first().ok_or("expected a model directory")?;
    let kv = arguments.get(1).map_or("k8v4", String::as_str).parse()?;
    let length: usize = arguments.get(2).map_or(Ok(4096), |n| n.parse())?;
    let owner = Gate::new(|_| Err(GateError::Closed)).enter()?;
    let begin = Instant::now();
    let options = LoadOptions { kv, ..LoadOptions::default() };
    let mut engine = MlxEngine::load(owner.mlx(), Path::new(dir), options, &mut |_| ())?;
    println!("load {:.2} s, {:?}", begin.elapsed().as_secs_f64(), engine.info());
    let vocab = engine.info().vocab;
    let prompt: Vec<u32> = (0..length).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();

    let mut last: Option<Vec<f32>> = None;
    let chunks =
        if arguments.len() > 3 { vec![] } else { vec![length, 2048, 512, 256, 128, 64, 32, 16, 8, 4] };
    for chunk in chunks {
        let (mut row, begin, mut logits) = (engine.start()?, Instant::now(), Vec::new());
        for tokens in prompt.chunks(chunk) {
            logits = engine.prefill(&mut row, tokens)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let same = last.as_ref().is_none_or(|last| *last == logits);
        println!(
            "prefill {length} in chunks of {chunk}: {seconds:.3} s, {:.0} tok/s, same bits: {same}",
            length as f64 / seconds
        );
        last = Some(logits);
    }
    let mut row = engine.start()?;
    for tokens in prompt.chunks(512) {
        engine.prefill(&mut row, tokens)?;
    }
    for size in [1, 2, 4, 8, 16, 32] {
        let (mut batch, mut riding) = (engine.extract(&row, 0)?, engine.extract(&row, 0)?);
        let begin = Instant::now();
        for step in 0..32 {
            let chunk: Vec<u32> = (0..size).map(|i| (step * 31 + i * 7) as u32 % 4000).collect();
            engine.decode_and_prefill(&mut batch, &[7], &mut riding, &chunk)?;
        }
        println!(
            "a row and {size} tokens at {length}: {:.2} ms a step",
            begin.elapsed().as_secs_f64() * 1e3 / 32.0
        );
    }
    let only: Option<usize> = arguments.get(3).map(|n| n.parse()).transpose()?;
    for rows in only.map_or(vec![1, 2, 4, 8], |rows| vec![rows; 8]) {
        let mut batch = engine.empty();
        for _ in 0..rows {
            let copy = engine.extract(&row, 0)?;
            engine.extend(&mut batch, copy)?;
        }
        let (steps, begin) = (64, Instant::now());
        for token in &prompt[..steps] {
            engine.decode(&mut batch, &vec![*token; rows])?;
        }
        let seconds = begin.elapsed().as_secs_f64() / steps as f64;
        println!(
            "decode of {rows} rows at {length}: {:.2} ms a step, {:.0} tok/s",
            seconds * 1e3,
            rows as f64 / seconds
        );
    }
    Ok(())
}
