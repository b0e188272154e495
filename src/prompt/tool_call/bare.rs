//! Calls without marks: the whole answer is JSON. Llama 3, Gemma and models that were only told to answer in JSON.
//!
//! An answer that begins like a call is held back until it is whole; any other is let through at once. Only calls of the
//! declared tools are calls, because any JSON answer may have a name in it. Where a grammar lets nothing but calls through, they
//! are told as they come.

use serde_json::Deserializer;

use super::json::{Begun, Scan, begun};
use super::{CallEnd, CallPart, Held, ToolCall, ToolCallFormat, ToolText, Written, call, text, whole};

/// What an answer that is a call may begin with, the JSON itself aside.
const OPENERS: [&str; 5] = [TAG, "```json\n", "```tool_call\n", "```tool_code\n", "```\n"];
const TAG: &str = "<|python_tag|>";
const FENCE: &str = "```";
/// What stands between calls, besides white space.
const BETWEEN: [char; 2] = [';', ','];

/// Calls that are the whole answer.
#[derive(Debug)]
pub struct BareFormat {
    names: Vec<String>,
    calls_are: Held,
    held: String,
    /// The answer is not a call: everything is text.
    is_text: bool,
    /// Arguments of the open call, where they are told as they come.
    told: Option<Scan>,
}

impl BareFormat {
    /// For calls of these tools.
    pub fn new(names: Vec<String>, calls_are: Held) -> Self {
        Self { names, calls_are, held: String::new(), is_text: false, told: None }
    }

    /// What is certain now of an answer that is calls and nothing else.
    fn tell(&mut self) -> Vec<ToolText> {
        let mut out = Vec::new();
        loop {
            if let Some(arguments) = &mut self.told {
                let more = arguments.push(&mut self.held);
                if !more.is_empty() {
                    out.push(ToolText::Call(CallPart::Arguments(more)));
                }
                let rest = if arguments.done() { self.held.trim_start().strip_prefix('}') } else { None };
                let Some(rest) = rest else { return out };
                self.held = rest.to_owned();
                self.told = None;
                out.push(ToolText::Call(CallPart::End));
            }
            let rest = next(&self.held);
            let before = self.held.len() - rest.len();
            let Begun::Call { name, at } = begun(rest, |_, _| true) else { return out };
            self.held.drain(..before + at);
            out.push(ToolText::Call(CallPart::Begin(name)));
            self.told = Some(Scan::default());
        }
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
            rest = next(rest);
        }
        (!calls.is_empty() && calls.iter().all(|call| self.is_known(call))).then_some(calls)
    }

    /// The calls that are complete in what is held, when it was cut off within calls; `None` when it is something else.
    fn calls_before_the_cut(&self) -> Option<Vec<ToolCall>> {
        let held = self.held.trim();
        if !held.is_empty() && TAG.starts_with(held) {
            return Some(Vec::new());
        }
        let body = OPENERS.iter().find_map(|opener| held.strip_prefix(opener)).unwrap_or(held).trim_start();
        let mut rest = body.strip_prefix('[').unwrap_or(body).trim_start();
        let mut calls = Vec::new();
        while let Some(written) = one::<Written>(&mut rest) {
            calls.push(call(written));
            rest = next(rest);
        }
        let known = |name: &str, whole: bool| {
            self.names.iter().any(|known| if whole { known == name } else { known.starts_with(name) })
        };
        let ends = [FENCE, "]"].iter().any(|end| rest.starts_with(end) || end.starts_with(rest));
        match begun(rest, known) {
            _ if ends && !calls.is_empty() => {}
            Begun::Call { name, at } => {
                let mut scan = Scan::default();
                let arguments = scan.push(&mut rest[at..].to_owned());
                calls.extend(scan.done().then_some(ToolCall { name, arguments }));
            }
            Begun::Open if !rest.is_empty() => {}
            Begun::Open | Begun::Other => return None,
        }
        calls.iter().all(|call| self.is_known(call)).then_some(calls)
    }

    fn is_known(&self, call: &ToolCall) -> bool {
        self.names.contains(&call.name) && call.arguments.starts_with('{')
    }

    /// What is held may still become a call.
    fn may_be_call(&self) -> bool {
        let held = self.held.trim_start();
        held.is_empty()
            || held.starts_with(['{', '['])
            || OPENERS.iter().any(|opener| opener.starts_with(held) || held.starts_with(opener))
    }
}

/// What follows a call.
fn next(rest: &str) -> &str {
    rest.trim_start().trim_start_matches(BETWEEN).trim_start()
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
        self.held.push_str(piece);
        if self.calls_are == Held::Everywhere {
            return self.tell();
        }
        let mut out = Vec::new();
        self.is_text |= !self.may_be_call();
        if self.is_text {
            text(&mut out, std::mem::take(&mut self.held));
        }
        out
    }

    fn finish(&mut self, end: CallEnd<'_>) -> Vec<ToolText> {
        let mut out = Vec::new();
        if let Some(arguments) = self.told.take() {
            out.push(if arguments.done() { ToolText::Call(CallPart::End) } else { ToolText::Cut });
            return out;
        }
        if self.calls_are == Held::Everywhere && end != CallEnd::Model {
            // Nothing but calls: what is held begins one, or stands between two.
            out.extend((!next(&self.held).is_empty()).then_some(ToolText::Cut));
            return out;
        }
        let calls = if self.is_text { None } else { self.calls() };
        let (calls, cut) = match calls {
            None if end != CallEnd::Model && !self.is_text => (self.calls_before_the_cut(), true),
            calls => (calls, false),
        };
        let held = std::mem::take(&mut self.held);
        match calls {
            Some(calls) => {
                for call in calls {
                    whole(&mut out, call);
                }
                out.extend(cut.then_some(ToolText::Cut));
            }
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
        read_all(&mut BareFormat::new(vec!["ls".into(), "pwd".into()], Held::ToNothing), pieces)
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
        let mut format = BareFormat::new(vec!["ls".into()], Held::ToNothing);
        assert_eq!(format.push("He"), [ToolText::Text("He".into())]);
        assert_eq!(format.push("llo {"), [ToolText::Text("llo {".into())]);
        let mut format = BareFormat::new(vec!["ls".into()], Held::ToNothing);
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
