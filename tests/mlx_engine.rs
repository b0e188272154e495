//! Laws of the MLX engine, on tiny models of every family and on the embedded model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use prefixd::engine::{Engine, ImportBlock};
use prefixd::mlx::{
    Arithmetic, Gate, GateError, Kernels, KvSetting, LoadOptions, MlxEngine, Owner, self_check,
};

const GOLDEN: [&str; 5] = ["llama3", "llama-sharded-quantized", "qwen3", "gemma3", "gemma3-quantized"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// The embedded model: window and full layers, two kv heads of 64, six query heads.
fn clerk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")
}

fn owner() -> Owner {
    Gate::new(|_| Err(GateError::Closed)).enter().unwrap()
}

fn load(owner: &Owner, dir: &Path, kv: &str, block_tokens: usize) -> MlxEngine {
    let options = LoadOptions { kv: kv.parse().unwrap(), block_tokens, ..LoadOptions::default() };
    MlxEngine::load(owner.mlx(), dir, options, &mut |_| ()).unwrap()
}

fn prompt(length: usize, vocab: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 7919 + i / 7 * 131 + 13) % vocab) as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn every_array_is_materialized_after_loading() {
    let owner = owner();
    for case in GOLDEN {
        for dense_budget_bytes in [0, u64::MAX] {
            let options =
                LoadOptions { kv: KvSetting::REFERENCE, dense_budget_bytes, ..LoadOptions::default() };
            let engine = MlxEngine::load(owner.mlx(), &golden(case), options, &mut |_| ()).unwrap();
            let (arrays, there) = engine.materialized();
            assert!(arrays > 20, "{case}: {arrays} arrays walked");
            assert_eq!(arrays, there, "{case}");
        }
    }
}

#[test]
fn chunks_and_neighbours_do_not_change_one_bit() {
    let owner = owner();
    for (kv, length) in [("k8v4", 1100), ("16", 700), ("4", 600)] {
        let mut engine = load(&owner, &clerk(), kv, 256);
        let tokens = prompt(length, engine.info().vocab);
        let mut whole = engine.start().unwrap();
        let expected = engine.prefill(&mut whole, &tokens).unwrap();
        for sizes in [vec![512], vec![97, 1, 30], vec![333, 2]] {
            let (mut row, mut at, mut found) = (engine.start().unwrap(), 0, Vec::new());
            for size in sizes.iter().cycle() {
                let end = (at + size).min(length);
                found = engine.prefill(&mut row, &tokens[at..end]).unwrap();
                at = end;
                if at == length {
                    break;
                }
            }
            assert!(bits(&found) == bits(&expected), "{kv}: chunks of {sizes:?}");
        }
        // Decode alone, then the same with neighbours that come and go.
        let start = engine.extract(&whole, 0).unwrap();
        let mut alone = Vec::new();
        for step in 0..8 {
            alone.push(engine.decode(&mut whole, &[step * 17]).unwrap().remove(0));
        }
        let mut batch = start;
        for (step, expected) in (0..8).zip(&alone) {
            if step % 3 == 0 {
                let mut stranger = engine.start().unwrap();
                engine.prefill(&mut stranger, &tokens[..50 + 71 * step as usize]).unwrap();
                engine.extend(&mut batch, stranger).unwrap();
            }
            if step == 5 {
                engine.filter(&mut batch, &[2, 0]).unwrap();
            }
            let mine = usize::from(step >= 5);
            let mut next = vec![3; batch.len()];
            next[mine] = step * 17;
            let logits = engine.decode(&mut batch, &next).unwrap();
            assert!(bits(&logits[mine]) == bits(expected), "{kv}: step {step}, batch of {}", batch.len());
        }
    }
}

#[test]
fn a_prompt_that_rides_along_changes_no_bit_of_anyone() {
    let owner = owner();
    for kv in ["k8v4", "16"] {
        let mut engine = load(&owner, &clerk(), kv, 256);
        let tokens = prompt(1300, engine.info().vocab);
        let mut row = engine.start().unwrap();
        let expected = engine.prefill(&mut row, &tokens[..900]).unwrap();
        let mut batch = engine.empty();
        for length in [700, 3] {
            let mut other = engine.start().unwrap();
            engine.prefill(&mut other, &tokens[..length]).unwrap();
            engine.extend(&mut batch, other).unwrap();
        }
        let mut together = engine.extract(&batch, 0).unwrap();
        let second = engine.extract(&batch, 1).unwrap();
        engine.extend(&mut together, second).unwrap();
        let (mut at, mut riding, mut found) = (0, engine.start().unwrap(), Vec::new());
        for size in [1, 40, 7, 300, 500, 52] {
            let next = [tokens[at], tokens[at + 1]];
            let chunk = &tokens[at..at + size];
            let (decoded, prefilled) =
                engine.decode_and_prefill(&mut together, &next, &mut riding, chunk).unwrap();
            let alone = engine.decode(&mut batch, &next).unwrap();
            assert!((0..2).all(|row| bits(&decoded[row]) == bits(&alone[row])), "{kv}: rows beside {size}");
            (at, found) = (at + size, prefilled);
        }
        assert_eq!(at, 900);
        assert!(bits(&found) == bits(&expected), "{kv}: the prompt");
    }
}

#[test]
fn an_imported_prefix_goes_on_as_the_computed_one() {
    let owner = owner();
    for kv in ["k8v4", "16", "8", "4"] {
        let mut engine = load(&owner, &clerk(), kv, 256);
        let tokens = prompt(900, engine.info().vocab);
        let (mut row, mut payloads) = (engine.start().unwrap(), Vec::new());
        for chunk in tokens.chunks(256) {
            engine.prefill(&mut row, chunk).unwrap();
            if chunk.len() == 256 {
                let start = payloads.len() * 256;
                payloads.push(engine.export(&row, 0, start..start + 256).unwrap());
            }
        }
        for used in [256, 100, 1] {
            let block = |(i, payload)| ImportBlock {
                payload,
                block_tokens: 256,
                used_tokens: if i == 2 { used } else { 256 },
            };
            let blocks: Vec<_> = payloads.iter().enumerate().map(block).collect();
            let known = 512 + used;
            let mut warm = engine.import(&blocks).unwrap();
            let found = engine.prefill(&mut warm, &tokens[known..]).unwrap();
            let mut cold = engine.start().unwrap();
            let expected = engine.prefill(&mut cold, &tokens).unwrap();
            assert!(bits(&found) == bits(&expected), "{kv}: {used} tokens of the last block");
            if used == 256 {
                let again = engine.export(&warm, 0, 512..768).unwrap();
                assert!(again == payloads[2], "{kv}: the bytes of an imported block");
            }
        }
    }
}

#[test]
fn the_start_up_check_passes_on_every_family_and_setting() {
    let owner = owner();
    for case in GOLDEN {
        let mut engine = load(&owner, &golden(case), "16", 16);
        let report = self_check(&mut engine, 4096).unwrap();
        assert!(report.distance == 0.0 && report.prompt_tokens >= 96, "{case}: {report:?}");
    }
    for kv in ["k8v4", "16", "8", "4"] {
        let report = self_check(&mut load(&owner, &clerk(), kv, 256), 4096).unwrap();
        assert!(report.distance == 0.0 && report.prompt_tokens > 512, "{kv}: {report:?}");
    }
}

#[test]
fn the_device_path_computes_the_same_model() {
    // On this backend the operations that a GPU would run, in f32: another order of sums, the same function.
    let owner = owner();
    for (case, kv) in [("llama3", "8"), ("qwen3", "16"), ("gemma3", "32"), ("gemma3-quantized", "16")] {
        let dir = golden(case);
        let mut host = load(&owner, &dir, kv, 16);
        let arithmetic = Some(Arithmetic { kernels: Kernels::Device, ..host.arithmetic() });
        let options =
            LoadOptions { kv: kv.parse().unwrap(), block_tokens: 16, dense_budget_bytes: 0, arithmetic };
        let mut device = MlxEngine::load(owner.mlx(), &dir, options, &mut |_| ()).unwrap();
        let tokens = prompt(72, host.info().vocab);
        let run = |engine: &mut MlxEngine| {
            let mut row = engine.start().unwrap();
            let mut all = engine.score(&mut row, &tokens[..31]).unwrap();
            all.extend(engine.score(&mut row, &tokens[31..]).unwrap());
            let other = engine.extract(&row, 0).unwrap();
            engine.extend(&mut row, other).unwrap();
            all.extend(engine.decode(&mut row, &[3, 4]).unwrap());
            all
        };
        let (expected, found) = (run(&mut host), run(&mut device));
        // An element at the border between two codes may fall either way: one code is what a setting can cost.
        let tolerance = if kv == "32" { 1e-4 } else { 2e-2 };
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let range = b.iter().fold(0.0_f32, |range, x| range.max(x.abs()));
            let worst = a.iter().zip(b).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs())) / range;
            assert!(worst < tolerance, "{case}, {kv}, row {i}: {worst:e}");
        }
    }
}

#[test]
fn wrong_calls_are_errors_and_leave_the_row_as_it_was() {
    let owner = owner();
    let mut engine = load(&owner, &golden("gemma3"), "16", 16);
    let mut row = engine.start().unwrap();
    let expected = {
        let mut other = engine.start().unwrap();
        engine.prefill(&mut other, &[1, 2, 3]).unwrap()
    };
    assert!(engine.prefill(&mut row, &[]).is_err());
    let error = engine.prefill(&mut row, &[1, 256]).unwrap_err().to_string();
    assert!(error.contains("256"), "{error}");
    assert!(engine.decode(&mut row, &[1, 2]).is_err());
    let mut none = engine.empty();
    assert!(engine.prefill(&mut none, &[1]).is_err());
    assert_eq!(engine.decode(&mut none, &[]).unwrap().len(), 0);
    assert!(bits(&engine.prefill(&mut row, &[1, 2, 3]).unwrap()) == bits(&expected));
}
