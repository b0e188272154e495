//! Tokens to text, as they come.
//!
//! 1. Never half a character: bytes that may still become one are held back; [`Detokenizer::finish`] turns what never
//!    became one into U+FFFD.
//! 2. The concatenation of what is returned equals the decoding of all tokens at once.
//! 3. The work per token depends on that token alone.

use std::sync::Arc;

use super::pieces::{Lead, Pieces};

/// The text of one answer in the making.
#[derive(Debug)]
pub struct Detokenizer {
    pieces: Arc<Pieces>,
    lead: Lead,
    /// The start of a character, at most 3 bytes, and room for one token.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// For tokens that begin a text: what the tokenizer put before its first word is taken away again.
    pub(super) fn of_text(pieces: Arc<Pieces>) -> Self {
        let lead = pieces.lead();
        Self { pieces, lead, pending: Vec::new() }
    }

    /// For tokens that go on with a text: a leading space belongs to it.
    pub(super) fn of_continuation(pieces: Arc<Pieces>) -> Self {
        Self { pieces, lead: Lead::Keep, pending: Vec::new() }
    }

    /// Takes a token; returns the text that is certain now.
    pub fn push(&mut self, id: u32) -> String {
        let mut bytes = self.pieces.of(id);
        match &mut self.lead {
            Lead::Keep => {}
            Lead::Spaces(left) => {
                while *left > 0 && bytes.first() == Some(&b' ') {
                    *left -= 1;
                    bytes = &bytes[1..];
                }
                if !bytes.is_empty() {
                    self.lead = Lead::Keep;
                }
            }
            Lead::FirstToken if bytes.is_empty() => {}
            Lead::FirstToken => {
                self.lead = Lead::Keep;
                self.pending.extend(bytes.iter().filter(|byte| **byte != b' '));
                bytes = &[];
            }
        }
        self.pending.extend_from_slice(bytes);
        self.certain()
    }

    /// The end: what is held back and never became a character.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    fn certain(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    // Lossless: `valid` was just checked.
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(wrong) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[wrong..];
                }
            }
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Entry;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn pieces(decoder: &Value, tokens: &[&str]) -> Arc<Pieces> {
        let entries = tokens.iter().map(|token| Entry {
            token: Some((*token).into()),
            added: false,
            hidden: token.starts_with("<|"),
        });
        Arc::new(Pieces::new(decoder, entries).unwrap())
    }

    /// 256 byte tokens, then words, then a hidden token.
    fn byte_fallback() -> Arc<Pieces> {
        let bytes: Vec<String> = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>")).collect();
        let mut tokens: Vec<&str> = bytes.iter().map(String::as_str).collect();
        tokens.extend(["▁hello", "▁", "▁▁", "x", "é", "你好", "<|end|>"]);
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]});
        pieces(&decoder, &tokens)
    }

    fn stream(mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
        let mut deltas: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
        deltas.push(detokenizer.finish());
        deltas
    }

    #[test]
    fn half_a_character_waits_for_its_other_half() {
        let ids: Vec<u32> = "🦀!".bytes().map(u32::from).collect();
        let deltas = stream(Detokenizer::of_text(byte_fallback()), &ids);
        assert_eq!(deltas, ["", "", "", "🦀", "!", ""]);
    }

    #[test]
    fn bytes_that_never_become_a_character_are_replaced_once_that_is_certain() {
        let deltas = stream(Detokenizer::of_text(byte_fallback()), &[0xf0, 0x9f, u32::from(b'a'), 0xe4]);
        assert_eq!(deltas, ["", "", "\u{fffd}a", "", "\u{fffd}"]);
    }

    #[test]
    fn only_the_start_of_a_text_loses_its_space() {
        let ids = [262, 256, 257, 256];
        assert_eq!(stream(Detokenizer::of_text(byte_fallback()), &ids).concat(), "hello  hello");
        assert_eq!(stream(Detokenizer::of_continuation(byte_fallback()), &ids).concat(), " hello  hello");
        assert_eq!(stream(Detokenizer::of_text(byte_fallback()), &[257, 258, 259]).concat(), "  x");
    }

    #[test]
    fn metaspace_drops_the_spaces_of_the_first_token_alone() {
        let table = pieces(
            &json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}),
            &["▁a", "▁b"],
        );
        assert_eq!(stream(Detokenizer::of_text(table), &[0, 1, 0]).concat(), "a b a");
    }

    proptest! {
        #[test]
        fn deltas_concatenate_to_the_whole_and_are_never_half_a_character(ids in prop::collection::vec(0_u32..264, 0..80)) {
            let table = byte_fallback();
            let bytes: Vec<u8> = ids.iter().flat_map(|id| table.of(*id)).copied().collect();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let deltas = stream(Detokenizer::of_continuation(table), &ids);
            prop_assert_eq!(deltas.concat(), whole);
        }

        #[test]
        fn no_replacement_character_appears_in_a_text_that_has_none(text in "\\PC{0,40}") {
            let ids: Vec<u32> = text.bytes().map(u32::from).collect();
            for delta in stream(Detokenizer::of_continuation(byte_fallback()), &ids) {
                let replaced = delta.contains(char::REPLACEMENT_CHARACTER);
                prop_assert!(!replaced || text.contains(char::REPLACEMENT_CHARACTER));
            }
        }
    }
}
