use std::collections::BTreeSet;

use serde_json::json;

use super::*;

fn config(config: Value) -> TokenizerConfig {
    serde_json::from_value(config).unwrap()
}

/// The characters that byte-level vocabularies write bytes with, in order of bytes.
fn byte_characters() -> Vec<char> {
    let plain = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut of = |byte| {
        if plain(byte) {
            byte
        } else {
            next += 1;
            next - 1
        }
    };
    (0..256).map(|byte| char::from_u32(of(byte)).unwrap()).collect()
}

/// A byte-level tokenizer (GPT-2, Llama 3, Qwen): 256 bytes, some merges, special tokens, bos added to plain texts.
pub fn byte_level() -> Vec<u8> {
    let mut vocab: serde_json::Map<String, Value> =
        byte_characters().iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    for (id, token) in ["he", "ll", "hell", "Ġw"].iter().enumerate() {
        vocab.insert((*token).into(), (256 + id).into());
    }
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}, "padding": null,
        "added_tokens": [added(260, "<s>", true), added(261, "<|end|>", true), added(262, "<tool_call>", true)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [260], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": ["h e", "l l", "he ll", "Ġ w"]},
    });
    tokenizer.to_string().into_bytes()
}

/// A SentencePiece-like tokenizer (Llama 2, Gemma): `▁` for a space, byte fallback. `normalizer` may break it.
pub fn sentence_piece(normalizer: &Value, decoder: &Value) -> Vec<u8> {
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into()];
    tokens.extend((0..=255).map(|byte: u8| format!("<0x{byte:02X}>")));
    let letters: BTreeSet<char> = (' '..='~').filter(|c| *c != ' ').collect();
    tokens.extend(letters.iter().map(char::to_string));
    tokens.extend(["▁", "▁▁", "▁t"].map(String::from));
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": normalizer, "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": ["▁ ▁", "▁ t"]},
    });
    tokenizer.to_string().into_bytes()
}

pub fn marker() -> Value {
    json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})
}

pub fn restore(strip: usize) -> Value {
    json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": strip, "stop": 0}]})
}

pub fn load(json: &[u8]) -> Tokenizer {
    Tokenizer::from_bytes(json, &config(json!({"bos_token": "<s>"}))).unwrap()
}

#[test]
fn every_kind_of_text_comes_back_from_both_families() {
    for json in [byte_level(), sentence_piece(&marker(), &restore(1))] {
        assert_eq!(load(&json).check().unwrap(), RoundTrip::default());
    }
}

#[test]
fn a_tokenizer_that_drops_the_space_marker_is_refused_with_that_reason() {
    let unmarked = json!({"type": "Replace", "pattern": {"String": " "}, "content": ""});
    let undone = json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": ""}, {"type": "ByteFallback"}, {"type": "Fuse"}]});
    for broken in [
        sentence_piece(&unmarked, &restore(1)),
        sentence_piece(&marker(), &undone),
        sentence_piece(&marker(), &restore(0)),
    ] {
        let error = load(&broken).check().unwrap_err();
        assert!(
            matches!(error, TokenizerError::SpacesLost { .. }) && error.to_string().contains("space marker"),
            "{error}"
        );
    }
}

#[test]
fn characters_a_vocabulary_lacks_are_reported_not_refused() {
    let letters = String::from_utf8(sentence_piece(&marker(), &restore(1))).unwrap();
    let report = load(
        letters
            .replace("\"byte_fallback\":true", "\"byte_fallback\":false")
            .replace("<0x0A>", "\\n")
            .replace("<0x09>", "\\t")
            .replace("<0x0D>", "\\r")
            .as_bytes(),
    );
    let lossy: Vec<&str> = report.check().unwrap().lossy.into_iter().map(|(probe, _)| probe).collect();
    assert_eq!(lossy, ["CJK", "emoji", "combining characters"]);
}

#[test]
fn decoding_agrees_with_the_library() {
    let (byte_level, pieces) = (load(&byte_level()), load(&sentence_piece(&marker(), &restore(1))));
    for tokenizer in [byte_level, pieces] {
        for (_, text) in PROBES {
            let ids = tokenizer.encode_text(text).unwrap();
            assert_eq!(tokenizer.decode(&ids), tokenizer.inner.decode(&ids, true).unwrap());
        }
    }
}

#[test]
fn bos_is_written_once_whoever_writes_it() {
    let tokenizer = load(&byte_level());
    let bos = tokenizer.token_id("<s>").unwrap();
    assert_eq!(tokenizer.encode_text("hell").unwrap(), [bos, 258]);
    assert_eq!(tokenizer.encode_text("<s>hell").unwrap(), [bos, 258]);
    assert_eq!(tokenizer.encode_rendered("<s>hell").unwrap(), [bos, 258]);
    assert_eq!(tokenizer.encode_rendered("hell").unwrap(), [258]);
}

#[test]
fn a_prompt_is_never_truncated() {
    assert_eq!(load(&byte_level()).encode_rendered(&"x ".repeat(500)).unwrap().len(), 1000);
}

#[test]
fn special_tokens_are_not_shown_but_tool_markup_is() {
    let tokenizer = load(&byte_level());
    assert_eq!(tokenizer.decode(&[260, 258, 262, 261]), "hell<tool_call>");
    assert_eq!(tokenizer.token_name(261).as_deref(), Some("<|end|>"));
}

#[test]
fn a_long_prompt_is_encoded_in_time_that_grows_with_it() {
    let tokenizer = load(&byte_level());
    let seconds = |words: usize| {
        let text = "hello world, this is a sentence.\n".repeat(words);
        let began = std::time::Instant::now();
        tokenizer.encode_rendered(&text).unwrap();
        began.elapsed().as_secs_f64()
    };
    let (short, long) = (seconds(1000), seconds(16_000));
    assert!(long < short * 16.0 * 8.0 + 1.0, "16 times the text took {:.1} times as long", long / short);
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    for bad in [&b"{}"[..], b"not json"] {
        let error = Tokenizer::from_bytes(bad, &TokenizerConfig::default()).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
    }
}

#[test]
fn an_empty_table_of_replacements_changes_nothing_and_a_damaged_one_is_refused() {
    let with = |normalizer: Value| {
        let mut json: Value = serde_json::from_slice(&byte_level()).unwrap();
        json["normalizer"] = normalizer;
        let read = Tokenizer::from_bytes(json.to_string().as_bytes(), &config(json!({})));
        read.and_then(|tokenizer| tokenizer.encode_rendered("hello w")).map_err(|error| error.to_string())
    };
    let plain = with(Value::Null).unwrap();
    let table = |text: &str| json!({"type": "Precompiled", "precompiled_charsmap": text});
    let sequence = |steps: &[Value]| json!({"type": "Sequence", "normalizers": steps});
    assert_eq!(with(table("")), Ok(plain.clone()));
    assert_eq!(with(json!({"type": "Precompiled", "precompiled_charsmap": null})), Ok(plain.clone()));
    assert_eq!(with(sequence(&[table("")])), Ok(plain.clone()));
    assert_eq!(with(sequence(&[table(""), json!({"type": "NFC"})])), Ok(plain));
    for damaged in ["AAAA", "AAAAAA==", "BAAAAAAAAAA=", "!"] {
        let error = with(table(damaged)).unwrap_err();
        assert!(error.starts_with("tokenizer.json: "), "{damaged}: {error}");
    }
}
