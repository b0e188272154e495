//! JSON as Python writes it: with words for numbers that JSON does not have.

use serde::de::DeserializeOwned;

/// Longest first: one of them ends another.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses `text`, in which such numbers become texts, `"Infinity"` say.
///
/// # Errors
/// Where it is no JSON in other ways.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| serde_json::from_slice(&quoted(text)).map_err(|_| error))
}

/// `text` with the words in quotes.
fn quoted(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest, mut in_string) = (Vec::with_capacity(text.len() + 16), text, false);
    while let Some((first, more)) = rest.split_first() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(word.as_bytes()));
        if let Some(word) = word {
            out.extend_from_slice(format!("\"{word}\"").as_bytes());
            rest = &rest[word.len()..];
            continue;
        }
        out.push(*first);
        rest = more;
        match first {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let Some((escaped, more)) = rest.split_first() {
                    out.push(*escaped);
                    rest = more;
                }
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn words_for_numbers_become_texts_and_texts_stay_as_they_are() {
        let text = br#"{"limits": [0.0, Infinity, -Infinity], "NaN": NaN, "said": "\"Infinity, NaN\\"}"#;
        let expected =
            json!({"limits": [0.0, "Infinity", "-Infinity"], "NaN": "NaN", "said": "\"Infinity, NaN\\"});
        assert_eq!(parse::<Value>(text).unwrap(), expected);
        assert_eq!(parse::<Value>(br#"{"a": "Infinity"}"#).unwrap(), json!({"a": "Infinity"}));
    }

    #[test]
    fn what_is_wrong_otherwise_is_told_as_it_stands_in_the_file() {
        let error = parse::<Value>(b"{\"a\": Infinity,\n}").unwrap_err();
        assert_eq!((error.line(), error.column()), (1, 7));
        for text in ["", "{", "Infinit", "{\"a\": nan}", "{\"a\": \"Infinity}"] {
            assert!(parse::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
