//! What templates of these forms render is found by them, and read wherever it is cut.

use serde_json::{Value, json};

use super::super::{CallEnd, Held, ToolSyntax};
use crate::prompt::testing::{cut, read_until};
use crate::prompt::{ChatTemplate, Conversation, Message, Role, ToolCallMessage};

const LOOP: &str = "{%- for message in messages -%}{{ message.content }}{%- if message.tool_calls -%}@1\
{%- for call in message.tool_calls -%}{{- @2 if not loop.first -}}@3{%- endfor -%}@4{%- endif -%}{%- endfor -%}";

/// How a call begins and ends, and what stands between two, in a template of our own.
fn template(syntax: ToolSyntax) -> String {
    let [begin, between, call, end] = match syntax {
        ToolSyntax::Mistral => {
            ["", "''", "[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}", ""]
        }
        ToolSyntax::MistralList => [
            "[TOOL_CALLS][",
            "', '",
            "{{ {'name': call.function.name, 'arguments': call.function.arguments, 'id': call.id} | tojson }}",
            "]",
        ],
        ToolSyntax::Nemotron => [
            "<TOOLCALL>[",
            "', '",
            "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}",
            "]</TOOLCALL>",
        ],
        ToolSyntax::DeepSeek => [
            "<｜tool▁calls▁begin｜>",
            "''",
            "<｜tool▁call▁begin｜>{{ call.function.name }}<｜tool▁sep｜>{{ call.function.arguments | tojson }}<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ],
        ToolSyntax::DeepSeekFenced => [
            "<｜tool▁calls▁begin｜>",
            "'\\n'",
            "{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + call.function.name + '\\n```json\\n' }}{{ call.function.arguments | tojson }}{{ '\\n```<｜tool▁call▁end｜>' }}",
            "<｜tool▁calls▁end｜>",
        ],
        _ => [
            "<|tool_calls_section_begin|>",
            "''",
            "<|tool_call_begin|>{{ call.id }}<|tool_call_argument_begin|>{{ call.function.arguments | tojson }}<|tool_call_end|>",
            "<|tool_calls_section_end|>",
        ],
    };
    LOOP.replace("@1", begin).replace("@2", between).replace("@3", call).replace("@4", end)
}

fn calls() -> Vec<(String, Value)> {
    let text = "/\u{e9} {\"}] [TOOL_CALLS] ```<tool_call>\n";
    vec![
        ("ls-all".into(), json!({"path": text, "all": [true, {"n": 1.5}], "none": null, "id": "5"})),
        ("pwd".into(), json!({})),
    ]
}

fn rendered(syntax: ToolSyntax) -> String {
    let calls = calls().into_iter().map(|(name, arguments)| {
        let call = json!({"id": "abcdef123", "function": {"name": name, "arguments": arguments}});
        serde_json::from_value::<ToolCallMessage>(call).unwrap()
    });
    let mut message = Message::text(Role::Assistant, "I look.");
    message.tool_calls = Some(calls.collect());
    let conversation = Conversation { messages: vec![message], ..Conversation::default() };
    let template = ChatTemplate::new(&template(syntax).into(), "", "").unwrap();
    assert_eq!(ToolSyntax::of_template(template.source()), syntax);
    template.render(&conversation).unwrap()
}

const SYNTAXES: [ToolSyntax; 6] = [
    ToolSyntax::Mistral,
    ToolSyntax::MistralList,
    ToolSyntax::Nemotron,
    ToolSyntax::DeepSeek,
    ToolSyntax::DeepSeekFenced,
    ToolSyntax::Kimi,
];

fn read(syntax: ToolSyntax, pieces: Vec<&str>, calls_are: Held) -> (String, Vec<(String, Value)>) {
    let mut reader = syntax.reader(&[], calls_are);
    let (shown, calls, was_cut) = read_until(&mut *reader, pieces, CallEnd::Model);
    assert!(!was_cut);
    let json = |(name, arguments): (String, String)| (name, serde_json::from_str(&arguments).unwrap());
    (shown, calls.into_iter().map(json).collect())
}

#[test]
fn what_templates_render_is_read_wherever_it_is_cut() {
    for syntax in SYNTAXES {
        let (text, expected) = (rendered(syntax), ("I look.".to_owned(), calls()));
        for calls_are in [Held::ToNothing, Held::Everywhere] {
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (first, second) = text.split_at(at);
                assert_eq!(read(syntax, vec![first, second], calls_are), expected, "{syntax:?}: {first}");
            }
            assert_eq!(read(syntax, cut(&text, &vec![1; text.chars().count()]), calls_are), expected);
        }
    }
}

#[test]
fn further_ways_to_write_a_call_are_read_and_what_is_none_stays_text() {
    let one = || vec![("f".to_owned(), json!({"a": 1}))];
    for (syntax, text, shown, calls) in [
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{\"a\": 1}", "", one()),
        (ToolSyntax::Mistral, "[TOOL_CALLS]f", "[TOOL_CALLS]f", vec![]),
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[ARGS]{\"a\": }", "[TOOL_CALLS]f[ARGS]{\"a\": }", vec![]),
        (ToolSyntax::MistralList, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "", one()),
        (ToolSyntax::MistralList, "[TOOL_CALLS][]", "[TOOL_CALLS][]", vec![]),
        (ToolSyntax::MistralList, "[TOOL_CALLS][1] x", "[TOOL_CALLS][1] x", vec![]),
        (
            ToolSyntax::Nemotron,
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]</TOOLCALL>",
            "",
            one(),
        ),
        (ToolSyntax::Nemotron, "<TOOLCALL>[]</TOOLCALL> x", "<TOOLCALL>[]</TOOLCALL> x", vec![]),
        (
            ToolSyntax::Kimi,
            "<|tool_calls_section_begin|>\n<|tool_call_begin|>functions.f:12 <|tool_call_argument_begin|> {\"a\": 1} <|tool_call_end|>\n<|tool_calls_section_end|>",
            "",
            one(),
        ),
        (
            ToolSyntax::DeepSeek,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}",
            "",
            one(),
        ),
        (
            ToolSyntax::DeepSeek,
            "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>",
            "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>",
            vec![],
        ),
    ] {
        assert_eq!(
            read(syntax, vec![text], Held::ToNothing),
            (shown.to_owned(), calls),
            "{syntax:?}: {text}"
        );
    }
}
