//! Grammars along random answers: whatever is drawn among the allowed tokens is valid when it ends.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::testing::read_all;
use super::super::thought::ThoughtMarks;
use super::super::tokenizer::{TokenizerConfig, tests::byte_level};
use super::super::tool_call::Held;
use super::super::tool_call::gemma::tests as gemma;
use super::super::tool_call::tagged::tests as coder;
use super::*;

const STOP: u32 = 261;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&byte_level(), &TokenizerConfig::default()).unwrap()
}

fn grammars() -> Grammars {
    grammars_of(ToolSyntax::Hermes)
}

fn grammars_of(syntax: ToolSyntax) -> Grammars {
    Grammars::new(&tokenizer(), &[STOP], syntax).unwrap()
}

const SYNTAXES: [ToolSyntax; ToolSyntax::ALL.len()] = ToolSyntax::ALL;

mod forms;
mod harmony;

/// Draws tokens until the answer ends; `None` when it is still open after `most` tokens.
fn draw(constraint: &mut dyn Constraint, seed: u64, most: usize) -> Option<String> {
    let (tokenizer, mut rng) = (tokenizer(), ChaCha8Rng::seed_from_u64(seed));
    let mut ids = Vec::new();
    for _ in 0..most {
        let allowed = constraint.allowed().unwrap();
        let bit =
            |id: &u32| allowed.tokens.get(*id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        let mut choices: Vec<u32> = (0..tokenizer.vocab() as u32).filter(bit).collect();
        assert!(!choices.contains(&STOP));
        choices.extend(allowed.end.then_some(STOP));
        let id = choices[rng.random_range(0..choices.len())];
        if id == STOP {
            return Some(tokenizer.decode(&ids));
        }
        ids.push(id);
        if constraint.advance(id).unwrap() == Ending::Complete {
            return Some(tokenizer.decode(&ids));
        }
    }
    None
}

fn person() -> Value {
    json!({"type": "object", "properties": {
            "kind": {"enum": ["cat", "d\u{f6}g"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 99},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2}},
        "required": ["kind", "legs", "tags"], "additionalProperties": false,
        "$defs": {"tag": {"type": "string", "maxLength": 5}}})
}

fn is_person(value: &Value) -> bool {
    let object = value.as_object().unwrap();
    let tags = object["tags"].as_array().unwrap();
    let short = |tag: &Value| tag.as_str().unwrap().chars().count() <= 5;
    object.len() == 3
        && (object["kind"] == "cat" || object["kind"] == "d\u{f6}g")
        && object["legs"].as_i64().is_some_and(|legs| (0..100).contains(&legs))
        && tags.len() <= 2
        && tags.iter().all(short)
}

/// Numbers that no float holds are JSON too.
fn is_object(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get().starts_with('{'))
}

fn rules(count: CallCount) -> CallRules {
    let none = Value::Null;
    CallRules { tools: vec![("tell \"x\"".into(), person()), ("pwd".into(), none)], count }
}

fn calls(syntax: ToolSyntax, text: &str) -> (String, Vec<(String, String)>) {
    read_all(&mut *syntax.reader(&rules(CallCount::Several).tools, Held::ToNothing), [text])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_ends_is_json_of_its_schema(seed: u64) {
        let mut constraint = grammars().constraint(&Format::Json(person()), ThoughtStart::Never, Strictness::Strict).unwrap();
        let text = draw(&mut *constraint, seed, 2000).expect("the schema bounds the length");
        prop_assert!(is_person(&serde_json::from_str(&text).unwrap()), "{}", text);
    }

    #[test]
    fn whatever_ends_without_a_schema_is_an_object(seed: u64) {
        let mut constraint = grammars().constraint(&Format::Json(json!({})), ThoughtStart::Never, Strictness::Strict).unwrap();
        if let Some(text) = draw(&mut *constraint, seed, 300) {
            prop_assert!(is_object(&text), "{}", text);
        }
    }

    #[test]
    fn what_gemmas_templates_render_is_let_through(arguments in gemma::arguments(), syntax in prop::sample::select(&gemma::SYNTAXES[..])) {
        let text = gemma::rendered(syntax, &[("pwd".into(), arguments)]);
        for format in [Format::Calls(rules(CallCount::Several)), Format::TextOrCalls(rules(CallCount::Several))] {
            prop_assert!(takes_with(&grammars_of(syntax), ThoughtStart::Never, &format, &text), "{}", text);
        }
    }

    #[test]
    fn what_coders_template_renders_is_let_through(arguments in coder::arguments()) {
        let text = coder::rendered(&[("put".into(), arguments)]);
        let rules = CallRules { tools: vec![coder::tool()], count: CallCount::Several };
        for format in [Format::Calls(rules.clone()), Format::TextOrCalls(rules)] {
            prop_assert!(takes_with(&grammars_of(ToolSyntax::Coder), ThoughtStart::Never, &format, &text), "{}", text);
        }
    }

    #[test]
    fn whatever_ends_is_calls_of_the_tools(seed: u64, several: bool, syntax in prop::sample::select(&SYNTAXES[..])) {
        let count = if several { CallCount::Several } else { CallCount::One };
        let mut constraint = grammars_of(syntax).constraint(&Format::Calls(rules(count)), ThoughtStart::Never, Strictness::Strict).unwrap();
        if let Some(text) = draw(&mut *constraint, seed, 1000) {
            let (rest, calls) = calls(syntax, &text);
            prop_assert!(rest.is_empty() && !calls.is_empty() && (several || calls.len() == 1), "{}", text);
            for (name, arguments) in calls {
                let fine = match name.as_str() {
                    "pwd" => is_object(&arguments),
                    _ => name == "tell \"x\"" && is_person(&serde_json::from_str(&arguments).unwrap()),
                };
                prop_assert!(fine, "{}", text);
            }
        }
    }
}

fn starts() -> (ThoughtStart, ThoughtStart, ThoughtStart) {
    (
        ThoughtStart::Never,
        ThoughtStart::Open(ThoughtMarks::Think),
        ThoughtStart::Possible(ThoughtMarks::Think),
    )
}

/// Forces `text` through; true when all of it is allowed and the answer may end there.
fn takes(format: &Format, text: &str) -> bool {
    takes_with(&grammars(), ThoughtStart::Never, format, text)
}

fn takes_with(grammars: &Grammars, thought: ThoughtStart, format: &Format, text: &str) -> bool {
    let mut constraint = grammars.constraint(format, thought, Strictness::Strict).unwrap();
    let ids = tokenizer().encode_rendered(text).unwrap();
    for (at, id) in ids.iter().enumerate() {
        let allowed = constraint.allowed().unwrap();
        if allowed.tokens[*id as usize / 32] >> (id % 32) & 1 == 0 {
            return false;
        }
        if constraint.advance(*id).unwrap() == Ending::Complete {
            return at + 1 == ids.len();
        }
    }
    constraint.allowed().unwrap().end
}

#[test]
fn calls_are_spaced_as_templates_render_them_and_answers_as_the_model_likes() {
    let (schema, rules) =
        (json!({"type": "object", "properties": {"a": {"type": "array"}}}), rules(CallCount::Several));
    let call = "<tool_call>\n{\"name\": \"pwd\", \"arguments\": {\"a\": [1, 2], \"b\": {}}}\n</tool_call>";
    for (format, text, fine) in [
        (Format::Calls(rules.clone()), call.to_owned(), true),
        (Format::Calls(rules.clone()), format!("{call}\n{call}"), true),
        (Format::Calls(rules.clone()), call.replace(": [", ":["), false),
        (Format::Calls(rules.clone()), call.replace("pwd", "rm"), false),
        (Format::Calls(rules.clone()), "Let me see.".to_owned(), false),
        (Format::TextOrCalls(rules.clone()), "Let me see.".to_owned(), true),
        (Format::TextOrCalls(rules.clone()), String::new(), true),
        (Format::TextOrCalls(rules.clone()), "a <b> {\"name\": <tool_\n".to_owned(), true),
        (Format::TextOrCalls(rules.clone()), format!("Let me see.\n{call}"), true),
        (Format::TextOrCalls(rules.clone()), format!("{call}\n{call}"), true),
        (Format::TextOrCalls(rules.clone()), format!("Let me.\n{}", call.replace("pwd", "rm")), false),
        (Format::TextOrCalls(rules.clone()), "Let me.\n<tool_call>\n".to_owned(), false),
        (Format::TextOrCalls(rules.clone()), format!("{call}\nThere."), false),
        (Format::TextOrCalls(rules.clone()), "<tool_call>{\"name\":\"pwd\"}</tool_call>".to_owned(), true),
        (
            Format::TextOrCalls(rules.clone()),
            "<tool_call>{\"name\":\"tell \\\"x\\\"\"}</tool_call>".to_owned(),
            false,
        ),
        (
            Format::TextOrCalls(rules.loose()),
            "<tool_call>{\"name\":\"tell \\\"x\\\"\"}</tool_call>".to_owned(),
            true,
        ),
        (Format::Json(schema.clone()), "{\n  \"a\": [1,2]\n}".to_owned(), true),
        (Format::Json(schema.clone()), "{\"a\":[]}".to_owned(), true),
        (Format::Json(schema.clone()), "{\"a\":1}".to_owned(), false),
        (Format::JsonOrCalls(schema.clone(), rules.clone()), call.to_owned(), true),
        (Format::JsonOrCalls(schema, rules), "{\"a\":[]}".to_owned(), true),
    ] {
        assert_eq!(takes(&format, &text), fine, "{text}");
    }
}

#[test]
fn demanded_arguments_have_no_undeclared_keys_unless_the_schema_speaks_of_others() {
    let takes_keys = |schema: &Value, arguments: &str| {
        let rules = CallRules { tools: vec![("find".into(), schema.clone())], count: CallCount::One };
        let call = format!("<tool_call>\n{{\"name\": \"find\", \"arguments\": {arguments}}}\n</tool_call>");
        [Format::Calls(rules.clone()), Format::TextOrCalls(rules)].map(|format| takes(&format, &call))
    };
    let mut schema = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
    assert_eq!(takes_keys(&schema, r#"{"id": 5}"#), [true; 2]);
    assert_eq!(takes_keys(&schema, r#"{"id": 5, "id = 5": 1}"#), [false, true]);
    schema["additionalProperties"] = false.into();
    assert_eq!(takes_keys(&schema, r#"{"id": 5, "more": 1}"#), [false; 2]);
    schema["additionalProperties"] = true.into();
    assert_eq!(takes_keys(&schema, r#"{"id": 5, "more": 1}"#), [true; 2]);
    // One that demands a key it does not declare must be able to get it.
    let demanding =
        json!({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["more"]});
    assert_eq!(takes_keys(&demanding, r#"{"id": 5, "more": 1}"#), [true; 2]);
    assert_eq!(takes_keys(&json!({"type": "object", "properties": {}}), r#"{"any": 1}"#), [true; 2]);
}

#[test]
fn calls_have_the_syntax_of_the_model() {
    let format = Format::Calls(rules(CallCount::Several));
    let one = |key: &str| format!("{{\"name\": \"pwd\", \"{key}\": {{\"a\": [1, 2]}}}}");
    let (arguments, parameters) = (one("arguments"), one("parameters"));
    for (syntax, text, fine) in [
        (ToolSyntax::Llama3, parameters.clone(), true),
        (ToolSyntax::Llama3, format!("{parameters}; {parameters}"), true),
        (ToolSyntax::Llama3, arguments.clone(), false),
        (ToolSyntax::Json, arguments.clone(), true),
        (ToolSyntax::Json, format!("{arguments}\n{arguments}"), true),
        (ToolSyntax::Json, parameters.clone(), false),
        (ToolSyntax::Hermes, arguments, false),
    ] {
        let taken = takes_with(&grammars_of(syntax), ThoughtStart::Never, &format, &text);
        assert_eq!(taken, fine, "{syntax:?}: {text}");
    }
}

#[test]
fn coders_calls_have_the_keys_and_types_of_the_schema() {
    let rules = CallRules { tools: vec![coder::tool()], count: CallCount::One };
    let grammars = grammars_of(ToolSyntax::Coder);
    let argument = |(key, value): &(&str, &str)| format!("<parameter={key}>\n{value}\n</parameter>\n");
    // Where a call is demanded, and where the model chose to make it.
    for (arguments, demanded, chosen) in [
        (&[("text", "a\n</para> <b>")][..], true, true),
        (&[("text", "")], true, true),
        (&[], false, false),
        (&[("count", "5")], false, false),
        (&[("count", "5"), ("text", "a")], false, true),
        (&[("text", "a"), ("count", "5")], true, true),
        (&[("text", "a"), ("count", "many")], false, false),
        (&[("text", "a"), ("text", "b")], false, false),
        (&[("text", "a"), ("count", "1"), ("count", "2")], false, true),
        (&[("text", "a"), ("deep", "true"), ("count", "1")], false, true),
        (&[("text", "a"), ("share", "null"), ("deep", "true")], true, true),
        (&[("text", "a"), ("deep", "maybe")], false, false),
        (&[("text", "a"), ("unit", "5"), ("level", "2")], true, true),
        (&[("text", "a"), ("unit", "6")], false, false),
        (&[("text", "a"), ("level", "3")], false, false),
        (&[("text", "a"), ("map", "{\"x\": 1}"), ("list", "[1, \"a\"]")], true, true),
        (&[("text", "a"), ("map", "{\"x\":1}")], false, true),
        (&[("text", "a"), ("map", "{\"x\": \"y\"}")], false, false),
        (&[("text", "a"), ("either", "any")], true, true),
        (&[("text", "a"), ("other", "any")], false, true),
    ] {
        let arguments: String = arguments.iter().map(argument).collect();
        let text = format!("<tool_call>\n<function=put>\n{arguments}</function>\n</tool_call>");
        for (format, fine) in
            [(Format::Calls(rules.clone()), demanded), (Format::TextOrCalls(rules.clone()), chosen)]
        {
            assert_eq!(takes_with(&grammars, ThoughtStart::Never, &format, &text), fine, "{text}");
        }
    }
    // Needed arguments in any order, and in the schema's where there are many.
    let several = |count: usize| {
        let keys: Vec<String> = (0..count).map(|at| format!("k{at}")).collect();
        let properties: Map<String, Value> =
            keys.iter().map(|key| (key.clone(), json!({"type": "integer"}))).collect();
        let tools = vec![("f".to_owned(), json!({"properties": properties, "required": keys}))];
        let written = |keys: Vec<String>| {
            let arguments: String = keys.iter().map(|key| argument(&(key, "1"))).collect();
            format!("<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>")
        };
        let format = Format::Calls(CallRules { tools, count: CallCount::One });
        let back = keys.iter().rev().cloned().collect();
        [keys.clone(), back, keys[1..].to_vec()]
            .map(|keys| takes_with(&grammars, ThoughtStart::Never, &format, &written(keys)))
    };
    assert_eq!(several(4), [true, true, false]);
    // Where they are few, one that is not needed comes once and anywhere, too.
    let few = json!({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]});
    for (keys, fine) in [
        (&["b"][..], true),
        (&["a", "b"], true),
        (&["b", "a"], true),
        (&["a"], false),
        (&["b", "a", "a"], false),
    ] {
        let arguments: String = keys.iter().map(|key| argument(&(*key, "1"))).collect();
        let text = format!("<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>");
        let rules = CallRules { tools: vec![("f".into(), few.clone())], count: CallCount::One };
        for format in [Format::Calls(rules.clone()), Format::TextOrCalls(rules)] {
            assert_eq!(takes_with(&grammars, ThoughtStart::Never, &format, &text), fine, "{text}");
        }
    }
    assert_eq!(several(7), [true, false, false]);
    for name in ["a>b", ""] {
        let rules = CallRules { tools: vec![(name.into(), Value::Null)], count: CallCount::One };
        assert!(grammars.constraint(&Format::Calls(rules), ThoughtStart::Never, Strictness::Strict).is_err());
    }
}

/// Gemma's call of the tool `f`.
fn gemma_call(arguments: &str) -> String {
    format!("<start_function_call>call:f{arguments}<end_function_call>")
}

#[test]
fn gemmas_calls_have_the_keys_and_types_of_the_schema() {
    let schema = json!({"type": "object", "required": ["city", "Days"], "properties": {
        "unit": {"enum": ["C", "F", 7, null]}, "city": {"type": "string", "minLength": 2, "maxLength": 8},
        "Days": {"type": "integer", "minimum": 1, "maximum": 14}, "exact": {"type": ["boolean", "null"]},
        "at": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/place"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "box": {"type": "array", "prefixItems": [{"type": "number"}, {"const": "m"}], "items": false},
        "a,b": true},
        "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string"},
            "within": {"allOf": [{"$ref": "#/$defs/place"}]}}, "required": ["name"], "additionalProperties": {"type": "integer"}}}});
    let rules = CallRules { tools: vec![("f".into(), schema)], count: CallCount::One };
    let grammars = grammars_of(ToolSyntax::FunctionGemma);
    let takes = |format: &Format, text: &str| takes_with(&grammars, ThoughtStart::Never, format, text);
    for (arguments, fine) in [
        ("{city:<escape>Rome<escape>,Days:1}", true),
        ("{city:<escape>R<escape>,Days:1}", false),
        ("{city:<escape>Rome, Italy<escape>,Days:1}", false),
        ("{city:Rome,Days:1}", false),
        ("{city:<escape>Rome<escape>}", false),
        ("{city:<escape>Rome<escape>,Days:15}", false),
        ("{city:<escape>Rome<escape>,Days:<escape>1<escape>}", false),
        ("{city:<escape>Rome<escape>,days:1}", false),
        ("{Days:1,city:<escape>Rome<escape>}", false),
        ("{city:<escape>Rome<escape>,Days:1,zip:5}", false),
        ("{city:<escape>Rome<escape>,Days:1,unit:<escape>C<escape>}", true),
        ("{city:<escape>Rome<escape>,Days:1,unit:7}", true),
        ("{city:<escape>Rome<escape>,Days:1,unit:<escape>K<escape>}", false),
        ("{city:<escape>Rome<escape>,Days:1,exact:null,unit:null}", true),
        ("{city:<escape>Rome<escape>,Days:1,exact:0}", false),
        ("{at:-1.5,city:<escape>Rome<escape>,Days:1}", true),
        ("{at:{name:<escape>x<escape>},city:<escape>Rome<escape>,Days:1}", true),
        (
            "{at:{name:<escape>x<escape>,within:{name:<escape>y<escape>,size:2}},city:<escape>Rome<escape>,Days:1}",
            true,
        ),
        ("{at:{name:<escape>x<escape>,within:{size:2}},city:<escape>Rome<escape>,Days:1}", false),
        ("{at:{name:<escape>x<escape>,name:1},city:<escape>Rome<escape>,Days:1}", false),
        ("{city:<escape>Rome<escape>,Days:1,tags:[]}", false),
        ("{city:<escape>Rome<escape>,Days:1,tags:[<escape>a,b<escape>,<escape>]<escape>]}", true),
        (
            "{city:<escape>Rome<escape>,Days:1,tags:[<escape>a<escape>,<escape>b<escape>,<escape>c<escape>]}",
            false,
        ),
        ("{box:[1,<escape>m<escape>],city:<escape>Rome<escape>,Days:1}", true),
        ("{box:[1],city:<escape>Rome<escape>,Days:1}", false),
        ("{box:[1,<escape>m<escape>,2],city:<escape>Rome<escape>,Days:1}", false),
        ("{<escape>a,b<escape>:{x:[1]},city:<escape>Rome<escape>,Days:1}", true),
    ] {
        let text = gemma_call(arguments);
        assert_eq!(takes(&Format::Calls(rules.clone()), &text), fine, "{text}");
        let text = format!("Let me see <start.\n{text}");
        let fine = fine || arguments.contains("zip");
        assert_eq!(takes(&Format::TextOrCalls(rules.clone()), &text), fine, "{text}");
    }
    let spaced = gemma_call("{ city: <escape>Rome<escape>,\n Days: 3 }");
    assert!(takes(&Format::TextOrCalls(rules.clone()), &spaced), "the model spaces as it likes");
    assert!(
        !takes(&Format::Calls(rules.clone()), &spaced),
        "a demanded call is spaced as templates render it"
    );
    let several = CallRules { tools: vec![("f".into(), Value::Null)], count: CallCount::Several };
    let two = gemma_call("{}").repeat(2);
    assert!(takes(&Format::Calls(several.clone()), &two));
    for text in [
        two.replace("call:f", "call:g"),
        two.replace("call:f", "call:ff"),
        two.replace("call:f", "f"),
        "{}".into(),
    ] {
        assert!(!takes(&Format::Calls(several.clone()), &text), "{text}");
    }
}

#[test]
fn what_gemmas_calls_cannot_say_is_refused_with_the_reason() {
    for (name, schema, reason) in [
        ("f{", json!({}), "f{"),
        ("f", json!({"type": "strange"}), "strange"),
        ("f", json!({"$ref": "#/nowhere"}), "nowhere"),
        ("f", json!({"$ref": "http://x"}), "http://x"),
        ("f", json!([1]), "expected an object"),
        ("f", json!({"properties": {"a": {"enum": ["<escape>"]}}}), "none of the values"),
        ("f", json!({"properties": {"a<escape>": {}}}), "the key"),
        ("f", json!({"properties": {"a": {"type": "array", "minItems": 2, "maxItems": 1}}}), "maxItems 1"),
        ("f", json!({"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}), "not itself"),
    ] {
        let rules = CallRules { tools: vec![(name.into(), schema.clone())], count: CallCount::One };
        let error = grammars_of(ToolSyntax::FunctionGemma)
            .constraint(&Format::Calls(rules), ThoughtStart::Never, Strictness::Strict)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{schema}: {error}");
    }
}

#[test]
fn a_model_may_think_before_what_it_is_held_to() {
    let (never, open, possible) = starts();
    let format = Format::Json(json!({"enum": [1, 2]}));
    for (thought, text, fine) in [
        (never, "<think>x</think>1", false),
        (possible, "1", true),
        (possible, "<think>\nIs it 2 < 3?\n</think>\n\n1", true),
        (possible, "<think></think>2", true),
        (possible, "Is it?</think>1", false),
        (possible, "<think>x</think>3", false),
        (possible, "<think>never ends", false),
        (open, "Is it?\n</think>\n\n1", true),
        (open, "</think>1", true),
        (open, "1", false),
    ] {
        assert_eq!(takes_with(&grammars(), thought, &format, text), fine, "{thought:?}: {text}");
    }
}

#[test]
fn a_mark_within_a_thought_begins_no_call() {
    let (never, open, possible) = starts();
    let call = "<tool_call>\n{\"name\": \"pwd\"}\n</tool_call>";
    let said = Format::TextOrCalls(rules(CallCount::Several));
    let thought = "I could <tool_call> or not.\n</think>\n\n";
    for (start, begun, text, fine) in [
        (possible, "<think>\n", thought, true),
        (possible, "\n<think>", thought, true),
        (possible, "<think>", "<tool_call> for ever", false),
        (possible, "", "I think <think> and </think>.", true),
        (possible, "", "\n\nYes.", true),
        (possible, "", "a <think> <tool_call> b", false),
        (open, "", thought, true),
        (open, "", "<tool_call> for ever", false),
        (never, "<think>", "<tool_call> b", false),
    ] {
        let grammars = grammars();
        for (behind, goes_on) in [("", true), ("Fine.", true), (call, true), ("<tool_call> b", false)] {
            let text = format!("{begun}{text}{behind}");
            assert_eq!(takes_with(&grammars, start, &said, &text), fine && goes_on, "{start:?}: {text}");
        }
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_with_the_reason() {
    for (schema, reason) in [
        (json!({"type": "strange"}), "strange"),
        (json!({"$ref": "#/nowhere"}), "nowhere"),
        (json!([1]), "expected an object"),
        (json!({"type": "integer", "minimum": 5, "maximum": 4}), ""),
    ] {
        let error = grammars()
            .constraint(&Format::Json(schema.clone()), ThoughtStart::Never, Strictness::Strict)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{schema}: {error}");
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut first = grammars()
        .constraint(&Format::Json(json!({"enum": ["a", "b"]})), ThoughtStart::Never, Strictness::Strict)
        .unwrap();
    first.advance(u32::from(b'"')).unwrap();
    let mut second = first.clone();
    first.advance(u32::from(b'a')).unwrap();
    let open = second.allowed().unwrap();
    second.advance(u32::from(b'b')).unwrap();
    assert_eq!(open.tokens[3] >> 1 & 0b111, 0b011, "a and b were allowed, c was not");
    assert_eq!(first.allowed().unwrap(), second.allowed().unwrap());
}

#[test]
fn a_vocabulary_of_gemmas_size_stays_within_the_limits() {
    let mut json: Value = serde_json::from_slice(&byte_level()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    while vocab.len() < 262_000 {
        let letters = rng.random_range(2..9);
        let mut word: String = (0..letters).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
        if rng.random_range(0..20) == 0 {
            word.push(['{', '"', '<', ':', ',', '}'][rng.random_range(0..6)]);
        }
        let id = vocab.len() + 3;
        vocab.entry(word).or_insert(id.into());
    }
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), &TokenizerConfig::default()).unwrap();
    let short = json!({"type": "string", "minLength": 5, "maxLength": 20000});
    let schema =
        json!({"type": "object", "properties": {"any": {}, "city": {"type": "string"}, "note": short}});
    let rules = CallRules { tools: vec![("f".into(), schema)], count: CallCount::Several };
    let text = gemma_call(
        "{any:{a:<escape>x<y<escape>},city:<escape>some <esc text<escape>,note:<escape>more of it<escape>}",
    );
    for format in [Format::Calls(rules.clone()), Format::TextOrCalls(rules)] {
        let grammars = Grammars::new(&tokenizer, &[STOP], ToolSyntax::FunctionGemma).unwrap();
        let mut constraint = grammars.constraint(&format, ThoughtStart::Never, Strictness::Strict).unwrap();
        for byte in text.chars() {
            let id = tokenizer.encode_rendered(&byte.to_string()).unwrap()[0];
            let allowed = constraint.allowed().unwrap();
            assert!(allowed.tokens[id as usize / 32] >> (id % 32) & 1 == 1, "{byte}");
            constraint.advance(id).unwrap();
        }
        assert!(constraint.allowed().unwrap().end);
    }
}

#[test]
fn between_the_parts_of_json_stands_one_blank_or_a_new_line_with_its_indentation() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}});
    let rules = CallRules { tools: vec![("f".into(), schema.clone())], count: CallCount::One };
    let call = |arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    for (json, fine) in [
        ("{\"a\":[1,2]}", true),
        ("{ \"a\" : [ 1 , 2 ] }", true),
        ("{\n    \"a\": [\n\t\t1,\r\n        2\n    ]\n}", true),
        ("{  \"a\": []}", false),
        ("{\"a\":  []}", false),
        ("{\"a\": [1 \n, 2]}", false),
        ("{\n\n\"a\": []}", false),
        ("{\t\"a\": []}", false),
    ] {
        assert_eq!(takes(&Format::Json(schema.clone()), json), fine, "{json}");
        assert_eq!(takes(&Format::TextOrCalls(rules.clone()), &call(json)), fine, "{json}");
    }
    for broken in ["{\"a\":\n[]}", "{\"a\": \n[]}"] {
        assert!(!takes(&Format::Json(schema.clone()), broken), "{broken}");
    }
    let endless = format!("{{\n{}", " ".repeat(41));
    assert!(!takes(&Format::Json(schema), &endless));
}

/// A vocabulary with tokens that end a value and go on.
fn straddling() -> Tokenizer {
    let mut json: Value = serde_json::from_slice(&byte_level()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for (id, word) in (263..).zip(["\",", "\"}", "o\",", "},", "}}", ",\u{120}\"", "\":"]) {
        vocab.insert(word.into(), id.into());
    }
    Tokenizer::from_bytes(json.to_string().as_bytes(), &TokenizerConfig::default()).unwrap()
}

/// What a model writes that wants to write `wanted`, each time by the longest token that goes on with it, and else rather
/// exclamation marks and zeros than anything.
fn written(constraint: &mut dyn Constraint, tokenizer: &Tokenizer, wanted: &str) -> String {
    let (mut ids, mut rest) = (Vec::new(), wanted.as_bytes());
    for _ in 0..120 {
        let usual = |id: u32| match tokenizer.token_bytes(id) {
            b"!" => 3.0,
            b"0" => 2.0,
            _ => 0.0,
        };
        let mut logits: Vec<f32> = (0..tokenizer.vocab() as u32).map(usual).collect();
        let next = (0..tokenizer.vocab() as u32).filter(|id| rest.starts_with(tokenizer.token_bytes(*id)));
        let next = next.max_by_key(|id| tokenizer.token_bytes(*id).len()).filter(|_| !rest.is_empty());
        logits[next.unwrap_or(STOP) as usize] = 9.0;
        constraint.allowed().unwrap().apply(&mut logits, &[STOP]).unwrap();
        let id = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        if id == STOP {
            break;
        }
        rest = rest.strip_prefix(tokenizer.token_bytes(id)).unwrap_or(rest);
        ids.push(id);
        if constraint.advance(id).unwrap() == Ending::Complete {
            break;
        }
    }
    tokenizer.decode(&ids)
}

#[test]
fn what_may_not_follow_a_value_does_not_change_it() {
    let schema = |more: Value| {
        let mut schema = json!({"type": "object", "properties": {"command": {"type": "string"}, "n": {"type": "integer"}}});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let closed = || schema(json!({"additionalProperties": false}));
    let needs = |key: &str| schema(json!({"required": [key], "additionalProperties": false}));
    let number_first = json!({
        "type": "object",
        "properties": {"n": {"type": "integer"}, "command": {"type": "string"}},
        "required": ["command"],
        "additionalProperties": false,
    });
    for (schema, wanted, key, value) in [
        // The key that follows is not declared.
        (closed(), r#"{"command": "echo hello", "timeout": 5}"#, "command", json!("echo hello")),
        (closed(), r#"{"n": 5, "timeout": 5}"#, "n", json!(5)),
        (schema(json!({})), r#"{"command": "echo hello", "timeout": 5}"#, "command", json!("echo hello")),
        // A key is missing where the model would end.
        (needs("n"), r#"{"command": "ls"}"#, "command", json!("ls")),
        (number_first, r#"{"n": 5}"#, "n", json!(5)),
    ] {
        let rules = CallRules { tools: vec![("f".into(), schema.clone())], count: CallCount::One };
        let call = format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {wanted}}}\n</tool_call>");
        for (format, wanted) in [
            (Format::Json(schema), wanted),
            (Format::Calls(rules.clone()), &call),
            (Format::TextOrCalls(rules), &call),
        ] {
            let tokenizer = straddling();
            let grammars = Grammars::new(&tokenizer, &[STOP], ToolSyntax::Hermes).unwrap();
            let mut constraint =
                grammars.constraint(&format, ThoughtStart::Never, Strictness::Strict).unwrap();
            let text = written(&mut *constraint, &tokenizer, wanted);
            let at = text.find(&format!("\"{key}\": ")).unwrap_or_else(|| panic!("{text}")) + key.len() + 4;
            let found = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next();
            assert_eq!(found.unwrap().unwrap_or_default(), value, "{text}");
        }
    }
}

#[test]
fn what_no_grammar_can_hold_is_let_through_where_it_is_not_demanded_strictly() {
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema, "b": {"type": "integer"}}, "required": ["a", "b"]});
    for schema in [
        property(json!({"type": "array", "uniqueItems": true, "items": {"type": "integer"}})),
        property(json!({"type": "array", "not": {"minItems": 5}})),
        property(json!({"type": "array", "if": {"minItems": 1}, "then": {"maxItems": 2}})),
        property(json!({"type": "array", "items": {"type": "object", "propertyNames": {"pattern": "^a"}}})),
        property(json!({"type": "array", "items": {"type": "string", "pattern": "^(?!x)y"}})),
    ] {
        let format = Format::Json(schema.clone());
        let compile = |strictness| grammars().constraint(&format, ThoughtStart::Never, strictness);
        assert!(compile(Strictness::Strict).is_err(), "{schema}");
        let mut constraint = compile(Strictness::Lenient).unwrap();
        // The rest of it is held.
        for (at, id) in tokenizer().encode_rendered("{\"a\": [], \"b\": ").unwrap().into_iter().enumerate() {
            assert!(
                constraint.allowed().unwrap().tokens[id as usize / 32] >> (id % 32) & 1 == 1,
                "{schema} {at}"
            );
            constraint.advance(id).unwrap();
        }
        assert!(
            constraint.allowed().unwrap().tokens[usize::from(b'"') / 32] >> (b'"' % 32) & 1 == 0,
            "{schema}"
        );
    }
    let wrong = Format::Json(json!({"type": "no such type"}));
    assert!(grammars().constraint(&wrong, ThoughtStart::Never, Strictness::Lenient).is_err());
}
