//! What tests of streaming readers share: texts in pieces, and all that a reader makes of them.

use super::{CallEnd, CallPart, ToolCallFormat, ToolText};

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
    let (shown, calls, cut) = read_until(format, pieces, CallEnd::Model);
    assert!(!cut, "nothing was cut off");
    (shown, calls)
}

/// The same of an answer that ends so, and whether it was cut off within a call. Of that nothing is told.
pub fn read_until<'a>(
    format: &mut dyn ToolCallFormat,
    pieces: impl IntoIterator<Item = &'a str>,
    end: CallEnd<'_>,
) -> (String, Vec<(String, String)>, bool) {
    let mut all: Vec<ToolText> = pieces.into_iter().flat_map(|piece| format.push(piece)).collect();
    all.extend(format.finish(end));
    let (mut shown, mut calls, mut open) = (String::new(), Vec::new(), None);
    let cut = all.last() == Some(&ToolText::Cut);
    for item in all {
        match item {
            ToolText::Text(text) => shown.push_str(&text),
            ToolText::Call(CallPart::Begin(name)) => open = Some((name, String::new())),
            ToolText::Call(CallPart::Arguments(more)) => open.as_mut().unwrap().1.push_str(&more),
            ToolText::Call(CallPart::End) => calls.extend(open.take()),
            ToolText::Cut => open = None,
        }
    }
    assert_eq!(open, None, "a call has no end");
    (shown, calls, cut)
}
