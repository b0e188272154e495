//! The bytes that each token stands for, taken from the tokenizer's decoder once.
//!
//! 1. A text is the concatenation of its tokens' bytes, read as UTF-8 with U+FFFD for what is not; only the very start
//!    of a text may lose spaces ([`Lead`]).
//! 2. A decoder that this cannot express is refused by name.
//!
//! The tokenizers crate replaces a whole run of byte tokens by U+FFFD when one of them is wrong. Here the run's good
//! characters stay, because they may have been streamed already.

use serde_json::Value;

/// What a decoder removes at the start of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Nothing.
    Keep,
    /// At most this many spaces (`Strip`).
    Spaces(usize),
    /// Every space of the first token (`Metaspace`).
    FirstToken,
}

/// How tokens are written in the vocabulary.
#[derive(Debug)]
struct Spelling {
    /// Every byte is one printable character (GPT-2).
    byte_level: bool,
    /// `<0xE4>` is the byte 0xE4.
    byte_fallback: bool,
    /// Replacements, in order: `▁` by a space.
    replace: Vec<(String, String)>,
    lead: Lead,
}

/// The bytes of every token, in one allocation.
#[derive(Debug)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// Where token `i` ends; it starts where `i - 1` ends.
    ends: Vec<u32>,
    lead: Lead,
}

/// One vocabulary entry.
pub struct Entry {
    /// As the vocabulary spells it; `None` for an id without a token.
    pub token: Option<String>,
    /// Added tokens are plain text in whatever spelling the model uses.
    pub added: bool,
    /// Not part of a text (`<|end|>`).
    pub hidden: bool,
}

impl Pieces {
    /// Reads the decoder (`tokenizer.json`'s `decoder`, or null) and spells out every entry, in order of ids.
    pub fn new(decoder: &Value, entries: impl Iterator<Item = Entry>) -> Result<Self, String> {
        let spelling = Spelling::read(decoder)?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for entry in entries {
            if let (Some(token), false) = (entry.token, entry.hidden) {
                spelling.write(&token, entry.added, &mut bytes);
            }
            ends.push(bytes.len() as u32);
        }
        Ok(Self { bytes, ends, lead: spelling.lead })
    }

    /// The bytes of a token; none for hidden and unknown ones.
    pub fn of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// What the start of a text loses.
    pub fn lead(&self) -> Lead {
        self.lead
    }
}

impl Spelling {
    fn read(decoder: &Value) -> Result<Self, String> {
        let mut spelling =
            Self { byte_level: false, byte_fallback: false, replace: Vec::new(), lead: Lead::Keep };
        let steps = match decoder["type"].as_str() {
            Some("Sequence") => decoder["decoders"].as_array().map_or(&[][..], Vec::as_slice),
            Some(_) => std::slice::from_ref(decoder),
            None => {
                return Err(
                    "there is no decoder; expected ByteLevel, Metaspace or a Sequence for byte fallback"
                        .into(),
                );
            }
        };
        for step in steps {
            spelling.step(step)?;
        }
        Ok(spelling)
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        match step["type"].as_str().unwrap_or("without a type") {
            "ByteLevel" => self.byte_level = true,
            "ByteFallback" => self.byte_fallback = true,
            // Concatenation is what a text is anyway.
            "Fuse" => {}
            "Replace" => {
                let (Some(pattern), Some(content)) =
                    (step["pattern"]["String"].as_str(), step["content"].as_str())
                else {
                    return Err(format!("decoder Replace with {step}; expected a string pattern"));
                };
                self.replace.push((pattern.into(), content.into()));
            }
            "Strip" if step["content"] == " " && step["stop"] == 0 => {
                self.lead = Lead::Spaces(step["start"].as_u64().unwrap_or(0) as usize);
            }
            "Metaspace" => {
                self.replace.push((step["replacement"].as_str().unwrap_or("▁").into(), " ".into()));
                if step["prepend_scheme"] != "never" {
                    self.lead = Lead::FirstToken;
                }
            }
            other => {
                return Err(format!(
                    "decoder {other} ({step}); expected ByteLevel, Metaspace, Replace, ByteFallback, Fuse or Strip of leading spaces"
                ));
            }
        }
        Ok(())
    }

    fn write(&self, token: &str, added: bool, bytes: &mut Vec<u8>) {
        if self.byte_level {
            // A token with a character outside the table is text as it stands; so say the tokenizers crate and GPT-2.
            match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                Some(spelled) => bytes.extend(spelled),
                None => bytes.extend(token.bytes()),
            }
            return;
        }
        if self.byte_fallback
            && !added
            && let Some(byte) = fallback_byte(token)
        {
            bytes.push(byte);
            return;
        }
        let mut text = token.to_owned();
        for (from, to) in &self.replace {
            text = text.replace(from, to);
        }
        bytes.extend(text.bytes());
    }
}

/// `<0xE4>` is 0xE4.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that GPT-2's table writes as `c`: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_byte_table_is_a_bijection() {
        let bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        let distinct: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
        assert_eq!((bytes.len(), distinct.len()), (256, 256));
        assert_eq!((byte_of('Ġ'), byte_of('Ċ')), (Some(b' '), Some(b'\n')));
    }

    #[test]
    fn decoders_that_cannot_be_expressed_are_refused_by_name() {
        for (decoder, named) in [
            (json!(null), "no decoder"),
            (json!({"type": "CTC"}), "CTC"),
            (json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}), "Strip"),
            (json!({"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}), "Replace"),
        ] {
            let error = Pieces::new(&decoder, std::iter::empty()).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
