//! Laws of Qwen3-Coder's form.

use super::super::{CallPart, Held, ToolSyntax, ToolText};
use crate::prompt::testing::{cut, read_all};
use crate::prompt::{ChatTemplate, Conversation, Message, Role, ToolCallMessage};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Renders calls as Qwen3-Coder's template does.
const TEMPLATE: &str = "\
{%- for message in messages -%}{{ message.content }}
{%- for call in message.tool_calls -%}
{{- '\\n' if not loop.first }}{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}
{%- for key, value in call.function.arguments | items -%}
{{- '<parameter=' + key + '>\\n' }}
{{- value if value is string else value | tojson }}
{{- '\\n</parameter>\\n' }}
{%- endfor -%}
{{- '</function>\\n</tool_call>' }}
{%- endfor -%}
{%- endfor -%}";

/// What the template of such a model makes of the calls.
pub fn rendered(calls: &[(String, Value)]) -> String {
    let calls = calls.iter().map(|(name, arguments)| {
        let call = json!({"id": "c", "function": {"name": name, "arguments": arguments}});
        serde_json::from_value::<ToolCallMessage>(call).unwrap()
    });
    let mut message = Message::text(Role::Assistant, "");
    message.tool_calls = Some(calls.collect());
    let conversation = Conversation { messages: vec![message], ..Conversation::default() };
    let template = ChatTemplate::new(&TEMPLATE.to_owned().into(), "", "").unwrap();
    assert_eq!(ToolSyntax::of_template(template.source()), ToolSyntax::Coder);
    template.render(&conversation).unwrap()
}

/// A tool with an argument of each type.
pub fn tool() -> (String, Value) {
    let schema = json!({"type": "object", "properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": ["number", "null"]},
        "deep": {"type": "boolean"}, "map": {"$ref": "#/$defs/map"}, "list": {"type": "array"},
        "unit": {"enum": ["C", "5", "null"]}, "level": {"enum": [1, 2]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "required": ["text"],
        "$defs": {"map": {"type": "object", "additionalProperties": {"type": "integer"}}}});
    ("put".to_owned(), schema)
}

/// Arguments of the tool; text without the mark that ends it.
pub fn arguments() -> impl Strategy<Value = Value> {
    let text = "\\PC{0,12}|[ {}:,\"\\\\\n<>/\\[\\]]{0,8}|</parameter|\n\n</tool_call>\n|null|5|true";
    let share = prop_oneof![Just(Value::Null), any::<i32>().prop_map(|n| json!(f64::from(n) / 64.0))];
    let list = prop::collection::vec(
        prop_oneof![any::<i64>().prop_map(Value::from), text.prop_map(Value::from)],
        0..4,
    );
    let map = prop::collection::btree_map("[a-z \"]{0,4}", any::<i16>(), 0..3);
    let either = prop_oneof![any::<i16>().prop_map(Value::from), "[a-z\n ]{0,6}".prop_map(Value::from)];
    let first = (text, any::<i64>(), share, any::<bool>(), map, list);
    let second = (prop::sample::select(&["C", "5", "null"][..]), 1..3_i64, either, any::<u16>());
    (first, second).prop_map(|((text, count, share, deep, map, list), (unit, level, either, kept))| {
        let list: Vec<Value> =
            list.into_iter().filter(|item| !item.to_string().contains("</parameter>")).collect();
        let mut all = json!({"text": text, "count": count, "share": share, "deep": deep, "map": map,
            "list": list, "unit": unit, "level": level, "either": either});
        let mut bit = 0;
        all.as_object_mut().unwrap().retain(|key, _| {
            bit += 1;
            key == "text" || kept >> bit & 1 == 1
        });
        all
    })
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
    read_all(&mut *ToolSyntax::Coder.reader(&[tool()], Held::ToNothing), pieces)
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn values_are_what_the_schema_says_and_else_what_they_look_like() {
    for (key, written, read) in [
        ("text", "\n5\n", json!("5")),
        ("text", "\n\n\n", json!("\n")),
        ("text", "\n\n", json!("")),
        ("text", "\n", json!("")),
        ("text", "", json!("")),
        ("text", "a", json!("a")),
        ("text", "\n  a\n\nb \n\n", json!("  a\n\nb \n")),
        ("text", "\n{\"a\": 1}\n", json!("{\"a\": 1}")),
        ("count", "\n5\n", json!(5)),
        ("count", "5", json!(5)),
        ("count", "\nmany\n", json!("many")),
        ("share", "\nnull\n", json!(null)),
        ("share", "\nNone\n", json!(null)),
        ("share", "\n-2.5e-3\n", json!(-2.5e-3)),
        ("deep", "\nTrue\n", json!(true)),
        ("deep", "\nfalse\n", json!(false)),
        ("map", "\n{\"a\": {\"b\": []}}\n", json!({"a": {"b": []}})),
        ("map", "\n{a}\n", json!("{a}")),
        ("list", "\n[1, \"</tool_call>\"]\n", json!([1, "</tool_call>"])),
        ("unit", "\n5\n", json!("5")),
        ("level", "\n2\n", json!(2)),
        ("either", "\n7\n", json!(7)),
        ("either", "\n7 a\n", json!("7 a")),
        ("unknown", "\n7\n", json!("7")),
        ("unknown", "\n[7]\n", json!([7])),
    ] {
        let text = format!(
            "<tool_call>\n<function=put>\n<parameter={key}>{written}</parameter>\n</function>\n</tool_call>"
        );
        let (shown, calls) = run([text.as_str()]);
        assert_eq!((shown.as_str(), calls.len()), ("", 1), "{text}");
        assert_eq!((calls[0].0.as_str(), value(&calls[0].1)), ("put", json!({key: read})), "{text}");
    }
}

#[test]
fn what_is_not_a_call_stays_text_to_the_byte() {
    for text in [
        "a <tool_call>\n<function=put>\n</tool_call> b",
        "<tool_call>\n{\"name\": \"put\"}\n</tool_call>",
        "<tool_call>\n<function=>\n</function>\n</tool_call>",
        "<tool_call>\n<function=put>\nx</function>\n</tool_call>",
        "<tool_call>\n<function=put>\n<parameter=text>\nx\n</function>\n</tool_call>",
        "<tool_call>\n<function=put>\n</function>x\n</tool_call>",
        "<function=put>\n</function>",
    ] {
        assert_eq!(run([text]), (text.to_owned(), vec![]));
    }
}

#[test]
fn text_is_told_while_it_is_written_where_a_grammar_holds_the_call() {
    let mut reader = ToolSyntax::Coder.reader(&[tool()], Held::Everywhere);
    let told = |parts: Vec<ToolText>| -> String {
        let arguments = parts.into_iter().map(|part| match part {
            ToolText::Call(CallPart::Arguments(more)) => more,
            _ => String::new(),
        });
        arguments.collect()
    };
    assert_eq!(
        told(reader.push("<tool_call>\n<function=put>\n<parameter=text>\nfn main")),
        "{\"text\":\"fn main"
    );
    assert_eq!(told(reader.push("() {}\n</para")), "() {}");
    assert_eq!(told(reader.push("graph>\n")), "\\n</paragraph>");
    assert_eq!(told(reader.push("</parameter>\n<parameter=count>\n1")), "\",\"count\":");
    assert_eq!(told(reader.push("2\n</parameter>\n</function>\n")), "12}");
}

proptest! {
    #[test]
    fn what_templates_render_is_read_back(
        calls in prop::collection::vec(arguments(), 1..3),
        cuts in prop::collection::vec(1_usize..9, 0..60),
        held: bool,
    ) {
        let calls: Vec<_> = calls.into_iter().map(|arguments| ("put".to_owned(), arguments)).collect();
        let text = rendered(&calls);
        let calls_are = if held { Held::Everywhere } else { Held::ToNothing };
        let mut reader = ToolSyntax::Coder.reader(&[tool()], calls_are);
        let (shown, found) = read_all(&mut *reader, cut(&text, &cuts));
        let found: Vec<_> = found.into_iter().map(|(name, arguments)| (name, value(&arguments))).collect();
        prop_assert_eq!((shown.as_str(), found), ("", calls), "{}", text);
    }
}
