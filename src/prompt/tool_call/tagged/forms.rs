//! Laws of the other forms: what templates render is found by them, and read wherever it is cut, with the types of the schema.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{CallEnd, Held, ToolSyntax};
use super::tests::{arguments, tool};
use crate::prompt::testing::{cut, read_all, read_until};
use crate::prompt::{ChatTemplate, Conversation, Message, Role, ToolCallMessage};

const SYNTAXES: [ToolSyntax; 2] = [ToolSyntax::Glm, ToolSyntax::MiniMax];

/// A template of our own.
fn template(syntax: ToolSyntax, line: &str) -> String {
    let value = "{{ value if value is string else value | tojson }}";
    let (begin, call, argument, end_call, end) = match syntax {
        ToolSyntax::Glm => (
            String::new(),
            format!("<tool_call>{{{{ call.function.name }}}}{line}"),
            format!("<arg_key>{{{{ key }}}}</arg_key>{line}<arg_value>{value}</arg_value>{line}"),
            "</tool_call>".to_owned(),
            String::new(),
        ),
        _ => (
            format!("<minimax:tool_call>{line}"),
            format!("<invoke name=\"{{{{ call.function.name }}}}\">{line}"),
            format!("<parameter name=\"{{{{ key }}}}\">{value}</parameter>{line}"),
            format!("</invoke>{line}"),
            "</minimax:tool_call>".to_owned(),
        ),
    };
    format!(
        "{{%- for message in messages -%}}{{{{ message.content }}}}{{%- if message.tool_calls -%}}{begin}\
         {{%- for call in message.tool_calls -%}}{call}{{%- for key, value in call.function.arguments | items -%}}{argument}\
         {{%- endfor -%}}{end_call}{{%- endfor -%}}{end}{{%- endif -%}}{{%- endfor -%}}"
    )
}

fn rendered(syntax: ToolSyntax, line: &str, calls: &[(String, Value)]) -> String {
    let calls = calls.iter().map(|(name, arguments)| {
        let call = json!({"id": "c", "function": {"name": name, "arguments": arguments}});
        serde_json::from_value::<ToolCallMessage>(call).unwrap()
    });
    let mut message = Message::text(Role::Assistant, "I look.");
    message.tool_calls = Some(calls.collect());
    let conversation = Conversation { messages: vec![message], ..Conversation::default() };
    let source = template(syntax, line);
    let template = ChatTemplate::new(&source.into(), "", "").unwrap();
    assert_eq!(ToolSyntax::of_template(template.source()), syntax);
    template.render(&conversation).unwrap()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn values_are_told_apart_by_the_schema_wherever_the_answer_is_cut() {
    let written =
        json!({"text": " 5\n\u{e9} <b>", "count": 5, "deep": true, "list": [1, "</tool_call>"], "unit": "5"});
    let calls = vec![("put".to_owned(), written), ("pwd".to_owned(), json!({}))];
    let tools = [tool(), ("pwd".to_owned(), Value::Null)];
    for syntax in SYNTAXES {
        for line in ["", "{{ '\\n' }}"] {
            let text = rendered(syntax, line, &calls);
            for calls_are in [Held::ToNothing, Held::Everywhere] {
                for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                    let mut reader = syntax.reader(&tools, calls_are);
                    let (shown, found) = read_all(&mut *reader, [&text[..at], &text[at..]]);
                    let found: Vec<_> =
                        found.into_iter().map(|(name, arguments)| (name, value(&arguments))).collect();
                    assert_eq!((shown.as_str(), &found), ("I look.", &calls), "{syntax:?}: {}", &text[..at]);
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_call_stays_text_to_the_byte() {
    for (syntax, text) in [
        (ToolSyntax::Glm, "<tool_call>{\"name\": \"put\"}</tool_call> b"),
        (ToolSyntax::Glm, "<tool_call>put\nx</tool_call>"),
        (ToolSyntax::Glm, "<tool_call>put\n<arg_key>text</arg_key>x</tool_call>"),
        (ToolSyntax::Glm, "<tool_call></tool_call>"),
        (ToolSyntax::MiniMax, "<minimax:tool_call>\n</minimax:tool_call>"),
        (ToolSyntax::MiniMax, "<minimax:tool_call>\n<invoke name=\"put\">\nx</invoke>\n</minimax:tool_call>"),
        (ToolSyntax::MiniMax, "<invoke name=\"put\">\n</invoke>"),
    ] {
        let mut reader = syntax.reader(&[tool()], Held::ToNothing);
        assert_eq!(
            read_until(&mut *reader, [text], CallEnd::Model),
            (text.to_owned(), vec![], false),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn what_templates_render_is_read_back(
        calls in prop::collection::vec(arguments(), 1..3),
        cuts in prop::collection::vec(1_usize..9, 0..60),
        held: bool,
        syntax in prop::sample::select(&SYNTAXES[..]),
    ) {
        // Both would end a value of one form.
        let fine = |value: &Value| !value.to_string().contains("</tool_call") && !value.to_string().contains("</para");
        prop_assume!(calls.iter().all(fine));
        let calls: Vec<_> = calls.into_iter().map(|arguments| ("put".to_owned(), arguments)).collect();
        let text = rendered(syntax, "{{ '\\n' }}", &calls);
        let mut reader = syntax.reader(&[tool()], if held { Held::Everywhere } else { Held::ToNothing });
        let (shown, found) = read_all(&mut *reader, cut(&text, &cuts));
        let found: Vec<_> = found.into_iter().map(|(name, arguments)| (name, value(&arguments))).collect();
        prop_assert_eq!((shown.as_str(), found), ("I look.", calls), "{}", text);
    }
}
