//! Laws of the MLX engine, on tiny models of every family and on the embedded model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/cases.rs"]
mod cases;

use std::path::{Path, PathBuf};

use cases::{cases, golden};
use mlx_rs::Dtype;
use prefixd::mlx::{Arithmetic, Kernels, KvSetting, LoadOptions, MlxEngine, self_check};
use prefixd_cache::Part;
use prefixd_engine::{Engine, EngineError, Gate, GateError, ImportBlock, Owner, RowWork, Steps, Wanted};

/// The embedded model: window and full layers, two kv heads of 64, six query heads.
fn clerk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")
}

fn owner() -> Owner {
    Gate::new(|_| Err(GateError::Closed)).enter().unwrap()
}

fn load(owner: &Owner, dir: &Path, kv: &str, block_tokens: usize) -> MlxEngine {
    let options = LoadOptions { kv: kv.parse().unwrap(), block_tokens, ..LoadOptions::default() };
    MlxEngine::load(owner.thread(), dir, options, &mut |_| ()).unwrap()
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
    for case in cases() {
        // On the host weights are no arrays; norms and rotations are.
        for (kernels, least) in [(Kernels::Host, 4), (Kernels::Device, 20)] {
            let arithmetic = Some(Arithmetic { kernels, float: Dtype::Float32 });
            let options = LoadOptions { kv: KvSetting::REFERENCE, arithmetic, ..LoadOptions::default() };
            let engine = MlxEngine::load(owner.thread(), &golden(&case), options, &mut |_| ()).unwrap();
            let (arrays, there) = engine.materialized();
            assert!(arrays > least, "{case}: {arrays} arrays walked");
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
        let riding = engine.start().unwrap();
        engine.extend(&mut together, riding).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        for size in [1, 40, 7, 300, 500, 52] {
            let next = [tokens[at], tokens[at + 1]];
            let one = |row| RowWork { row, tokens: &next[row..=row], wanted: Wanted::Last };
            let wanted = if at + size == 900 { Wanted::Last } else { Wanted::Nothing };
            let chunk = RowWork { row: 2, tokens: &tokens[at..at + size], wanted };
            // The order in which rows are named decides the order of the answers and nothing else.
            let mut stepped = if size % 2 == 0 {
                engine.step(&mut together, &[one(0), one(1), chunk]).unwrap()
            } else {
                let mut stepped = engine.step(&mut together, &[chunk, one(1), one(0)]).unwrap();
                stepped.reverse();
                stepped
            };
            found = stepped.pop().unwrap();
            assert_eq!((found.len(), stepped.len()), (wanted.count(size), 2));
            let alone = engine.decode(&mut batch, &next).unwrap();
            for (row, decoded) in stepped.iter().enumerate() {
                assert!(bits(&decoded[0]) == bits(&alone[row]), "{kv}: row {row} beside {size}");
            }
            at += size;
        }
        assert_eq!(at, 900);
        assert!(bits(&found[0]) == bits(&expected), "{kv}: the prompt");
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

/// Chunks, neighbours, and a way through blocks, in every family.
#[test]
fn no_family_lets_chunks_neighbours_or_blocks_change_one_bit() {
    const BLOCK: usize = 16;
    let owner = owner();
    for case in cases() {
        for kv in ["16", "k8v4"] {
            let options =
                LoadOptions { kv: kv.parse().unwrap(), block_tokens: BLOCK, ..LoadOptions::default() };
            // Heads of fewer than 64 cannot be quantized.
            let Ok(mut engine) = MlxEngine::load(owner.thread(), &golden(&case), options, &mut |_| ()) else {
                assert_eq!(kv, "k8v4", "{case}");
                continue;
            };
            let what = format!("{case}, KV {kv}");
            let tokens = prompt(104, engine.info().vocab);
            let mut cold = engine.start().unwrap();
            let expected = engine.prefill(&mut cold, &tokens).unwrap();
            let (mut chunked, mut payloads, mut at) = (engine.start().unwrap(), Vec::new(), 0);
            let mut snapshot = None;
            for size in [7, 30, 1, 24, 34, 8] {
                let found = engine.prefill(&mut chunked, &tokens[at..at + size]).unwrap();
                at += size;
                if at == 96 && engine.info().state.has_snapshots() {
                    snapshot = Some(engine.snapshot(&chunked, 0).unwrap());
                }
                assert!(at < 104 || bits(&found) == bits(&expected), "{what}: chunks");
                while (payloads.len() + 1) * BLOCK <= at {
                    let start = payloads.len() * BLOCK;
                    payloads.push(engine.export(&chunked, 0, start..start + BLOCK).unwrap());
                }
            }
            let block = |payload| ImportBlock { payload, block_tokens: BLOCK, used_tokens: BLOCK };
            let blocks: Vec<_> = payloads.iter().map(block).collect();
            let mut warm = engine.import(&blocks).unwrap();
            let again = engine.export(&warm, 0, 80..96).unwrap();
            assert!(again == payloads[5], "{what}: the bytes of an imported block");
            if let Some(snapshot) = snapshot {
                engine.resume(&mut warm, 0, &snapshot).unwrap();
                assert!(engine.snapshot(&warm, 0).unwrap() == snapshot, "{what}: the bytes of a snapshot");
            }
            let found = engine.prefill(&mut warm, &tokens[96..]).unwrap();
            assert!(bits(&found) == bits(&expected), "{what}: after a restore");
            // A batch of ragged rows, the first of which is the restored one.
            for length in [3, 61] {
                let mut other = engine.start().unwrap();
                engine.prefill(&mut other, &tokens[..length]).unwrap();
                engine.extend(&mut warm, other).unwrap();
            }
            let vocab = engine.info().vocab as u32;
            for step in 0..32 {
                let next = [step * 5, step, 200 - step].map(|token| token % vocab);
                let alone = engine.decode(&mut cold, &next[..1]).unwrap().remove(0);
                let together = engine.decode(&mut warm, &next).unwrap();
                assert!(bits(&together[0]) == bits(&alone), "{what}: step {step} beside other rows");
            }
        }
    }
}

#[test]
fn an_import_in_pieces_goes_on_as_the_computed_row() {
    let owner = owner();
    for kv in ["k8v4", "16"] {
        let mut engine = load(&owner, &clerk(), kv, 256);
        let tokens = prompt(1400, engine.info().vocab);
        let (mut row, mut all) = (engine.start().unwrap(), Vec::new());
        for chunk in tokens[..1280].chunks(256) {
            engine.prefill(&mut row, chunk).unwrap();
            all.push(engine.export(&row, 0, all.len() * 256..all.len() * 256 + 256).unwrap());
        }
        let expected = engine.prefill(&mut row, &tokens[1280..]).unwrap();
        // With 1280 tokens known, a window of 512 sees into the third block of five.
        for stripped in [0..0, 0..2, 1..2] {
            let mut payloads = all.clone();
            for payload in &mut payloads[stripped.clone()] {
                payload.tensors.retain(|tensor| tensor.part == Part::Full);
            }
            let block = |payload| ImportBlock { payload, block_tokens: 256, used_tokens: 256 };
            let blocks: Vec<_> = payloads.iter().map(block).collect();
            for size in [1, 2, 3, 5] {
                let mut batch = engine.start().unwrap();
                let own = engine.start().unwrap();
                engine.extend(&mut batch, own).unwrap();
                for piece in blocks.chunks(size) {
                    engine.append(&mut batch, 1, piece, 1280).unwrap();
                }
                let work = RowWork { row: 1, tokens: &tokens[1280..], wanted: Wanted::Last };
                let found = engine.step(&mut batch, &[work]).unwrap().remove(0).remove(0);
                assert!(
                    bits(&found) == bits(&expected),
                    "{kv}: pieces of {size}, no windows in {stripped:?}"
                );
            }
        }
        // A window part that is needed and missing is a bad block, and the row stays as it was.
        let mut payloads = all.clone();
        payloads[3].tensors.retain(|tensor| tensor.part == Part::Full);
        let block = |payload| ImportBlock { payload, block_tokens: 256, used_tokens: 256 };
        let mut row = engine.import(&[block(&all[0]), block(&all[1]), block(&all[2])]).unwrap();
        let refused = engine.append(&mut row, 0, &[block(&payloads[3])], 1280);
        assert!(matches!(&refused, Err(EngineError::Block(text)) if text.contains("lacks")), "{refused:?}");
        let found = engine.prefill(&mut row, &tokens[768..]).unwrap();
        let mut cold = engine.start().unwrap();
        let expected = engine.prefill(&mut cold, &tokens).unwrap();
        assert!(bits(&found) == bits(&expected), "{kv}: after a refused piece");
    }
}

#[test]
fn the_start_up_check_passes_on_every_family_and_setting() {
    let owner = owner();
    for case in cases() {
        let mut engine = load(&owner, &golden(&case), "16", 16);
        let report = self_check(&mut engine, 4096, &mut |_| ()).unwrap();
        assert!(report.distance == 0.0 && report.prompt_tokens >= 96, "{case}: {report:?}");
    }
    for kv in ["k8v4", "16", "8", "4"] {
        let report = self_check(&mut load(&owner, &clerk(), kv, 256), 4096, &mut |_| ()).unwrap();
        assert!(report.distance == 0.0 && report.prompt_tokens > 512, "{kv}: {report:?}");
    }
}

#[test]
fn the_device_path_computes_the_same_model() {
    // On this backend the operations that a GPU would run, in f32: another order of sums, the same function.
    let owner = owner();
    let quantized = [("llama3", "8"), ("gemma3-quantized", "16"), ("qwen3_moe-quantized", "16")];
    let quantized = quantized.map(|(case, kv)| (case.to_owned(), kv));
    for (case, kv) in cases().into_iter().map(|case| (case, "32")).chain(quantized) {
        let dir = golden(&case);
        let mut host = load(&owner, &dir, kv, 16);
        let arithmetic = Some(Arithmetic { kernels: Kernels::Device, ..host.arithmetic() });
        let options =
            LoadOptions { kv: kv.parse().unwrap(), block_tokens: 16, arithmetic, ..LoadOptions::default() };
        let mut device = MlxEngine::load(owner.thread(), &dir, options, &mut |_| ()).unwrap();
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
        // An element at the border between two codes may fall either way: one code is what a setting can cost. Products with
        // codes take activations as whole numbers of 16 bits on the host.
        let tolerance = match kv {
            "32" if case.ends_with("quantized") => 2e-3,
            "32" => 1e-4,
            _ => 2e-2,
        };
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
    let input = |result: Result<Vec<_>, EngineError>| match result {
        Err(EngineError::Input(text)) => text,
        other => panic!("{other:?}"),
    };
    input(engine.prefill(&mut row, &[]));
    let error = input(engine.prefill(&mut row, &[1, 256]));
    assert!(error.contains("256"), "{error}");
    assert!(matches!(engine.decode(&mut row, &[1, 2]), Err(EngineError::Input(_))));
    assert!(matches!(engine.trim(&mut row, 0, 1), Err(EngineError::Input(_))));
    assert!(matches!(engine.extract(&row, 1), Err(EngineError::Input(_))));
    let mut none = engine.empty();
    input(engine.prefill(&mut none, &[1]));
    assert_eq!(engine.decode(&mut none, &[]).unwrap().len(), 0);
    assert!(bits(&engine.prefill(&mut row, &[1, 2, 3]).unwrap()) == bits(&expected));
}
