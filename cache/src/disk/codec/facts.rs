//! The texts under `__metadata__`, and the checksum over everything the header says.

use std::collections::BTreeMap;

use safetensors::tensor::TensorInfo;

use super::{BLOCK_FORMAT, Contents, FORMAT_VERSION, Header, TensorEntry};
use crate::block::Block;
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::payload::Part;

/// Names the checksum over the header's facts; the only text it does not cover.
pub(super) const CHECK: &str = "check";
const FORMAT: &str = "prefixd.block";
const FINGERPRINT: &str = "fingerprint";
const TENANT: &str = "tenant";
const PARENT: &str = "parent";
const START: &str = "start";
const TOKENS: &str = "tokens";
const CONTENTS: &str = "contents";
const FULL: &str = "full";
const FULL_OF_TWO: &str = "full, window apart";
const WINDOW: &str = "window";
const SNAPSHOT: &str = "snapshot";
const STATE: &str = "state";

type Texts = BTreeMap<String, String>;

pub(super) fn texts(fingerprint: &Fingerprint, block: &Block, part: Part) -> Texts {
    let contents = match part {
        Part::Full if block.has_window_part() => FULL_OF_TWO,
        Part::Full => FULL,
        Part::Window => WINDOW,
        Part::State => SNAPSHOT,
    };
    let format = if part == Part::State { FORMAT_VERSION } else { BLOCK_FORMAT };
    [
        (FORMAT, format.to_string()),
        (FINGERPRINT, fingerprint.to_string()),
        (TENANT, block.tenant.to_string()),
        (PARENT, block.parent.map(|parent| parent.to_string()).unwrap_or_default()),
        (START, block.start.to_string()),
        (TOKENS, tokens_text(&block.tokens)),
        (CONTENTS, contents.to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

pub(super) fn tensor_text(order: usize, part: Part, checksum: &blake3::Hash) -> String {
    let part = match part {
        Part::Full => FULL,
        Part::Window => WINDOW,
        Part::State => STATE,
    };
    format!("{order} {part} {}", checksum.to_hex())
}

pub(super) fn parse_tensor(name: &str, text: &str) -> Result<(usize, Part, blake3::Hash), ReadError> {
    let parsed = || {
        let mut words = text.split(' ');
        let order = words.next()?.parse().ok()?;
        let part = match words.next()? {
            FULL => Part::Full,
            WINDOW => Part::Window,
            STATE => Part::State,
            _ => return None,
        };
        Some((order, part, blake3::Hash::from_hex(words.next()?).ok()?))
    };
    parsed().ok_or_else(|| {
        ReadError::Header(format!(
            "tensor {name:?} is described by {text:?}, expected place, part and checksum"
        ))
    })
}

/// Checksum over every text but itself and every tensor's name, type, shape and place. Each piece is preceded by its
/// length and both lists are sorted by name, so that a header gives the same bytes however it is written down, and no two
/// headers do.
pub(super) fn digest<'a>(
    texts: &Texts,
    tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>,
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut piece = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, text) in texts.iter().filter(|(name, _)| *name != CHECK) {
        piece(name.as_bytes());
        piece(text.as_bytes());
    }
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|(name, _)| *name);
    for (name, info) in tensors {
        piece(name.as_bytes());
        piece(format!("{:?}", info.dtype).as_bytes());
        let numbers = info.shape.iter().chain([&info.data_offsets.0, &info.data_offsets.1]);
        piece(&numbers.flat_map(|number| (*number as u64).to_le_bytes()).collect::<Vec<u8>>());
    }
    hasher.finalize()
}

/// What the file holds, if its format is one that this build reads.
pub(super) fn contents(texts: &Texts) -> Result<Contents, ReadError> {
    let format = text(texts, FORMAT)?;
    if format == "1" {
        return Ok(Contents::All);
    }
    let is_snapshot = format == FORMAT_VERSION.to_string();
    if !is_snapshot && format != BLOCK_FORMAT.to_string() {
        return Err(ReadError::Format { found: format.to_owned(), expected: FORMAT_VERSION });
    }
    let found = text(texts, CONTENTS)?;
    let contents = match found {
        SNAPSHOT if is_snapshot => Some(Contents::Snapshot),
        FULL if !is_snapshot => Some(Contents::Full { window: false }),
        FULL_OF_TWO if !is_snapshot => Some(Contents::Full { window: true }),
        WINDOW if !is_snapshot => Some(Contents::Window),
        _ => None,
    };
    parsed(CONTENTS, found, contents)
}

pub(super) fn check_digest<'a>(
    texts: &Texts,
    tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>,
) -> Result<(), ReadError> {
    let said = blake3::Hash::from_hex(text(texts, CHECK)?);
    if said.is_ok_and(|said| said == digest(texts, tensors)) {
        Ok(())
    } else {
        Err(ReadError::Checksum("the header".into()))
    }
}

pub(super) fn identity(
    texts: &Texts,
    contents: Contents,
    tensors: Vec<TensorEntry>,
    head_bytes: u64,
) -> Result<Header, ReadError> {
    let parent = match text(texts, PARENT)? {
        "" => None,
        parent => Some(parsed(PARENT, parent, BlockKey::from_hex(parent))?),
    };
    let (fingerprint, tenant) = (text(texts, FINGERPRINT)?, text(texts, TENANT)?);
    let (start, tokens) = (text(texts, START)?, text(texts, TOKENS)?);
    let header = Header {
        fingerprint: parsed(FINGERPRINT, fingerprint, Fingerprint::from_hex(fingerprint))?,
        tenant: parsed(TENANT, tenant, Tenant::from_hex(tenant))?,
        parent,
        start: parsed(START, start, start.parse().ok())?,
        tokens: match contents {
            // Behind a whole block there may be none.
            Contents::Snapshot if tokens.is_empty() && start != "0" => Vec::new(),
            _ => parsed(TOKENS, tokens, parse_tokens(tokens))?,
        },
        contents,
        tensors,
        head_bytes,
    };
    if header.parent.is_none() == (header.start == 0) {
        Ok(header)
    } else {
        Err(ReadError::Header(format!("starts at {start}, with parent {:?}", header.parent)))
    }
}

pub(super) fn text<'a>(texts: &'a Texts, name: &str) -> Result<&'a str, ReadError> {
    texts.get(name).map(String::as_str).ok_or_else(|| ReadError::Header(format!("{name} is missing")))
}

fn parsed<T>(name: &str, text: &str, value: Option<T>) -> Result<T, ReadError> {
    value.ok_or_else(|| {
        let start: String = text.chars().take(80).collect();
        ReadError::Header(format!("{name} is {start:?}, which is not one"))
    })
}

/// Token ids, each as the 8 hexadecimal digits of its little-endian bytes.
fn tokens_text(tokens: &[u32]) -> String {
    let mut text = String::with_capacity(8 * tokens.len());
    for digit in tokens.iter().flat_map(|token| token.to_le_bytes()).flat_map(|byte| [byte >> 4, byte & 15]) {
        text.extend(char::from_digit(digit.into(), 16));
    }
    text
}

fn parse_tokens(text: &str) -> Option<Vec<u32>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(8) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks_exact(8)
        .map(|eight| Some(u32::from_str_radix(std::str::from_utf8(eight).ok()?, 16).ok()?.swap_bytes()))
        .collect()
}
