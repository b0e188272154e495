use serde_json::{Value, json};

use super::super::{CallEnd, Held, ToolSyntax};
use crate::prompt::testing::{cut, read_until};

fn run(pieces: Vec<&str>, calls_are: Held) -> (String, Vec<(String, Value)>) {
    let mut reader = ToolSyntax::Lfm2.reader(&[], calls_are);
    let (shown, calls, was_cut) = read_until(&mut *reader, pieces, CallEnd::Model);
    assert!(!was_cut);
    (shown, calls.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).unwrap())).collect())
}

#[test]
fn every_way_to_write_arguments_is_read() {
    for (written, arguments) in [
        ("", json!({})),
        (" ", json!({})),
        ("a=1, b=-2.5e-05", json!({"a": 1, "b": -2.5e-5})),
        (
            "a=True,b=False,c=None,d=true,e=null",
            json!({"a": true, "b": false, "c": null, "d": true, "e": null}),
        ),
        ("a=\"5\", b='it\\'s', c=\"\"", json!({"a": "5", "b": "it's", "c": ""})),
        (
            r#"a="\n\t\\\"\x41\u00e9\U0001f600\ud83d\ude00\d""#,
            json!({"a": "\n\t\\\"A\u{e9}\u{1f600}\u{1f600}\\d"}),
        ),
        ("a=\")]<|tool_call_end|>, g(b='\"", json!({"a": ")]<|tool_call_end|>, g(b='"})),
        ("a=[1, [], (2,), {\"c\": 'd', 'e': {}}]", json!({"a": [1, [], [2], {"c": "d", "e": {}}]})),
        ("\n  a = 1 ,\n  b = [ 1 , 2 ],\n", json!({"a": 1, "b": [1, 2]})),
    ] {
        let text = format!("<|tool_call_start|>[f({written})]<|tool_call_end|>");
        for calls_are in [Held::ToNothing, Held::Everywhere] {
            let expected = (String::new(), vec![("f".to_owned(), arguments.clone())]);
            assert_eq!(run(vec![&text], calls_are), expected, "{text}");
            assert_eq!(run(cut(&text, &vec![1; text.chars().count()]), calls_are), expected, "{text}");
        }
    }
}

#[test]
fn calls_are_taken_out_of_the_text_wherever_it_is_cut() {
    let text = "I look.\n<|tool_call_start|>[ls(path=\"/\u{e9}]\", all=True), pwd()]<|tool_call_end|> Done.";
    let calls =
        vec![("ls".to_owned(), json!({"path": "/\u{e9}]", "all": true})), ("pwd".to_owned(), json!({}))];
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        for calls_are in [Held::ToNothing, Held::Everywhere] {
            let expected = ("I look. Done.".to_owned(), calls.clone());
            assert_eq!(run(vec![&text[..at], &text[at..]], calls_are), expected, "cut at {at}");
        }
    }
}

#[test]
fn what_is_not_a_call_stays_text_to_the_byte() {
    for text in [
        "<|tool_call_start|>[f(1)]<|tool_call_end|>",
        "<|tool_call_start|>[]<|tool_call_end|>",
        "<|tool_call_start|>[f(a=x)]<|tool_call_end|> b",
        "<|tool_call_start|>f(a=1)]<|tool_call_end|>",
        "[f(a=1)]",
    ] {
        assert_eq!(run(vec![text], Held::ToNothing), (text.to_owned(), vec![]), "{text}");
    }
}

#[test]
fn templates_of_such_models_are_known_by_their_marks() {
    for source in ["<|tool_list_start|>[{{ tools }}]<|tool_list_end|>", "<|tool_call_start|>"] {
        assert_eq!(ToolSyntax::of_template(source), ToolSyntax::Lfm2);
    }
}
