use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::json;

use crate::prompt::tokenizer::Tokenizer;
use crate::prompt::tokenizer::tests::{byte_level, load, marker, restore, sentence_piece};

/// `json` with one of its fields set.
fn with(json: &[u8], pointer: &str, value: serde_json::Value) -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_slice(json).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    json.to_string().into_bytes()
}

/// Both families, with every step that the bound knows, and the embedded model's.
fn tokenizers() -> &'static [Tokenizer] {
    static ALL: OnceLock<Vec<Tokenizer>> = OnceLock::new();
    ALL.get_or_init(|| {
        let pieces = sentence_piece(&marker(), &restore(1));
        let metaspace =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
        let mut all = vec![
            byte_level(),
            with(&byte_level(), "/added_tokens/0/rstrip", true.into()),
            with(&byte_level(), "/added_tokens/1/lstrip", true.into()),
            with(&pieces, "/added_tokens/0/rstrip", true.into()),
            with(&with(&pieces, "/normalizer", json!(null)), "/pre_tokenizer", metaspace),
            include_bytes!("../../../models/clerk/tokenizer.json").to_vec(),
        ];
        for form in ["NFC", "NFD", "NFKC", "NFKD"] {
            let forms = json!({"type": "Sequence", "normalizers": [{"type": form}, marker()]});
            all.push(with(&byte_level(), "/normalizer", json!({"type": form})));
            all.push(with(&pieces, "/normalizer", forms));
        }
        all.push(pieces);
        all.iter().map(|json| load(json)).collect()
    })
}

fn assert_fits(tokenizer: &Tokenizer, text: &str) {
    let found = tokenizer.encode_rendered(text).unwrap().len();
    let least = tokenizer.least_tokens(text);
    assert!(least <= found, "at least {least} tokens were promised of the {found} in {text:?}");
}

#[test]
fn no_character_weighs_more_than_its_tokens() {
    let ranges = [0..0x3400, 0xf900..0x1_1000, 0x1_d000..0x1_f200, 0x2_f800..0x2_fa20];
    let all: Vec<String> =
        ranges.into_iter().flatten().filter_map(char::from_u32).map(String::from).collect();
    for tokenizer in tokenizers() {
        for text in &all {
            assert_fits(tokenizer, text);
        }
    }
}

#[test]
fn long_texts_are_known_to_be_long() {
    let prose = "The clerk wrote it down, twice, and then (at 12:30) sent the letter on.\n".repeat(1000);
    for tokenizer in tokenizers() {
        let (least, found) =
            (tokenizer.least_tokens(&prose), tokenizer.encode_rendered(&prose).unwrap().len());
        assert!(least * 8 >= found, "{least} of {found}");
    }
}

#[test]
fn where_a_token_may_stand_for_any_length_nothing_is_promised() {
    let pieces = sentence_piece(&marker(), &restore(1));
    let text = "never seen ".repeat(1000);
    for (json, why) in [
        (with(&pieces, "/model/byte_fallback", false.into()), "unknown characters are one token together"),
        (
            with(&pieces, "/normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true})),
            "spaces go",
        ),
        (
            with(
                &byte_level(),
                "/normalizer",
                json!({"type": "Replace", "pattern": {"Regex": "e+"}, "content": ""}),
            ),
            "letters go",
        ),
        (
            with(
                &byte_level(),
                "/pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}),
            ),
            "spaces go",
        ),
    ] {
        assert_eq!(load(&json).least_tokens(&text), 0, "{why}");
    }
}

/// Texts that have few tokens for their length.
fn short_in_tokens() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<prop::sample::Index>().prop_map(|at| {
            let clerk = &tokenizers()[5];
            let id = at.index(clerk.vocab()) as u32;
            String::from_utf8_lossy(&clerk.spelled(id)).into_owned()
        }),
        "(hell|he| w|<s>|<\\|end\\|>|<tool_call>|<0x41>|▁▁| t){1,4}",
        "[ \t\n\u{a0}\u{3000}]{0,30}",
        "[a-zKÅΩα𝐚𝐮ｅ][\u{300}-\u{304}\u{308}\u{313}\u{323}\u{345}]{0,3}",
        "[\u{1100}-\u{1112}][\u{1161}-\u{1175}][\u{11a8}-\u{11c2}]?",
        "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_would_fit_is_never_refused(text in short_in_tokens(), at in any::<prop::sample::Index>()) {
        assert_fits(at.get(tokenizers()), &text);
    }
}
