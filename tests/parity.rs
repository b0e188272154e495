//! Parity with mlx-lm: the golden models' logits, computed at once, in chunks, and token by token.
//!
//! `tests/golden/README.md` says how the vectors were made and what they notice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/cases.rs"]
mod cases;

use std::path::PathBuf;

use cases::{cases, golden};
use mlx_rs::Dtype;
use prefixd::mlx::{Arithmetic, Backend, Kernels, KvSetting, LoadOptions, MlxEngine};
use prefixd_engine::{Engine, Gate, GateError, Owner, Steps};
use safetensors::SafeTensors;

/// f32 against f32: only the order of sums differs. The promise is 2e-3; this notices more.
const TOLERANCE: f32 = 1e-4;
/// On the host activations meet codes as whole numbers of 16 bits.
const CODES_TOLERANCE: f32 = 2e-3;
/// The median row's where activations have the 8 bits of bf16, and on GPUs, whose products of f32 have 11: a mistake makes all rows
/// differ by about 1.
const ROUNDED_TOLERANCE: f32 = 5e-2;

struct Golden {
    dir: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(case: &str) -> Self {
        let dir = golden(case);
        Self { bytes: std::fs::read(dir.join("golden.safetensors")).unwrap(), dir }
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.tensor(name).unwrap().data().chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.words(name).into_iter().map(u32::from_le_bytes).collect()
    }

    fn rows(&self, name: &str, width: usize) -> Vec<Vec<f32>> {
        let flat: Vec<f32> = self.words(name).into_iter().map(f32::from_le_bytes).collect();
        flat.chunks_exact(width).map(<[f32]>::to_vec).collect()
    }
}

fn owner() -> Owner {
    Gate::new(|_| Err(GateError::Closed)).enter().unwrap()
}

fn load(owner: &Owner, golden: &Golden, options: LoadOptions) -> MlxEngine {
    MlxEngine::load(owner.thread(), &golden.dir, options, &mut |_| ()).unwrap()
}

fn reference() -> LoadOptions {
    LoadOptions { kv: KvSetting::REFERENCE, block_tokens: 16, ..LoadOptions::default() }
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let range = expected.iter().fold(0.0_f32, |range, x| range.max(x.abs()));
    found.iter().zip(expected).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs())) / range
}

/// The median and the largest distance of a row. The median is what arithmetic of few bits is judged by: in a model with
/// experts, rounding may choose another one for a token now and then.
fn distances(found: &[Vec<f32>], expected: &[Vec<f32>]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len(), "rows");
    let mut rows: Vec<_> = found.iter().zip(expected).map(|(a, b)| distance(a, b)).collect();
    rows.sort_by(f32::total_cmp);
    (rows[rows.len() / 2], rows[rows.len() - 1])
}

/// How each way to a case's logits differs from mlx-lm's.
fn differences(owner: &Owner, golden: &Golden, options: LoadOptions) -> Vec<(&'static str, f32, f32)> {
    let mut engine = load(owner, golden, options);
    let (width, arithmetic) = (engine.info().vocab, engine.arithmetic());
    let prompt = golden.ids("prompt");
    let mut found = Vec::new();
    let mut compare = |what, logits: &[Vec<f32>], expected: &str| {
        let (median, worst) = distances(logits, &golden.rows(expected, width));
        found.push((what, median, worst));
    };

    let mut row = engine.start().unwrap();
    let prefill = engine.score(&mut row, &prompt).unwrap();
    compare("prefill", &prefill, "prefill_logits");

    let tokens = golden.ids("decode_tokens");
    let decoded: Vec<_> =
        tokens.iter().map(|&token| engine.decode(&mut row, &[token]).unwrap().remove(0)).collect();
    compare("decode", &decoded, "decode_logits");

    let (mut row, mut at, mut chunked) = (engine.start().unwrap(), 0, Vec::new());
    for chunk in golden.ids("chunks") {
        let end = at + chunk as usize;
        chunked.extend(engine.score(&mut row, &prompt[at..end]).unwrap());
        at = end;
    }
    compare("chunks", &chunked, "chunked_logits");
    if arithmetic.kernels == Kernels::Host {
        assert_eq!(chunked, prefill, "{}: our own chunks agree bit for bit", golden.dir.display());
    }
    found
}

/// Every case, so that one wrong family does not hide another.
fn all_agree(options: LoadOptions) {
    let owner = owner();
    let on_gpu = Backend::detect(owner.thread()).unwrap() != Backend::Cpu;
    let mut wrong = Vec::new();
    for case in cases() {
        let golden = Golden::open(&case);
        let found = differences(&owner, &golden, options);
        let tolerance = if case.ends_with("quantized") { CODES_TOLERANCE } else { TOLERANCE };
        for (what, median, worst) in found {
            println!("{case}: {what}: {median:e}, at most {worst:e}");
            if if on_gpu { median > ROUNDED_TOLERANCE } else { worst > tolerance } {
                wrong.push(format!("{case}: {what}: {median:e}, at most {worst:e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn logits_are_those_of_mlx_lm() {
    all_agree(reference());
}

/// What runs on devices, wherever this runs.
#[test]
fn logits_by_mlx_s_operations_are_those_of_mlx_lm() {
    let arithmetic = Some(Arithmetic { kernels: Kernels::Device, float: Dtype::Float32 });
    all_agree(LoadOptions { arithmetic, ..reference() });
}

#[test]
fn quantized_kv_stays_within_bounds() {
    let owner = owner();
    // Far apart from what a mistake does, which is about 1: random weights have no room for 4 bits.
    for (kv, bound) in [("8", 0.05), ("k8v4", 0.5)] {
        let mut found = 0;
        for case in cases() {
            let golden = Golden::open(&case);
            let options = LoadOptions { kv: kv.parse().unwrap(), ..reference() };
            // Heads of fewer than 64 cannot be quantized.
            let Ok(mut engine) = MlxEngine::load(owner.thread(), &golden.dir, options, &mut |_| ()) else {
                continue;
            };
            let mut row = engine.start().unwrap();
            let prefill = engine.score(&mut row, &golden.ids("prompt")).unwrap();
            let expected = golden.rows("prefill_logits", engine.info().vocab);
            let (median, _) = distances(&prefill, &expected);
            println!("{case}, KV {kv}: {median:e}");
            assert!(median < bound, "{case}, KV {kv}: {median:e}");
            found += 1;
        }
        assert!(found > 0, "no case has heads of 64");
    }
}
