//! Laws of every syntax: calls that are cut off, and arguments that are told as they come.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::prompt::testing::{cut, read_until};

const LEAD: &str = "Let me look.";

const SYNTAXES: [ToolSyntax; ToolSyntax::ALL.len()] = ToolSyntax::ALL;

fn tools() -> Vec<(String, Value)> {
    let schema = json!({"properties": {"path": {"type": "string"}, "all": {"type": "array"}}});
    vec![("ls".into(), schema), ("pwd".into(), Value::Null)]
}

/// An answer with two calls, and the two as they are told.
fn answer(syntax: ToolSyntax) -> (String, Vec<(String, String)>) {
    let ls = json!({"path": "/\"}{ <tool_call>\u{e9}", "all": [true, {"n": 1}]});
    let calls = [("ls", ls), ("pwd", json!({}))].map(|(name, arguments)| (name.to_owned(), arguments));
    let Marks { open, body, close, between, list } = syntax.marks();
    let written = calls.iter().enumerate().map(|(at, (name, arguments))| {
        let call = match body {
            CallBody::Json { arguments: key } => json!({"name": name, key: arguments}).to_string(),
            CallBody::JsonList => json!({"name": name, "arguments": arguments}).to_string(),
            CallBody::Gemma { quote } if name == "ls" => {
                format!("call:ls{{path:{quote}/\"}}{{ <tool_call>\u{e9}{quote},all:[true,{{n:1}}]}}")
            }
            CallBody::Gemma { .. } => "call:pwd{}".to_owned(),
            CallBody::Tagged(tags) => {
                let line = if tags.lines { "\n" } else { "" };
                let argument = |(key, value): (&String, &Value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let head = format!("{}{key}{}{}{line}", tags.key, tags.key_end, tags.value);
                    format!("{head}{value}{line}{}\n", tags.value_end)
                };
                let arguments: String = arguments.as_object().unwrap().iter().map(argument).collect();
                let end = if tags.shared_end { "" } else { tags.end };
                format!("{}{name}{}\n{arguments}{end}", tags.call, tags.name_end.unwrap_or_default())
            }
            CallBody::Python if name == "ls" => {
                "ls(path=\"/\\\"}{ <tool_call>\u{e9}\", all=[True, {\"n\": 1}])".to_owned()
            }
            CallBody::Python => "pwd()".to_owned(),
            CallBody::Named(named) => {
                let number = if named.numbered { format!(":{at}") } else { String::new() };
                format!("{}{name}{number}{}{arguments}{}", named.before, named.behind, named.after)
            }
        };
        if list.is_some() { call } else { format!("{open}{call}{close}") }
    });
    let written = written.collect::<Vec<_>>().join(between);
    let written = list.map_or(written.clone(), |begin| format!("{open}{begin}{written}{close}"));
    let lead = if open.is_empty() { String::new() } else { format!("{LEAD}\n") };
    let told = calls.iter().map(|(name, arguments)| (name.clone(), arguments.to_string()));
    (format!("{lead}{written}"), told.collect())
}

fn pieces(text: &str) -> Vec<&str> {
    cut(text, &vec![1; text.chars().count()])
}

fn borders(text: &str) -> impl Iterator<Item = usize> {
    (0..=text.len()).filter(|at| text.is_char_boundary(*at))
}

#[test]
fn a_call_that_is_cut_off_is_no_text_and_what_was_complete_is_a_call() {
    for (syntax, calls_are) in SYNTAXES
        .into_iter()
        .flat_map(|syntax| [Held::ToNothing, Held::Everywhere].map(|calls_are| (syntax, calls_are)))
    {
        let (text, calls) = answer(syntax);
        // Where calls are all that may come, the text before them is none.
        let begins = text.find(syntax.marks().open).unwrap();
        let mut most = 0;
        for at in borders(&text) {
            let after: String = text[at..].chars().take(3).collect();
            for end in [CallEnd::Length, CallEnd::Stop(&after)] {
                let mut reader = syntax.reader(&tools(), calls_are);
                let (shown, found, was_cut) = read_until(&mut *reader, pieces(&text[..at]), end);
                let what = format!("{syntax:?}, {calls_are:?}, {end:?}: {:?}", &text[..at]);
                assert_eq!(shown.trim_end(), text[..at.min(begins)].trim_end(), "{what}");
                assert!(calls.starts_with(&found) && found.len() >= most.min(1), "{what}: {found:?}");
                most = most.max(found.len());
                assert!(was_cut || at <= begins || !found.is_empty(), "{what}");
            }
        }
        assert_eq!(most, 2);
    }
}

#[test]
fn text_that_is_cut_off_stays_text() {
    for syntax in SYNTAXES {
        for text in [
            "a < b",
            "{ x",
            "{\"answer\": [1, 2",
            "{\"name\": \"Ada\", \"arguments\": {",
            "[1, 2",
            "```rust\nfn",
            "\n",
        ] {
            let mut reader = syntax.reader(&tools(), Held::ToNothing);
            let (shown, calls, was_cut) = read_until(&mut *reader, pieces(text), CallEnd::Length);
            assert_eq!((shown.as_str(), calls.len(), was_cut), (text, 0, false), "{syntax:?}");
        }
        // Only what follows can tell a mark's first letter from text; a stop string does.
        let mut reader = syntax.reader(&tools(), Held::ToNothing);
        assert_eq!(read_until(&mut *reader, ["a <"], CallEnd::Stop("STOP")).0, "a <");
    }
    let mut reader = ToolSyntax::Hermes.reader(&tools(), Held::ToNothing);
    assert!(read_until(&mut *reader, ["a <tool"], CallEnd::Stop("_ca")).2);
}

#[test]
fn arguments_are_told_while_they_are_made_where_a_grammar_holds_the_call() {
    for syntax in SYNTAXES {
        let (text, calls) = answer(syntax);
        let mut reader = syntax.reader(&tools(), Held::Everywhere);
        let mut told = String::new();
        let until = text.find("<tool_call>\u{e9}").unwrap();
        for piece in pieces(&text[..until]) {
            for part in reader.push(piece) {
                if let ToolText::Call(CallPart::Arguments(more)) = part {
                    told.push_str(&more);
                }
            }
        }
        assert!(calls[0].1.starts_with(&told) && told.contains("/\\\"}{"), "{syntax:?}: {told}");
    }
}

proptest! {
    #[test]
    fn what_is_told_does_not_depend_on_the_pieces_nor_on_a_grammar(
        syntax in prop::sample::select(&SYNTAXES[..]),
        cuts in prop::collection::vec(1_usize..12, 0..60),
    ) {
        let (text, calls) = answer(syntax);
        let lead = if syntax.marks().open.is_empty() { "" } else { LEAD };
        for calls_are in [Held::ToNothing, Held::FromTheStart, Held::Everywhere] {
            let mut reader = syntax.reader(&tools(), calls_are);
            let found = read_until(&mut *reader, cut(&text, &cuts), CallEnd::Model);
            prop_assert_eq!(found, (lead.to_owned(), calls.clone(), false));
        }
    }

    #[test]
    fn gemmas_arguments_grow_to_what_they_are_when_whole(arguments in gemma::tests::arguments(), cuts in prop::collection::vec(1_usize..7, 0..60)) {
        for syntax in gemma::tests::SYNTAXES {
            let calls = [("f".to_owned(), arguments.clone())];
            let text = gemma::tests::rendered(syntax, &calls);
            let mut reader = syntax.reader(&[("f".into(), Value::Null)], Held::Everywhere);
            let (_, found, _) = read_until(&mut *reader, cut(&text, &cuts), CallEnd::Model);
            let value: Value = serde_json::from_str(&found[0].1).unwrap();
            prop_assert_eq!(&value, &arguments);
        }
    }
}
