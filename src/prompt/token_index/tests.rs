use std::cell::RefCell;

use proptest::prelude::*;
use serde_json::json;

use super::super::tokenizer::TokenizerConfig;
use super::super::tokenizer::tests::{byte_level, load, marker, restore, sentence_piece};
use super::*;

const ALICE: Tenant = Tenant::from_bytes([1; 32]);
const BOB: Tenant = Tenant::from_bytes([2; 32]);

/// The embedded model's tokenizer, and its stop token.
fn tokenizer() -> (Tokenizer, u32) {
    let json = include_bytes!("../../../models/clerk/tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(json, &TokenizerConfig::default()).unwrap();
    let stop = tokenizer.token_id("<|end|>").unwrap();
    (tokenizer, stop)
}

/// A text, a letter a token.
fn letters(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    text.chars().flat_map(|c| tokenizer.encode_rendered(&c.to_string()).unwrap()).collect()
}

fn spells(tokenizer: &Tokenizer, tokens: &[u32], text: &str) -> bool {
    spelled(tokenizer, tokens) == text.as_bytes()
}

#[test]
fn a_prompt_that_begins_with_an_answered_one_has_its_tokens() {
    let (tokenizer, stop) = tokenizer();
    let index = TokenIndex::new(&tokenizer, &[stop], true);
    let encode = |tenant, text: &str| index.encode(&tokenizer, &tenant, text).unwrap();
    let first = "<|user|>Who?<|end|>\n<|assistant|>";
    let prompt = encode(ALICE, first);
    let answer = [letters(&tokenizer, "The north depot"), vec![stop]].concat();
    assert_ne!(tokenizer.encode_rendered("The north depot<|end|>").unwrap(), answer);
    index.note(&tokenizer, &ALICE, &prompt, &answer);
    let next = format!("{first}The north depot<|end|>\n<|user|>And?<|end|>\n");
    let known = [prompt, answer].concat();
    // Whether the next text is new or known.
    for _ in 0..2 {
        assert!(encode(ALICE, &next).starts_with(&known));
    }
    assert_eq!(encode(BOB, &next), tokenizer.encode_rendered(&next).unwrap(), "it is nobody else's");
    let changed = next.replace("north", "south");
    assert_eq!(encode(ALICE, &changed), tokenizer.encode_rendered(&changed).unwrap());
    let forgetful = TokenIndex::new(&tokenizer, &[stop], false);
    let prompt = forgetful.encode(&tokenizer, &ALICE, first).unwrap();
    forgetful.note(
        &tokenizer,
        &ALICE,
        &prompt,
        &[letters(&tokenizer, "The north depot"), vec![stop]].concat(),
    );
    assert_eq!(
        forgetful.encode(&tokenizer, &ALICE, &next).unwrap(),
        tokenizer.encode_rendered(&next).unwrap()
    );
}

#[test]
fn letters_that_spell_a_special_token_are_not_remembered() {
    let (tokenizer, stop) = tokenizer();
    let index = TokenIndex::new(&tokenizer, &[stop], true);
    let prompt = tokenizer.encode_rendered("<|user|>x<|end|>\n<|assistant|>").unwrap();
    let pieces = ["<", "|", "end", "|", ">"].map(|piece| tokenizer.encode_rendered(piece).unwrap());
    index.note(&tokenizer, &ALICE, &prompt, &[pieces.concat(), vec![stop]].concat());
    assert!(index.table.lock().texts.is_empty());
}

#[test]
fn a_known_beginning_is_not_encoded_again_and_a_growing_conversation_is_one_text() {
    let (tokenizer, stop) = tokenizer();
    let index = TokenIndex::new(&tokenizer, &[stop], true);
    let mut text = String::new();
    for turn in 0..20 {
        let said = format!("<|user|>Turn {turn} asks.<|end|>\n<|assistant|>Answer {turn}.<|end|>\n");
        text.push_str(&said);
        let tokens = index.encode(&tokenizer, &ALICE, &text).unwrap();
        assert_eq!(tokens, tokenizer.encode_rendered(&text).unwrap());
        let table = index.table.lock();
        assert_eq!((table.texts.len(), table.beginnings.len()), (1, 2 * (turn + 1)));
        assert!(table.tokens <= tokens.len());
    }
    // What the table says is believed: nothing of the beginning is looked at again.
    let hashes = hashes(&ALICE, &text, &index.cuts(&text));
    let (cuts, tokens) = index.table.lock().longest(&hashes);
    assert_eq!((cuts.len(), cuts.last().unwrap().1), (40, tokens.len()));
    // A conversation that parts shares what lies before.
    let other = text.replace("Turn 15", "Turn fifteen");
    assert_eq!(index.encode(&tokenizer, &ALICE, &other).unwrap(), tokenizer.encode_rendered(&other).unwrap());
    assert_eq!(index.table.lock().texts.len(), 2);
}

#[test]
fn memory_is_bounded() {
    let mut table = Table::default();
    for at in 0..40_u32 {
        let hash = blake3::hash(&at.to_le_bytes());
        table.add(vec![at; MOST_TOKENS / 8].into(), vec![(hash, MOST_TOKENS / 8)]);
        assert!(table.tokens <= MOST_TOKENS);
        assert_eq!(table.longest(&[hash]).1.len(), MOST_TOKENS / 8);
        assert_eq!(table.texts.len(), table.beginnings.len());
    }
    table.add(vec![0; MOST_TOKENS].into(), vec![(blake3::hash(b"too long"), MOST_TOKENS)]);
    assert!(table.longest(&[blake3::hash(b"too long")]).0.is_empty());
}

/// A tokenizer with `content` among its added tokens, as `flags` say.
fn with_token(content: &str, flags: &serde_json::Value) -> Tokenizer {
    let mut json: serde_json::Value = serde_json::from_slice(&byte_level()).unwrap();
    let mut token = json!({"id": 263, "content": content, "special": true, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false});
    token.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
    json["added_tokens"].as_array_mut().unwrap().push(token);
    load(&serde_json::to_vec(&json).unwrap())
}

#[test]
fn texts_are_cut_only_where_no_other_token_reaches() {
    let plain = json!({});
    let splits = |tokenizer: &Tokenizer| tokenizer.splits_at(tokenizer.token_id("<|end|>").unwrap());
    assert!(splits(&load(&byte_level())));
    for harmless in ["<|end", "|end|", "x", "<|start|>"] {
        assert!(splits(&with_token(harmless, &plain)), "{harmless}");
    }
    for reaching in ["<|end|>\n", "x<|end|>", "x<|", " <"] {
        assert!(!splits(&with_token(reaching, &plain)), "{reaching}");
    }
    let id = |tokenizer: &Tokenizer, name: &str| tokenizer.token_id(name).unwrap();
    let word = with_token("stop", &json!({"single_word": true}));
    assert!(!word.splits_at(id(&word, "stop")));
    let normalized = with_token("stop", &json!({"normalized": true}));
    assert!(!normalized.splits_at(id(&normalized, "stop")));
    assert!(!normalized.splits_at(id(&normalized, "he")), "an ordinary token");
    assert!(!normalized.splits_at(9_999));
}

thread_local! {
    /// Tokenizers of three kinds, each with a token that ends messages.
    static KINDS: RefCell<Vec<(Tokenizer, u32)>> = RefCell::new({
        let of = |tokenizer: Tokenizer, name: &str| {
            let id = tokenizer.token_id(name).unwrap();
            assert!(tokenizer.splits_at(id));
            (tokenizer, id)
        };
        let spaces = with_token("<sp>", &json!({"lstrip": true, "rstrip": true}));
        vec![
            of(load(&byte_level()), "<|end|>"),
            of(load(&sentence_piece(&marker(), &restore(1))), "<s>"),
            tokenizer(),
            of(spaces, "<sp>"),
        ]
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever texts came before, however they part: the tokens are those of the text as a whole.
    #[test]
    fn tokens_are_those_of_the_whole_text(
        kind in 0_usize..4,
        messages in prop::collection::vec("[a-z <|>_é▁\n]{0,12}", 1..8),
        edits in prop::collection::vec((0_usize..8, "[a-z <|>é\n]{0,12}", 0_usize..80), 1..6),
    ) {
        KINDS.with_borrow(|kinds| {
            let (tokenizer, stop) = &kinds[kind];
            let name = tokenizer.token_name(*stop).unwrap();
            let index = TokenIndex::new(tokenizer, &[*stop], true);
            let mut messages = messages;
            for (at, new, cut) in edits {
                let whole: String = messages.iter().flat_map(|message| [message, &name]).map(String::as_str).collect();
                let cut = (0..=cut.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
                for text in [&whole, &whole[..cut], &[&whole, &new].map(String::as_str).concat()] {
                    let tokens = index.encode(tokenizer, &ALICE, text).unwrap();
                    prop_assert_eq!(&tokens, &tokenizer.encode_rendered(text).unwrap(), "{:?}", text);
                }
                let at = at % (messages.len() + 1);
                messages.truncate(at + 1);
                messages.push(new);
            }
            Ok(())
        })?;
    }

    /// Whatever was answered, in whatever tokens: a prompt's tokens spell its text.
    #[test]
    fn tokens_always_spell_the_text(
        answers in prop::collection::vec(prop::collection::vec(0_u32..2_000, 0..12), 1..4),
        question in "[a-z <|>_é\n]{0,20}",
        cut in 0_usize..400,
    ) {
        let (tokenizer, stop) = tokenizer();
        let index = TokenIndex::new(&tokenizer, &[stop], true);
        let mut text = String::new();
        for answer in answers {
            text.extend(["<|user|>", &question, "<|end|>\n<|assistant|>"]);
            let prompt = index.encode(&tokenizer, &ALICE, &text).unwrap();
            prop_assert!(spells(&tokenizer, &prompt, &text));
            let answer: Vec<u32> = answer.into_iter().chain([stop]).collect();
            index.note(&tokenizer, &ALICE, &prompt, &answer);
            text.push_str(&String::from_utf8_lossy(&spelled(&tokenizer, &answer)));
        }
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        for text in [text.as_str(), &text[..cut]] {
            let tokens = index.encode(&tokenizer, &ALICE, text).unwrap();
            prop_assert!(spells(&tokenizer, &tokens, text));
        }
    }
}
