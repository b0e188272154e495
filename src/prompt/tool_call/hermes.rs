//! `{"name": ..., "arguments": {...}}` between `<tool_call>` and `</tool_call>`: Hermes, Qwen and the embedded model. In a list: older
//! models of Mistral, and Nemotron Nano 2.

use super::marked::Unread;
use super::{ToolCall, Written, call};

/// Before a call.
pub const OPEN: &str = "<tool_call>";
/// Behind it.
pub const CLOSE: &str = "</tool_call>";

/// Around a list of them: Nemotron Nano 2.
pub const LIST_OPEN: &str = "<TOOLCALL>";
/// Behind it, with its bracket.
pub const LIST_CLOSE: &str = "]</TOOLCALL>";

/// Reads what stands between the marks.
pub fn read(json: &str) -> Result<ToolCall, Unread> {
    let written = serde_json::from_str(json.trim());
    written.map(call).map_err(|error| if error.is_eof() { Unread::Open } else { Unread::Wrong })
}

/// Reads a list of calls without the bracket at its end.
pub fn read_list(json: &str) -> Result<Vec<ToolCall>, Unread> {
    let written: Result<Vec<Written>, _> = serde_json::from_str(&format!("{json}]"));
    let error = match written {
        Ok(calls) if calls.is_empty() => return Err(Unread::Wrong),
        Ok(calls) => return Ok(calls.into_iter().map(call).collect()),
        Err(error) => error,
    };
    // A bracket within a string or a list is not the last.
    let end = serde_json::from_str::<Vec<Written>>(json).is_err_and(|error| error.is_eof());
    Err(if error.is_eof() || end { Unread::Open } else { Unread::Wrong })
}

#[cfg(test)]
mod tests {
    use super::super::{Held, ToolCallFormat, ToolSyntax, ToolText};
    use crate::prompt::testing::{cut, read_all};
    use proptest::prelude::*;

    fn format() -> Box<dyn ToolCallFormat> {
        ToolSyntax::Hermes.reader(&[], Held::ToNothing)
    }

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
        read_all(&mut *format(), pieces)
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
        let mut format = format();
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
        assert_eq!(run([text]).1, [("f".to_owned(), r#"{"a":1e999}"#.to_owned())]);
    }

    #[test]
    fn a_call_at_the_end_needs_no_closing_mark() {
        assert_eq!(run(["<tool_call>{\"name\": \"f\"}"]).1, [("f".to_owned(), "{}".to_owned())]);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_pieces(cuts in prop::collection::vec(1_usize..20, 0..40), tail in "[ab\n<tol_c>]{0,12}") {
            let whole = format!("{TWO}{tail}");
            prop_assert_eq!(run(cut(&whole, &cuts)), run([whole.as_str()]));
        }
    }
}
