//! Laws of recurrent layers on the MLX engine, on tiny models of every family that has some.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/cases.rs"]
mod cases;

use std::path::Path;

use cases::{cases, golden};
use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd_cache::TensorBytes;
use prefixd_engine::{Engine, EngineError, Gate, GateError, ImportBlock, Owner, RowWork, Steps, Wanted};

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

/// A row's state is its own: through steps of any size, among rows that come and go, through copies, and from the bytes of a
/// snapshot taken anywhere.
#[test]
fn a_state_is_the_same_by_every_way_to_it() {
    const BLOCK: usize = 16;
    let owner = owner();
    let tokens = prompt(150, 256);
    let mut recurrent = 0;
    for case in cases() {
        let mut engine = load(&owner, &golden(&case), "16", BLOCK);
        if !engine.info().state.has_snapshots() {
            continue;
        }
        recurrent += 1;
        let mut cold = engine.start().unwrap();
        let expected = engine.prefill(&mut cold, &tokens).unwrap();
        let end = engine.snapshot(&cold, 0).unwrap();
        let mut salt = 1_u64;
        let mut draw = |most: usize| {
            salt = salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (salt >> 33) as usize % most
        };
        for round in 0..12 {
            // Up to an odd offset, in chunks, beside rows that come and go.
            let (mut batch, mut mine, mut at) = (engine.start().unwrap(), 0, 0);
            let offset = 1 + draw(149);
            while at < offset {
                let size = (1 + draw(40)).min(offset - at);
                let other = &tokens[..=draw(20)];
                let mut work =
                    vec![RowWork { row: mine, tokens: &tokens[at..at + size], wanted: Wanted::Last }];
                let strangers = (0..batch.len()).filter(|row| *row != mine);
                work.extend(strangers.map(|row| RowWork { row, tokens: other, wanted: Wanted::Nothing }));
                if draw(2) == 0 {
                    work.reverse();
                }
                engine.step(&mut batch, &work).unwrap();
                at += size;
                match draw(4) {
                    0 if batch.len() < 4 => {
                        let mut stranger = engine.start().unwrap();
                        engine.prefill(&mut stranger, other).unwrap();
                        engine.extend(&mut stranger, batch).unwrap();
                        (batch, mine) = (stranger, mine + 1);
                    }
                    1 => {
                        engine.filter(&mut batch, &[mine]).unwrap();
                        mine = 0;
                    }
                    2 => {
                        // The copy goes its own way.
                        let mut copy = engine.extract(&batch, mine).unwrap();
                        engine.prefill(&mut copy, other).unwrap();
                    }
                    _ => {}
                }
            }
            let snapshot = engine.snapshot(&batch, mine).unwrap();
            let ranges = (0..offset).step_by(BLOCK).map(|from| from..(from + BLOCK).min(offset));
            let payloads: Vec<_> =
                ranges.map(|range| (range.len(), engine.export(&batch, mine, range).unwrap())).collect();
            // From bytes that lie elsewhere, in another order.
            let mut travelled = snapshot.clone();
            for tensor in &mut travelled.tensors {
                tensor.data = tensor.data.to_vec().into();
            }
            travelled.tensors.reverse();
            let blocks: Vec<_> = payloads
                .iter()
                .map(|(tokens, payload)| ImportBlock { payload, block_tokens: *tokens, used_tokens: *tokens })
                .collect();
            for snapshot in [&snapshot, &travelled] {
                let mut warm = engine.import(&blocks).unwrap();
                let refused = engine.prefill(&mut warm, &tokens[offset..=offset]);
                assert!(
                    matches!(&refused, Err(EngineError::Input(text)) if text.contains("snapshot")),
                    "{refused:?}"
                );
                engine.resume(&mut warm, 0, snapshot).unwrap();
                let found = engine.prefill(&mut warm, &tokens[offset..]).unwrap();
                assert!(bits(&found) == bits(&expected), "{case}, round {round}: from {offset}");
                assert!(
                    engine.snapshot(&warm, 0).unwrap() == end,
                    "{case}, round {round}: the state from {offset}"
                );
            }
        }
    }
    assert!(recurrent > 0, "no case has recurrent layers");
}

#[test]
fn a_wrong_snapshot_is_refused_and_the_row_stays_as_it_was() {
    let owner = owner();
    let mut engine = load(&owner, &golden("qwen3_5"), "16", 16);
    let tokens = prompt(40, 256);
    let mut row = engine.start().unwrap();
    assert!(matches!(engine.snapshot(&row, 0), Err(EngineError::Input(_))), "no tokens, no state");
    engine.prefill(&mut row, &tokens[..32]).unwrap();
    let snapshot = engine.snapshot(&row, 0).unwrap();
    let refused = engine.resume(&mut row, 0, &snapshot);
    assert!(matches!(refused, Err(EngineError::Input(_))), "a row that computed its state");
    assert!(matches!(engine.trim(&mut row, 0, 31), Err(EngineError::Input(text)) if text.contains("32")));
    engine.trim(&mut row, 0, 32).unwrap();
    let payloads = [0..16, 16..32].map(|range| engine.export(&row, 0, range).unwrap());
    let states = ["tail", "delta"];
    let named = |name: &str| states.iter().any(|state| name.ends_with(state));
    assert!(!payloads.iter().flat_map(|payload| &payload.tensors).any(|tensor| named(&tensor.name)));
    assert!(snapshot.tensors.iter().all(|tensor| named(&tensor.name)));
    let expected: u64 = engine.info().state.snapshot_bytes();
    assert_eq!(snapshot.bytes(), expected);
    let blocks =
        payloads.each_ref().map(|payload| ImportBlock { payload, block_tokens: 16, used_tokens: 16 });
    let mut warm = engine.import(&blocks).unwrap();
    let wrong = |change: fn(&mut Vec<TensorBytes>)| {
        let mut snapshot = snapshot.clone();
        change(&mut snapshot.tensors);
        snapshot
    };
    let cases = [
        (wrong(|tensors| tensors.truncate(1)), "lacks the tensor 000.delta"),
        (wrong(|tensors| tensors[1].shape.reverse()), "000.delta"),
        (wrong(|tensors| tensors[0].dtype = safetensors::Dtype::I32), "000.tail"),
        (wrong(|tensors| tensors[0].data = tensors[0].data.slice(4..8)), "000.tail"),
    ];
    for (snapshot, word) in cases {
        let refused = engine.resume(&mut warm, 0, &snapshot);
        assert!(matches!(&refused, Err(EngineError::Block(text)) if text.contains(word)), "{refused:?}");
    }
    engine.resume(&mut warm, 0, &snapshot).unwrap();
    let found = engine.prefill(&mut warm, &tokens[32..]).unwrap();
    assert!(bits(&found) == bits(&engine.prefill(&mut row, &tokens[32..]).unwrap()));
    // A model without recurrent layers has none.
    let mut other = load(&owner, &golden("llama3"), "16", 16);
    let mut row = other.start().unwrap();
    other.prefill(&mut row, &[1, 2]).unwrap();
    assert!(matches!(other.snapshot(&row, 0), Err(EngineError::Input(_))));
    assert!(matches!(other.resume(&mut row, 0, &snapshot), Err(EngineError::Input(_))));
    assert!(!other.info().state.has_snapshots());
}

/// What states take is counted while somebody holds it, and copies and snapshots share it.
#[test]
fn states_are_counted_once() {
    let owner = owner();
    let mut engine = load(&owner, &golden("qwen3_5"), "16", 16);
    let memory = engine.info().memory.clone();
    let mut row = engine.start().unwrap();
    engine.prefill(&mut row, &[1, 2, 3]).unwrap();
    let held = memory.held_bytes();
    assert!(held >= engine.info().state.snapshot_bytes());
    let snapshot = engine.snapshot(&row, 0).unwrap();
    assert_eq!(memory.held_bytes(), held, "a snapshot shares the row's states");
    engine.prefill(&mut row, &[4]).unwrap();
    assert!(memory.held_bytes() >= held + engine.info().state.snapshot_bytes(), "now there are two");
    drop(snapshot);
    assert_eq!(memory.held_bytes(), held);
    drop(row);
    assert_eq!(memory.held_bytes(), 0);
}
