//! What tests of streaming readers share: texts in pieces, and all that a reader makes of them.

use super::{ToolCallFormat, ToolText};

/// `text` in pieces of so many characters each; the last takes the rest.
pub fn cut<'a>(text: &'a str, lengths: &[usize]) -> Vec<&'a str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    for &length in lengths {
        let (piece, after) = rest.split_at(rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// The text that is shown, and the name and arguments of each call.
pub fn read_all<'a>(
    format: &mut dyn ToolCallFormat,
    pieces: impl IntoIterator<Item = &'a str>,
) -> (String, Vec<(String, String)>) {
    let mut all: Vec<ToolText> = pieces.into_iter().flat_map(|piece| format.push(piece)).collect();
    all.extend(format.finish());
    let (mut shown, mut calls) = (String::new(), Vec::new());
    for item in all {
        match item {
            ToolText::Text(text) => shown.push_str(&text),
            ToolText::Call(call) => calls.push((call.name, call.arguments)),
        }
    }
    (shown, calls)
}
