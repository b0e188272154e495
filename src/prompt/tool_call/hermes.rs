//! `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen and the embedded model.

use super::{ToolCall, ToolCallFormat, ToolText, call, text};
use crate::prompt::stop::held_suffix;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// Calls between marks.
#[derive(Debug, Default)]
pub struct HermesFormat {
    /// Not yet decided: white space and the start of a marker, or a call whose end is missing.
    held: String,
    in_call: bool,
    /// White space before the open call; part of the text if it turns out not to be one.
    before: String,
    calls: usize,
}

impl ToolCallFormat for HermesFormat {
    fn push(&mut self, text: &str) -> Vec<ToolText> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    fn finish(&mut self) -> Vec<ToolText> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        if self.in_call {
            // A model may end with the call itself, without the closing mark.
            match read(&held) {
                Ok(call) => out.push(ToolText::Call(call)),
                Err(_) => text(&mut out, format!("{}{OPEN}{held}", self.before)),
            }
        } else if self.calls == 0 || !held.trim().is_empty() {
            text(&mut out, held);
        }
        self.in_call = false;
        out
    }
}

impl HermesFormat {
    /// One marker's worth of progress; false when more text is needed.
    fn step(&mut self, out: &mut Vec<ToolText>) -> bool {
        if !self.in_call {
            let Some(at) = self.held.find(OPEN) else {
                // White space before a call belongs to the markup, so it waits with a marker's first characters.
                let certain = self.held.len() - held_suffix(&self.held, OPEN);
                let certain = self.held[..certain].trim_end().len();
                let rest = self.held.split_off(certain);
                text(out, std::mem::replace(&mut self.held, rest));
                return false;
            };
            let shown = self.held[..at].trim_end().len();
            text(out, self.held[..shown].to_owned());
            self.before = self.held[shown..at].to_owned();
            self.held.drain(..at + OPEN.len());
            self.in_call = true;
        }
        // A closing mark inside a JSON string does not close; the JSON up to it is then incomplete.
        let mut from = 0;
        while let Some(at) = self.held[from..].find(CLOSE).map(|at| from + at) {
            let after = at + CLOSE.len();
            match read(&self.held[..at]) {
                Ok(call) => {
                    out.push(ToolText::Call(call));
                    self.calls += 1;
                }
                Err(error) if error.is_eof() => {
                    from = after;
                    continue;
                }
                Err(_) => text(out, format!("{}{OPEN}{}", self.before, &self.held[..after])),
            }
            self.held.drain(..after);
            self.in_call = false;
            return true;
        }
        false
    }
}

fn read(json: &str) -> Result<ToolCall, serde_json::Error> {
    serde_json::from_str(json.trim()).map(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
        let mut format = HermesFormat::default();
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

    const TWO: &str = "Let me look.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"z\": \"/\", \"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"pwd\", \"arguments\": {}}\n</tool_call>";

    #[test]
    fn calls_are_taken_out_of_the_text() {
        let (shown, calls) = run([TWO]);
        assert_eq!(shown, "Let me look.");
        let expected = [("ls", r#"{"z":"/","a":1}"#), ("pwd", "{}")];
        assert_eq!(calls, expected.map(|(name, arguments)| (name.to_owned(), arguments.to_owned())));
    }

    #[test]
    fn text_is_not_kept_waiting_without_need() {
        let mut format = HermesFormat::default();
        assert_eq!(format.push("Hello wor"), [ToolText::Text("Hello wor".into())]);
        assert_eq!(format.push("ld <tool"), [ToolText::Text("ld".into())]);
        assert_eq!(format.push("box>"), [ToolText::Text(" <toolbox>".into())]);
    }

    #[test]
    fn what_is_not_a_call_stays_text_to_the_byte() {
        for not_a_call in [
            "a <tool_call>{\"nome\": 1}</tool_call> b",
            "\n<tool_call>\nnot json</tool_call>",
            "x <tool_call>{\"name\": \"f\", \"argum",
            "a < b, <tool_cal, trailing space \n",
        ] {
            assert_eq!(run([not_a_call]), (not_a_call.to_owned(), vec![]));
        }
    }

    #[test]
    fn a_closing_mark_inside_a_string_does_not_close() {
        let text = r#"<tool_call>{"name": "echo", "arguments": {"text": "</tool_call>"}}</tool_call>"#;
        assert_eq!(run([text]).1, [("echo".to_owned(), r#"{"text":"</tool_call>"}"#.to_owned())]);
    }

    #[test]
    fn a_number_that_no_float_holds_is_told_as_it_is() {
        let text = r#"<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>"#;
        assert_eq!(run([text]).1, [("f".to_owned(), r#"{"a": 1e999}"#.to_owned())]);
    }

    #[test]
    fn a_call_at_the_end_needs_no_closing_mark() {
        assert_eq!(run(["<tool_call>{\"name\": \"f\"}"]).1, [("f".to_owned(), "{}".to_owned())]);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_pieces(cuts in prop::collection::vec(1_usize..20, 0..40), tail in "[ab\n<tol_c>]{0,12}") {
            let whole = format!("{TWO}{tail}");
            let (mut pieces, mut rest) = (Vec::new(), whole.as_str());
            for cut in cuts {
                let (piece, after) = rest.split_at(rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(run(pieces), run([whole.as_str()]));
        }
    }
}
