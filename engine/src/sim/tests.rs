//! The engine's own promises, so that a test which relies on them proves something.

use super::*;
use crate::steps::Steps;

fn blocks(payloads: &[Payload], used_tokens: usize) -> Vec<ImportBlock<'_>> {
    payloads.iter().map(|payload| ImportBlock { payload, block_tokens: 4, used_tokens }).collect()
}

#[test]
fn an_imported_row_answers_as_the_computed_one() {
    let mut engine = SimEngine::new(64, 1000, 6);
    let mut row = engine.start().unwrap();
    let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    let payloads = [engine.export(&row, 0, 0..4).unwrap(), engine.export(&row, 0, 4..8).unwrap()];
    let mut warm = engine.import(&blocks(&payloads, 4)).unwrap();
    assert_eq!(engine.prefill(&mut warm, &[9]).unwrap(), expected);
    assert_eq!(warm[0].full, row[0].full);
}

#[test]
fn an_import_in_pieces_answers_as_one_at_once() {
    let mut engine = SimEngine::new(64, 1000, 6);
    let mut row = engine.start().unwrap();
    let tokens: Vec<u32> = (1..=20).collect();
    engine.prefill(&mut row, &tokens).unwrap();
    let payloads: Vec<Payload> =
        (0..5).map(|block| engine.export(&row, 0, block * 4..block * 4 + 4).unwrap()).collect();
    let mut whole = engine.import(&blocks(&payloads, 4)).unwrap();
    let mut pieces = engine.start().unwrap();
    for piece in payloads.chunks(2) {
        engine.append(&mut pieces, 0, &blocks(piece, 4), 20).unwrap();
    }
    assert_eq!(pieces, whole);
    let expected = engine.prefill(&mut row, &[21]).unwrap();
    assert_eq!(engine.prefill(&mut pieces, &[21]).unwrap(), expected);
    assert_eq!(engine.prefill(&mut whole, &[21]).unwrap(), expected);
    // A row that stops short of what was announced lacks what its window sees.
    let mut short = engine.start().unwrap();
    engine.append(&mut short, 0, &blocks(&payloads[..3], 4), 20).unwrap();
    let expected = engine.import(&blocks(&payloads[..3], 4)).unwrap();
    assert_ne!(short, expected);
}

#[test]
fn a_step_that_fails_changes_no_row() {
    let mut calls = 0;
    let mut engine = SimEngine::new(64, 1000, 6).with_hook(move |call| {
        calls += usize::from(matches!(call, SimCall::Step(_)));
        if calls == 2 { Err(EngineError::OutOfMemory("planted".into())) } else { Ok(()) }
    });
    let mut batch = engine.start().unwrap();
    let other = engine.start().unwrap();
    engine.extend(&mut batch, other).unwrap();
    let work = |row, tokens| RowWork { row, tokens, wanted: Wanted::Last };
    engine.step(&mut batch, &[work(0, &[1, 2]), work(1, &[3])]).unwrap();
    let before = batch.clone();
    let failed = engine.step(&mut batch, &[work(0, &[4]), work(1, &[5, 6])]);
    assert_eq!(failed, Err(EngineError::OutOfMemory("planted".into())));
    assert!(engine.step(&mut batch, &[work(0, &[4]), work(1, &[64])]).is_err(), "outside the vocabulary");
    assert_eq!(batch, before);
}

#[test]
fn a_trimmed_row_goes_on_as_one_that_was_never_longer() {
    let mut engine = SimEngine::new(64, 1000, 3);
    let (mut short, mut long) = (engine.start().unwrap(), engine.start().unwrap());
    engine.prefill(&mut short, &[1, 2, 3]).unwrap();
    engine.prefill(&mut long, &[1, 2, 3, 9, 8]).unwrap();
    engine.trim(&mut long, 0, 3).unwrap();
    assert_eq!(engine.decode(&mut long, &[4]).unwrap(), engine.decode(&mut short, &[4]).unwrap());
    assert!(engine.trim(&mut long, 0, 5).is_err());
}

#[test]
fn a_window_part_is_needed_only_where_the_window_reaches() {
    let mut engine = SimEngine::new(64, 1000, 3);
    let mut row = engine.start().unwrap();
    let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    let without_window = |range| {
        let mut payload = SimEngine::new(64, 1000, 3).export(&row, 0, range).unwrap();
        payload.tensors.retain(|tensor| tensor.part == Part::Full);
        payload
    };
    let second = engine.export(&row, 0, 4..8).unwrap();
    let mut fine = engine.import(&blocks(&[without_window(0..4), second], 4)).unwrap();
    assert_eq!(engine.prefill(&mut fine, &[9]).unwrap(), expected);
    let mut poisoned = engine.import(&blocks(&[without_window(0..4), without_window(4..8)], 4)).unwrap();
    assert_ne!(engine.prefill(&mut poisoned, &[9]).unwrap(), expected);
}

#[test]
fn one_wrong_entry_anywhere_changes_the_answer() {
    let mut engine = SimEngine::new(64, 1000, 100);
    let mut row = engine.start().unwrap();
    let expected = engine.prefill(&mut row, &[1, 2, 3, 4, 5]).unwrap();
    for position in 0..5 {
        let mut broken = row.clone();
        broken[0].full[position] ^= 1;
        assert_ne!(engine.logits(&broken[0]), expected, "position {position}");
    }
}

#[test]
fn a_snapshot_is_all_that_an_imported_row_of_a_hybrid_lacks() {
    let mut engine = SimEngine::hybrid(64, 1000, 6);
    let tokens: Vec<u32> = (1..=11).collect();
    let (mut cold, mut row) = (engine.start().unwrap(), engine.start().unwrap());
    let expected = engine.prefill(&mut cold, &tokens).unwrap();
    engine.prefill(&mut row, &tokens[..8]).unwrap();
    let snapshot = engine.snapshot(&row, 0).unwrap();
    let payloads = [engine.export(&row, 0, 0..4).unwrap(), engine.export(&row, 0, 4..8).unwrap()];
    assert!(payloads.iter().all(|payload| payload.tensor("state").is_none()), "no block has it");
    let mut warm = engine.import(&blocks(&payloads, 4)).unwrap();
    let before = warm.clone();
    for result in [engine.prefill(&mut warm, &tokens[8..]).map(drop), engine.snapshot(&warm, 0).map(drop)] {
        assert!(matches!(result, Err(EngineError::Input(_))), "{result:?}");
    }
    assert!(matches!(engine.resume(&mut warm, 0, &payloads[0]), Err(EngineError::Block(_))));
    assert_eq!(warm, before);
    engine.resume(&mut warm, 0, &snapshot).unwrap();
    assert_eq!(engine.prefill(&mut warm, &tokens[8..]).unwrap(), expected);
    assert_eq!(engine.snapshot(&warm, 0).unwrap(), engine.snapshot(&cold, 0).unwrap());
    assert!(engine.resume(&mut warm, 0, &snapshot).is_err(), "the row has its state");
    assert!(engine.trim(&mut warm, 0, 9).is_err(), "a state cannot be cut");
    engine.trim(&mut warm, 0, 11).unwrap();
}

#[test]
fn a_hybrid_answers_by_the_state_of_exactly_its_tokens() {
    let mut engine = SimEngine::hybrid(64, 1000, 6);
    let tokens: Vec<u32> = (1..=9).collect();
    let mut cold = engine.start().unwrap();
    let expected = engine.prefill(&mut cold, &tokens).unwrap();
    let mut row = engine.start().unwrap();
    engine.prefill(&mut row, &tokens[..4]).unwrap();
    let earlier = engine.snapshot(&row, 0).unwrap();
    engine.prefill(&mut row, &tokens[4..8]).unwrap();
    let payloads = [engine.export(&row, 0, 0..4).unwrap(), engine.export(&row, 0, 4..8).unwrap()];
    let mut other = engine.start().unwrap();
    engine.prefill(&mut other, &[1, 2, 3, 4, 5, 6, 8, 7]).unwrap();
    for wrong in [earlier, engine.snapshot(&other, 0).unwrap()] {
        let mut warm = engine.import(&blocks(&payloads, 4)).unwrap();
        engine.resume(&mut warm, 0, &wrong).unwrap();
        assert_ne!(engine.prefill(&mut warm, &tokens[8..]).unwrap(), expected);
    }
    let mut plain = SimEngine::new(64, 1000, 6);
    let row = plain.start().unwrap();
    assert!(plain.snapshot(&row, 0).is_err());
}
