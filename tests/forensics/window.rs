//! The sliding window in chunked prefill: a chunk that began inside the window was masked as if it began the prompt, and
//! long prompts lost what lay before the border.
//!
//! Protections: a mask is a type that carries its window, and a window layer keeps `window - 1` tokens before the next
//! chunk. Shown by keeping half of them (`retained` in `mlx/kv/spec.rs` halved): every length here fails.

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::prompt::ModelText;
use prefixd_engine::{Engine, Gate, GateError, Steps};

use super::support::{chat, clerk, handbook};

const LENGTHS: [usize; 6] = [1018, 1019, 1536, 2047, 3000, 6000];

#[test]
fn chunks_of_a_long_prompt_give_what_one_shot_gives() {
    let text = ModelText::open(&clerk()).unwrap();
    let long = chat(&text, &handbook(1, 3300), "What is the door code of Ada Larsen?");
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mut engine = MlxEngine::load(owner.thread(), &clerk(), LoadOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(engine.info().state.window_tokens(), Some(512));
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    for length in LENGTHS {
        let prompt = &long[long.len() - length..];
        let mut whole = engine.start().unwrap();
        let expected = engine.prefill(&mut whole, prompt).unwrap();
        let next = engine.decode(&mut whole, &[42]).unwrap().remove(0);
        for size in [512, 333] {
            let (mut row, mut found) = (engine.start().unwrap(), Vec::new());
            for chunk in prompt.chunks(size) {
                found = engine.prefill(&mut row, chunk).unwrap();
            }
            assert!(bits(&found) == bits(&expected), "{length} tokens in chunks of {size}");
            let found = engine.decode(&mut row, &[42]).unwrap().remove(0);
            assert!(bits(&found) == bits(&next), "the token after {length} in chunks of {size}");
        }
    }
}

#[test]
fn facts_before_the_window_are_recalled_whatever_the_chunks() {
    // A prompt of several windows, whose questions the model answers right when nothing is lost on the way.
    let demo: serde_json::Value =
        serde_json::from_slice(&std::fs::read(clerk().join("demo.json")).unwrap()).unwrap();
    let text = ModelText::open(&clerk()).unwrap();
    let system = demo["messages"][0]["content"].as_str().unwrap();
    let (question, expected) =
        (demo["turns"][0]["user"].as_str().unwrap(), demo["turns"][0]["expect"]["text"].as_str().unwrap());
    let prompt = chat(&text, system, question);
    assert!(prompt.len() > 3000);
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mut engine = MlxEngine::load(owner.thread(), &clerk(), LoadOptions::default(), &mut |_| ()).unwrap();
    for size in [prompt.len(), 1018, 512, 100] {
        let (mut row, mut logits) = (engine.start().unwrap(), Vec::new());
        for chunk in prompt.chunks(size) {
            logits = engine.prefill(&mut row, chunk).unwrap();
        }
        let mut answer = Vec::new();
        loop {
            let best =
                (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
            if text.stop_tokens.contains(&best) || answer.len() == 60 {
                break;
            }
            answer.push(best);
            logits = engine.decode(&mut row, &[best]).unwrap().remove(0);
        }
        assert_eq!(text.tokenizer.decode(&answer), expected, "chunks of {size}");
    }
}
