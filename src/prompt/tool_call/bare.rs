//! Calls without marks: the whole answer is JSON. Llama 3, Gemma and models that were only told to answer in JSON.
//!
//! An answer that begins like a call is held back until it is whole; any other is let through at once. Only calls of the
//! declared tools are calls, because any JSON answer may have a name in it.

use serde_json::Deserializer;

use super::{ToolCall, ToolCallFormat, ToolText, Written, call, text};

/// What an answer that is a call may begin with, the JSON itself aside.
const OPENERS: [&str; 5] = ["<|python_tag|>", "```json\n", "```tool_call\n", "```tool_code\n", "```\n"];
const FENCE: &str = "```";

/// Calls that are the whole answer.
#[derive(Debug)]
pub struct BareFormat {
    names: Vec<String>,
    held: String,
    /// The answer is not a call: everything is text.
    is_text: bool,
}

impl BareFormat {
    /// For calls of these tools.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, held: String::new(), is_text: false }
    }

    /// All of what is held as calls; `None` when it is something else, or not whole.
    fn calls(&self) -> Option<Vec<ToolCall>> {
        let mut body = self.held.trim();
        for opener in OPENERS {
            if let Some(rest) = body.strip_prefix(opener) {
                body = if opener.starts_with(FENCE) { rest.trim_end().strip_suffix(FENCE)? } else { rest };
                break;
            }
        }
        let mut calls = Vec::new();
        let mut rest = body.trim();
        while !rest.is_empty() {
            let written = if rest.starts_with('[') {
                one::<Vec<Written>>(&mut rest)?
            } else {
                vec![one::<Written>(&mut rest)?]
            };
            calls.extend(written.into_iter().map(call));
            rest = rest.trim_start_matches([';', ',']).trim_start();
        }
        let known = |call: &ToolCall| self.names.contains(&call.name) && call.arguments.starts_with('{');
        (!calls.is_empty() && calls.iter().all(known)).then_some(calls)
    }

    /// What is held may still become a call.
    fn may_be_call(&self) -> bool {
        let held = self.held.trim_start();
        held.is_empty()
            || held.starts_with(['{', '['])
            || OPENERS.iter().any(|opener| opener.starts_with(held) || held.starts_with(opener))
    }
}

/// Reads one value and moves past it.
fn one<T: serde::de::DeserializeOwned>(rest: &mut &str) -> Option<T> {
    let mut values = Deserializer::from_str(rest).into_iter();
    let value = values.next()?.ok()?;
    *rest = rest[values.byte_offset()..].trim_start();
    Some(value)
}

impl ToolCallFormat for BareFormat {
    fn push(&mut self, piece: &str) -> Vec<ToolText> {
        let mut out = Vec::new();
        self.held.push_str(piece);
        self.is_text |= !self.may_be_call();
        if self.is_text {
            text(&mut out, std::mem::take(&mut self.held));
        }
        out
    }

    fn finish(&mut self) -> Vec<ToolText> {
        let calls = if self.is_text { None } else { self.calls() };
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match calls {
            Some(calls) => out.extend(calls.into_iter().map(ToolText::Call)),
            None => text(&mut out, held),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::testing::{cut, read_all};
    use proptest::prelude::*;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
        read_all(&mut BareFormat::new(vec!["ls".into(), "pwd".into()]), pieces)
    }

    const LS: &str = r#"{"name": "ls", "parameters": {"path": "/"}}"#;
    const PWD: &str = r#"{"name": "pwd", "arguments": {}}"#;

    #[test]
    fn every_way_to_write_calls_is_read() {
        let ls = ("ls".to_owned(), r#"{"path":"/"}"#.to_owned());
        let pwd = ("pwd".to_owned(), "{}".to_owned());
        for (written, calls) in [
            (LS.to_owned(), vec![ls.clone()]),
            (format!("<|python_tag|>{LS}"), vec![ls.clone()]),
            (format!("{LS}; {PWD}"), vec![ls.clone(), pwd.clone()]),
            (format!("{LS}\n{PWD}\n"), vec![ls.clone(), pwd.clone()]),
            (format!("[{LS}, {PWD}]"), vec![ls.clone(), pwd.clone()]),
            (format!("```json\n{LS}\n```"), vec![ls.clone()]),
            (format!(" ```tool_call\n[{PWD}]\n```\n"), vec![pwd]),
            (r#"{"type": "function", "name": "ls", "parameters": {"path": "/"}}"#.to_owned(), vec![ls]),
        ] {
            assert_eq!(run([written.as_str()]), (String::new(), calls), "{written}");
        }
    }

    #[test]
    fn what_is_not_a_call_stays_text_to_the_byte() {
        for not_a_call in [
            r#"{"name": "Ada", "arguments": {}}"#,
            r#"{"name": "ls", "parameters": "all"}"#,
            r#"{"answer": 1}"#,
            r#"{"name": "ls", "param"#,
            "[1, 2]",
            "```json\n{\"a\": 1}\n```",
            "```rust\nfn main() {}\n```",
            " \n",
            "",
        ] {
            assert_eq!(run([not_a_call]), (not_a_call.to_owned(), vec![]));
        }
        let mixed = format!("{LS} and more");
        assert_eq!(run([mixed.as_str()]), (mixed.clone(), vec![]));
    }

    #[test]
    fn text_is_not_kept_waiting_without_need() {
        let mut format = BareFormat::new(vec!["ls".into()]);
        assert_eq!(format.push("He"), [ToolText::Text("He".into())]);
        assert_eq!(format.push("llo {"), [ToolText::Text("llo {".into())]);
        let mut format = BareFormat::new(vec!["ls".into()]);
        assert_eq!(format.push("``"), []);
        assert_eq!(format.push("`py"), [ToolText::Text("```py".into())]);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_pieces(cuts in prop::collection::vec(1_usize..20, 0..30), tail in "[a ;\n`]{0,6}") {
            let whole = format!("{LS}; {PWD}{tail}");
            prop_assert_eq!(run(cut(&whole, &cuts)), run([whole.as_str()]));
        }
    }
}
