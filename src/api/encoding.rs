//! Bodies that are odd but legal: compressed ones, those that begin with a byte order mark, and JSON with half of a surrogate pair.

use std::borrow::Cow;
use std::io::Read;

use actix_web::HttpRequest;
use actix_web::http::header;
use flate2::bufread::{GzDecoder, ZlibDecoder};

use super::error::ApiError;

/// Bytes of a body may be this many times as many when it is unpacked; so much room is asked for.
pub const USUAL_RATIO: usize = 20;

/// U+FFFD, as JSON may write it.
const REPLACEMENT: &[u8] = br"\ufffd";

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
    /// With a header and a sum, as HTTP has it.
    Deflate,
}

impl Encoding {
    /// What the request says.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let Some(named) = request.headers().get(header::CONTENT_ENCODING) else { return Ok(Self::Plain) };
        match named.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => Err(ApiError::Invalid {
                message: format!(
                    "the body's content-encoding is {other:?}; expected gzip, deflate or identity"
                ),
                param: None,
            }),
        }
    }

    /// The body as it was before it was packed; at most `limit` bytes.
    pub fn unpack(self, packed: Vec<u8>, limit: usize) -> Result<Vec<u8>, ApiError> {
        let most = limit as u64 + 1;
        let mut bytes = Vec::new();
        let read = match self {
            Self::Plain => return Ok(packed),
            Self::Gzip => GzDecoder::new(packed.as_slice()).take(most).read_to_end(&mut bytes),
            Self::Deflate => ZlibDecoder::new(packed.as_slice()).take(most).read_to_end(&mut bytes),
        };
        read.map_err(|error| ApiError::Invalid {
            message: format!("the request body is not what its content-encoding says: {error}"),
            param: None,
        })?;
        if bytes.len() > limit { Err(ApiError::BodyTooLarge { limit }) } else { Ok(bytes) }
    }
}

/// JSON in which every escaped half of a surrogate pair is a replacement character: agents that once cut a text within a
/// character keep it in their history for ever.
pub fn whole_characters(json: &[u8]) -> Cow<'_, [u8]> {
    let mut mended = Vec::new();
    let (mut at, mut kept) = (0, 0);
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        let rest = &json[at..];
        match (surrogate(rest), surrogate(rest.get(6..).unwrap_or_default())) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(_), _) => {
                mended.extend_from_slice(&json[kept..at]);
                mended.extend_from_slice(REPLACEMENT);
                at += 6;
                kept = at;
            }
            // An escaped backslash begins no escape.
            (None, _) => at = (at + 2).min(json.len()),
        }
    }
    if kept == 0 {
        return json.into();
    }
    mended.extend_from_slice(&json[kept..]);
    mended.into()
}

/// The half of a pair that `json` begins with, escaped.
fn surrogate(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(br"\u")?.get(..4)?;
    let code = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..=0xdfff).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_are_replaced_and_pairs_and_other_escapes_are_left() {
        for (json, expected) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""a\udc00\ud83db""#, "a\u{fffd}\u{fffd}b"),
            (r#""\ud83d\ud83d\ude00\uDE00""#, "\u{fffd}\u{1f600}\u{fffd}"),
            (r#""\\ud83d \u00e9 \n \ud83d\n""#, "\\ud83d \u{e9} \n \u{fffd}\n"),
        ] {
            let mended = whole_characters(json.as_bytes());
            assert_eq!(serde_json::from_slice::<String>(&mended).unwrap(), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn what_is_json_stays_as_it_is(text in "\\PC{0,20}|[\\\\u\"d8c0]{0,20}") {
            let json = serde_json::to_vec(&text).unwrap();
            let whole = whole_characters(&json);
            prop_assert_eq!(whole.as_ref(), json.as_slice());
        }
    }
}
