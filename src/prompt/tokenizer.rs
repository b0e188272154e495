//! The model's tokenizer: text to tokens, tokens to text, and the check that nothing is lost on the way.
//!
//! 1. A text that writes the bos token itself gets no second one.
//! 2. A tokenizer that loses spaces is refused at start-up ([`Tokenizer::check`]): a model fed such text answers
//!    nonsense that looks like a bad model.
//! 3. A prompt is never truncated or padded, whatever `tokenizer.json` says.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::detokenizer::Detokenizer;
use super::least_tokens::LeastTokens;
use super::pieces::{Entry, Pieces};
use super::tool_call::ToolSyntax;

/// Tokens that tools' answers and reasoning are written with: shown like those of calls, even where the model declares them
/// special.
const MARKUP: [&str; 8] = [
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<|channel>",
    "<channel|>",
];

/// A kind of normalizer: SentencePiece's table of replacements.
const PRECOMPILED: &str = "Precompiled";

/// Texts that must come back with every space.
const PROBES: [(&str, &str); 9] = [
    ("words", "The quick brown fox, isn't it? Yes."),
    ("runs of spaces", "one  two   three    four"),
    ("lines", "first\nsecond\n\nthird\r\nfourth"),
    ("tabs", "a\tb\t\tc \t d"),
    ("code", "fn main() {\n    if x == 1 {\n        return vec![0; 4];\n    }\n}\n"),
    ("numbers", "3.14 1,000,000 0x1F 12:30 2024-01-02"),
    ("CJK", "你好，世界 こんにちは 안녕"),
    ("emoji", "ok 👍 family 👨‍👩‍👧 flag 🇺🇳"),
    // No precomposed form exists, so that Unicode normalization leaves it alone.
    ("combining characters", "x\u{302} q\u{323} z"),
];

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` does not load.
    #[error("tokenizer.json: {0}")]
    Load(String),
    /// Its decoder is of a kind that cannot be streamed exactly.
    #[error("tokenizer.json: {0}")]
    Decoder(String),
    /// The library that reads it panicked.
    #[error("tokenizer.json: the tokenizers library fails on it; a table in it is damaged")]
    Panicked,
    /// A text did not encode.
    #[error("the tokenizer cannot encode this text: {0}")]
    Encode(String),
    /// Encoding and decoding lost or moved white space.
    #[error(
        "the tokenizer does not keep spaces ({probe}): {sent:?} comes back as {back:?}; \
         its space marker (SentencePiece writes a space as \u{2581}) is dropped, so the model would read run-together words"
    )]
    SpacesLost {
        /// Which check.
        probe: &'static str,
        /// What was encoded.
        sent: String,
        /// What was decoded.
        back: String,
    },
}

/// The result of the round-trip check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// Kinds of text whose characters (not spaces) this vocabulary cannot write, each with what came back.
    pub lossy: Vec<(&'static str, String)>,
}

/// What `tokenizer_config.json` says that concerns tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TokenizerConfig {
    /// The token that begins a text.
    pub bos_token: Option<TokenText>,
    /// The token that ends one.
    pub eos_token: Option<TokenText>,
    /// The chat template, when it is here.
    pub chat_template: Value,
}

/// A token, written plainly or with its properties.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum TokenText {
    /// `"<s>"`
    Plain(String),
    /// `{"content": "<s>", ...}`
    Described {
        /// The text.
        content: String,
    },
}

impl TokenText {
    /// The token's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Described { content: text } => text,
        }
    }
}

/// A loaded tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Arc<Pieces>,
    bos: Option<(String, Option<u32>)>,
    least: LeastTokens,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    pub fn from_bytes(json: &[u8], config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        let load = |error: tokenizers::Error| TokenizerError::Load(error.to_string());
        let json = without_empty_normalizers(json);
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&json).map_err(load))?;
        inner.with_truncation(None).map_err(load)?.with_padding(None);
        let decoder =
            serde_json::to_value(inner.get_decoder()).map_err(|e| TokenizerError::Load(e.to_string()))?;
        let added = inner.get_added_tokens_decoder();
        let vocabulary = inner.get_vocab(true);
        let least = LeastTokens::new(&json, vocabulary.keys().map(String::as_str));
        let last = vocabulary.into_values().max().unwrap_or(0);
        let syntax = ToolSyntax::of_template(&config.chat_template.to_string());
        let entries = (0..=last).map(|id| {
            let added = added.get(&id);
            let shown = |text: &str| MARKUP.contains(&text) || syntax.markup().contains(&text);
            let hidden = added.is_some_and(|token| token.special && !shown(&token.content));
            Entry { token: inner.id_to_token(id), added: added.is_some(), hidden }
        });
        let pieces = Arc::new(Pieces::new(&decoder, entries).map_err(TokenizerError::Decoder)?);
        let bos =
            config.bos_token.as_ref().map(|bos| (bos.as_str().to_owned(), inner.token_to_id(bos.as_str())));
        Ok(Self { inner, pieces, bos, least })
    }

    /// Tokens that a text has at least; known without finding them.
    pub fn least_tokens(&self, text: &str) -> usize {
        self.least.of(text)
    }

    /// Tokens of a rendered chat prompt: the template wrote every special token already.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, false)
    }

    /// Tokens of a plain text, begun as the model expects it: with bos where the tokenizer adds one.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let begun =
            self.bos.as_ref().is_some_and(|(bos, _)| !bos.is_empty() && text.starts_with(bos.as_str()));
        self.encode(text, !begun)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        guarded(|| {
            let encoding = self.inner.encode_fast(text, add_special_tokens);
            encoding
                .map(|encoding| encoding.get_ids().to_vec())
                .map_err(|error| TokenizerError::Encode(error.to_string()))
        })
    }

    /// The whole text of tokens that begin a text; special tokens are not shown.
    pub fn decode(&self, ids: &[u32]) -> String {
        decode_with(Detokenizer::of_text(self.pieces.clone()), ids)
    }

    /// Streams the answer to a chat: its first word begins a text.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::of_text(self.pieces.clone())
    }

    /// Streams the continuation of a text: a leading space belongs to it.
    pub fn continuation(&self) -> Detokenizer {
        Detokenizer::of_continuation(self.pieces.clone())
    }

    /// Ids below this are tokens.
    pub fn vocab(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes one token adds to a text; they need not be whole characters.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.of(id)
    }

    /// The bytes that a prompt writes one token with: as [`token_bytes`](Self::token_bytes), and its name where that shows
    /// nothing.
    pub fn spelled(&self, id: u32) -> Vec<u8> {
        let bytes = self.token_bytes(id);
        if bytes.is_empty() { self.token_name(id).unwrap_or_default().into_bytes() } else { bytes.to_vec() }
    }

    /// A token as the vocabulary names it; for tokens that are not shown as text.
    pub fn token_name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a text can be cut behind this token: what follows has the tokens there that it has behind the token alone.
    ///
    /// Added tokens are found before anything else, and the texts between them are encoded each by itself. So it holds for
    /// an added token that is found whatever lies around it, and that no other added token reaches into.
    pub fn splits_at(&self, id: u32) -> bool {
        let added = self.inner.get_added_tokens_decoder();
        let Some(token) = added.get(&id) else { return false };
        let reaches = |other: &str| {
            let ends = other.char_indices().skip(1).map(|(at, _)| &other[at..]);
            other.contains(&token.content) || ends.into_iter().any(|end| token.content.starts_with(end))
        };
        let mut others = added.values().filter(|other| other.content != token.content);
        !token.normalized
            && !token.single_word
            && !token.content.is_empty()
            && !others.any(|other| reaches(&other.content))
    }

    /// Encodes and decodes texts of every kind. Lost spaces are an error; lost characters are reported.
    pub fn check(&self) -> Result<RoundTrip, TokenizerError> {
        let mut result = RoundTrip::default();
        for (probe, sent) in PROBES {
            let back = self.decode(&self.encode_rendered(sent)?);
            if back == sent {
                continue;
            }
            if !spaces(&back).eq(spaces(sent)) {
                return Err(TokenizerError::SpacesLost { probe, sent: sent.into(), back });
            }
            result.lossy.push((probe, back));
        }
        Ok(result)
    }
}

/// What the tokenizers crate does not expect in a file, it answers with a panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, TokenizerError>) -> Result<T, TokenizerError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(TokenizerError::Panicked))
}

/// Without `Precompiled` normalizers that have an empty table: they change nothing, and the tokenizers crate panics on them.
fn without_empty_normalizers(json: &[u8]) -> Cow<'_, [u8]> {
    let marked = json.windows(PRECOMPILED.len()).any(|part| part == PRECOMPILED.as_bytes());
    let read = if marked { serde_json::from_slice::<Value>(json).ok() } else { None };
    let Some(mut tokenizer) = read else { return Cow::Borrowed(json) };
    let empty = |step: &Value| {
        let table = step["precompiled_charsmap"].as_str().unwrap_or_default();
        step["type"] == PRECOMPILED && table.is_empty()
    };
    let normalizer = &mut tokenizer["normalizer"];
    if empty(normalizer) {
        *normalizer = Value::Null;
    } else if let Some(steps) = normalizer["normalizers"].as_array_mut() {
        steps.retain(|step| !empty(step));
    }
    serde_json::to_vec(&tokenizer).map_or(Cow::Borrowed(json), Cow::Owned)
}

fn spaces(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().filter(|c| c.is_whitespace())
}

fn decode_with(mut detokenizer: Detokenizer, ids: &[u32]) -> String {
    let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

#[cfg(test)]
pub(super) mod tests;
