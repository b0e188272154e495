//! Traces as Mooncake publishes them: a JSON object a line with `timestamp` (ms), `input_length`, `output_length` (tokens)
//! and `hash_ids`, one id for each 512 tokens of the input; equal ids stand for equal prefixes.

use serde::Deserialize;

use crate::replay::{BLOCK_TOKENS, Request};

#[derive(Deserialize)]
struct Line {
    timestamp: u64,
    input_length: usize,
    hash_ids: Vec<u32>,
}

/// Reads a trace. The error names the line.
pub fn parse(text: &str) -> Result<Vec<Request>, String> {
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |error: &dyn std::fmt::Display| format!("line {}: {error}", number + 1);
        let Line { timestamp, input_length, hash_ids } =
            serde_json::from_str(line).map_err(|error| at(&error))?;
        let expected = input_length.div_ceil(BLOCK_TOKENS);
        if hash_ids.len() != expected {
            return Err(at(&format!(
                "{} hash_ids for {input_length} tokens, expected {expected}",
                hash_ids.len()
            )));
        }
        requests.push(Request { at_ms: timestamp, tokens: input_length, blocks: hash_ids });
    }
    Ok(requests)
}
