//! A lower bound of a text's tokens, from its characters alone: what cannot fit is refused before it costs anything.
//!
//! Every byte has a weight, such that the bytes of no token of the vocabulary weigh more than 1 together: one through the length
//! of the longest token that the byte is in. So a text has at least as many tokens as it weighs.
//!
//! 1. The bound is never above what the tokenizer finds. Where one token may stand for any length of text (unknown words,
//!    removed characters), there is no bound: it is 0.
//! 2. Normalizers may make a text shorter before its tokens are found. Unicode's normal forms shrink a character and its marks
//!    to a fourth of their bytes at most, and leave ASCII alone but for letters before a mark.

use serde::Deserialize;
use serde_json::Value;

use super::pieces::{byte_of, fallback_byte};

/// What a whole token weighs.
const TOKEN: u64 = 1 << 32;

/// How much shorter a text may become by Unicode's normal forms: a mathematical letter of 4 bytes becomes one of ASCII.
const SHRINKS: u64 = 4;

/// Weighs texts for one tokenizer.
#[derive(Clone, Debug)]
pub struct LeastTokens(Option<Weights>);

#[derive(Clone, Debug)]
struct Weights {
    /// Of each byte, as the text has it.
    bytes: [u64; 256],
    /// Of each byte that a normal form may change: a fourth of the least of all.
    least: u64,
    /// A normal form is made of the text.
    normal: bool,
    /// Some token takes in all the white space beside it.
    strips: bool,
}

/// What of `tokenizer.json` the bound depends on.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    byte_fallback: bool,
}

#[derive(Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

impl LeastTokens {
    /// For the tokenizer that `json` describes. `vocabulary`: its tokens, as they are written there.
    pub fn new<'a>(json: &[u8], vocabulary: impl Iterator<Item = &'a str>) -> Self {
        Self(serde_json::from_slice(json).ok().and_then(|shape| Weights::new(&shape, vocabulary)))
    }

    /// Tokens that `text` has at least.
    pub fn of(&self, text: &str) -> usize {
        self.0.as_ref().map_or(0, |weights| weights.of(text).div_ceil(TOKEN) as usize)
    }
}

impl Weights {
    fn new<'a>(shape: &Shape, vocabulary: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut steps = Steps::default();
        steps.normalizer(&shape.normalizer)?;
        steps.pre_tokenizer(&shape.pre_tokenizer)?;
        if !matches!(shape.model.kind.as_str(), "BPE" | "Unigram")
            || steps.byte_level && steps.space.is_some()
        {
            return None;
        }
        let mut longest = [0_usize; 256];
        let mut note = |bytes: &[u8]| {
            for byte in bytes {
                longest[*byte as usize] = longest[*byte as usize].max(bytes.len());
            }
        };
        let mut single = [false; 256];
        for token in vocabulary {
            let bytes = steps.bytes(token);
            note(&bytes);
            if let Some(byte) = fallback_byte(token).filter(|_| shape.model.byte_fallback) {
                single[byte as usize] = true;
            } else if let ([byte], true) = (&bytes[..], steps.byte_level) {
                single[*byte as usize] = true;
            }
        }
        for added in &shape.added_tokens {
            note(added.content.as_bytes());
            note(steps.spaced(&added.content).as_bytes());
        }
        // A character without a token of its own, nor tokens for its bytes, is unknown; of those any number are one.
        if !single.iter().all(|known| *known) {
            return None;
        }
        let weights = longest.map(|bytes| TOKEN / bytes.max(1) as u64);
        let mut bytes = weights;
        if let Some(space) = &steps.space {
            bytes[b' ' as usize] = space.bytes().map(|byte| weights[byte as usize]).sum();
        }
        let strips = shape.added_tokens.iter().any(|added| added.lstrip || added.rstrip);
        let least = weights.iter().min().copied().unwrap_or(0) / SHRINKS;
        let mut found = Self { bytes, least, normal: steps.normal, strips };
        // Added tokens are found in the text as it is.
        let heaviest = shape.added_tokens.iter().map(|added| found.of(&added.content)).max().unwrap_or(0);
        if heaviest > TOKEN {
            let lighter =
                |weight: u64| (u128::from(weight) * u128::from(TOKEN) / u128::from(heaviest)) as u64;
            found.bytes = found.bytes.map(lighter);
            found.least = lighter(found.least);
        }
        Some(found)
    }

    fn of(&self, text: &str) -> u64 {
        if !self.normal && !self.strips {
            return text.bytes().map(|byte| self.bytes[byte as usize]).sum();
        }
        let mut chars = text.chars().peekable();
        let mut sum = 0;
        while let Some(c) = chars.next() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).bytes();
            if self.strips && c.is_whitespace() {
                continue;
            }
            let composed =
                self.normal && (!c.is_ascii() || chars.peek().is_some_and(|next| !next.is_ascii()));
            sum += if composed {
                self.least * bytes.len() as u64
            } else {
                bytes.map(|byte| self.bytes[byte as usize]).sum()
            };
        }
        sum
    }
}

/// What happens to a text before its tokens are found.
#[derive(Default)]
struct Steps {
    byte_level: bool,
    /// How a space is written.
    space: Option<String>,
    normal: bool,
}

impl Steps {
    /// `None` where a step may take any length of text away.
    fn normalizer(&mut self, step: &Value) -> Option<()> {
        match step["type"].as_str() {
            None => step.is_null().then_some(()),
            Some("Sequence") => {
                step["normalizers"].as_array()?.iter().try_for_each(|step| self.normalizer(step))
            }
            Some("NFC" | "NFD" | "NFKC" | "NFKD") => {
                self.normal = true;
                Some(())
            }
            Some("Prepend") => Some(()),
            Some("Replace") if step["pattern"]["String"] == " " => self.space(step["content"].as_str()?),
            _ => None,
        }
    }

    fn pre_tokenizer(&mut self, step: &Value) -> Option<()> {
        match step["type"].as_str() {
            None => step.is_null().then_some(()),
            Some("Sequence") => {
                step["pretokenizers"].as_array()?.iter().try_for_each(|step| self.pre_tokenizer(step))
            }
            Some("ByteLevel") => {
                self.byte_level = true;
                Some(())
            }
            Some("Metaspace") => self.space(step["replacement"].as_str().unwrap_or("\u{2581}")),
            Some("Digits") => Some(()),
            Some("Split" | "Punctuation") => (step["behavior"] != "Removed").then_some(()),
            _ => None,
        }
    }

    fn space(&mut self, written: &str) -> Option<()> {
        let first = self.space.is_none() || self.space.as_deref() == Some(written);
        self.space = Some(written.to_owned());
        (first && !written.is_empty() && !written.contains(' ')).then_some(())
    }

    fn spaced(&self, text: &str) -> String {
        self.space.as_ref().map_or_else(|| text.to_owned(), |space| text.replace(' ', space))
    }

    /// The bytes that a token of the vocabulary stands for.
    fn bytes(&self, token: &str) -> Vec<u8> {
        let spelled =
            self.byte_level.then(|| token.chars().map(byte_of).collect::<Option<Vec<u8>>>()).flatten();
        spelled.unwrap_or_else(|| token.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests;
