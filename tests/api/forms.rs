//! Calls in every form that models write them in, over every endpoint: what is read, what is held by a grammar, and what a conversation
//! with calls costs when it goes on.

mod table;

use std::collections::BTreeSet;

use prefixd::prompt::ToolSyntax;
use serde_json::{Value, json};

use super::client::post;
use super::server::{Server, Setup};
use super::told::{Asked, ask};
use table::{ARGUMENTS, Form, forms};

const LEAD: &str = "Let me look.";
const THOUGHT: &str = "Is it 5 < 6?";

fn server(form: &Form) -> Server {
    Setup { template: Some(form.template), stop: form.stop, ..Setup::default() }.echo()
}

fn says(text: &str) -> String {
    format!("<script>{text}<go>")
}

fn function(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": parameters}})
}

/// `put` and `now`, which [`Form::calls`] calls.
fn tools() -> Value {
    let types = json!({"count": "integer", "deep": "boolean", "list": "array", "nested": "object", "note": "string",
        "ratio": "number", "text": "string"});
    let types = types.as_object().unwrap();
    let properties: serde_json::Map<String, Value> =
        types.iter().map(|(key, kind)| (key.clone(), json!({"type": kind}))).collect();
    let needed: Vec<&String> = types.keys().collect();
    json!([
        function("put", json!({"type": "object", "properties": properties, "required": needed})),
        function("now", json!({"type": "object", "properties": {}}))
    ])
}

fn value(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"))
}

/// Whether a grammar holds calls that nobody demanded: `min_tokens` sets it aside.
fn ways(form: &Form) -> Vec<(bool, Value)> {
    let free = (false, json!({"min_tokens": 1}));
    if form.mark.is_empty() { vec![(false, json!({})), free] } else { vec![(true, json!({})), free] }
}

/// A text before the calls, where calls are not the whole answer.
fn lead(form: &Form) -> (String, &'static str) {
    if form.mark.is_empty() { (String::new(), "") } else { (form.lead.join(LEAD), LEAD) }
}

#[test]
fn the_table_has_every_form_and_each_is_known_by_its_template() {
    let forms = forms();
    for form in &forms {
        let syntax = ToolSyntax::of_template(form.template);
        assert_eq!(syntax.name(), form.name, "{}", form.template);
    }
    let names: BTreeSet<&str> = forms.iter().map(|form| form.name).collect();
    assert_eq!(names, ToolSyntax::ALL.map(ToolSyntax::name).into());
}

#[test]
fn calls_have_their_names_and_typed_arguments_and_no_markup_is_text() {
    let wanted = [("put", value(ARGUMENTS)), ("now", json!({}))];
    for form in forms() {
        let server = server(&form);
        for all in [false, form.most() == 2] {
            for (held, more) in ways(&form) {
                let (before, text) = lead(&form);
                let content = says(&format!("{before}{}", form.calls(all)));
                let (told, pieces) = ask(server.address, &Asked { content, tools: tools(), more });
                let calls: Vec<_> =
                    told.calls.iter().map(|(name, text)| (name.as_str(), value(text))).collect();
                let count = if all { 2 } else { 1 };
                assert_eq!((told.text.as_str(), &calls[..]), (text, &wanted[..count]), "{}", form.name);
                assert_eq!((told.reason, told.thought.as_str()), ("tool_calls", ""), "{}", form.name);
                assert!(!held || pieces > 20, "{}: the arguments came in {pieces} pieces", form.name);
            }
        }
    }
}

#[test]
fn a_call_that_the_token_limit_cuts_off_is_no_text() {
    for form in forms() {
        let server = server(&form);
        let (before, text) = lead(&form);
        for (_, more) in ways(&form) {
            let mut found = BTreeSet::new();
            for most in (1..).step_by(13) {
                let mut more = more.clone();
                more["max_tokens"] = most.into();
                let content = says(&format!("{before}{}", form.calls(form.most() == 2)));
                let (told, _) = ask(server.address, &Asked { content, tools: tools(), more });
                assert!(text.starts_with(&told.text), "{} at {most}: {told:?}", form.name);
                let calls = told.calls.len();
                found.insert(calls);
                assert!(told.reason == "length" || calls == form.most(), "{} at {most}: {told:?}", form.name);
                if told.reason != "length" {
                    break;
                }
            }
            assert!(found.contains(&0) && found.contains(&form.most()), "{}: {found:?}", form.name);
        }
    }
}

#[test]
fn marks_within_a_thought_are_no_call() {
    for form in forms() {
        let server = server(&form);
        // Harmony's marks would end the thought, so it speaks of a call's beginning alone.
        let thought = if form.name == "harmony" {
            format!("{THOUGHT} commentary to=functions.put")
        } else {
            format!("{THOUGHT} {}?", form.calls(false))
        };
        for called in [false, true] {
            for (_, more) in ways(&form) {
                let (after, text) =
                    if called { (form.calls(false), "") } else { (form.last.join("Done."), "Done.") };
                let content = says(&format!("{}{after}", form.thought.join(&thought)));
                let (told, _) = ask(server.address, &Asked { content, tools: tools(), more });
                let found = (told.thought.as_str(), told.text.as_str(), told.calls.len());
                assert_eq!(found, (thought.as_str(), text, usize::from(called)), "{}", form.name);
            }
        }
    }
}

/// Two tools whose arguments have few values, so that a model without a will comes to an end.
fn narrow() -> Value {
    let nested = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false});
    let properties = json!({"code": {"enum": ["42", "43"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "list": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 1}, "nested": nested, "on": {"type": "boolean"}});
    let needed: Vec<&String> = properties.as_object().unwrap().keys().collect();
    let pick = json!({"type": "object", "properties": properties, "required": needed, "additionalProperties": false});
    let only = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false});
    json!([function("pick", pick), function("flip", only)])
}

/// A call that [`narrow`] describes.
fn is_valid((name, arguments): &(String, String)) -> bool {
    let found = value(arguments);
    let keys: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    match name.as_str() {
        "pick" => {
            keys.len() == 5
                && ["42", "43"].contains(&found["code"].as_str().unwrap())
                && (1..=9).contains(&found["count"].as_i64().unwrap())
                && ["a", "b"].contains(&found["list"][0].as_str().unwrap())
                && found["nested"]["on"].is_boolean()
                && found["on"].is_boolean()
        }
        "flip" => keys == ["on"] && found["on"].is_boolean(),
        _ => false,
    }
}

#[test]
fn a_demanded_call_comes_whatever_the_model_would_say() {
    for form in forms() {
        let server = server(&form);
        let thought = form.thought.join(THOUGHT);
        for (choice, wanted) in [
            (json!("required"), None),
            (json!({"type": "function", "function": {"name": "pick"}}), Some("pick")),
            (json!({"type": "function", "function": {"name": "flip"}}), Some("flip")),
        ] {
            // An engine without a wish would never end a thought that it is free to begin.
            let content = says(&format!("{thought}{}", form.lead.join("I will not.")));
            let more = json!({"tool_choice": choice, "parallel_tool_calls": false, "max_tokens": 2000});
            let (told, _) = ask(server.address, &Asked { content, tools: narrow(), more });
            let found = (told.text.as_str(), told.thought.as_str(), told.reason, told.calls.len());
            assert_eq!(found, ("", THOUGHT, "tool_calls", 1), "{} {choice}: {told:?}", form.name);
            assert!(is_valid(&told.calls[0]), "{} {choice}: {told:?}", form.name);
            assert!(wanted.is_none_or(|name| name == told.calls[0].0), "{} {choice}", form.name);
        }
    }
}

#[test]
fn a_tool_that_is_not_declared_cannot_be_called_where_a_grammar_holds_calls() {
    for form in forms().iter().filter(|form| !form.mark.is_empty()) {
        let server = server(form);
        let content = says(&form.calls(false).replace("put", "drop"));
        let more = json!({"max_tokens": 600, "parallel_tool_calls": false});
        let (told, _) = ask(server.address, &Asked { content, tools: narrow(), more });
        let found = (told.text.as_str(), told.calls.len());
        assert_eq!(found, ("", 1), "{}: {told:?}", form.name);
        assert!(is_valid(&told.calls[0]), "{}: {told:?}", form.name);
    }
}

#[test]
fn no_call_begins_where_none_may() {
    for form in forms().iter().filter(|form| !form.mark.is_empty()) {
        let server = server(form);
        let content = says(&format!("{}{}", form.lead.join(LEAD), form.calls(false)));
        let more = json!({"tool_choice": "none", "max_tokens": 600});
        let (told, _) = ask(server.address, &Asked { content, tools: tools(), more });
        assert!(told.calls.is_empty() && !told.text.contains(form.mark), "{}: {told:?}", form.name);
        assert!(told.text.starts_with(LEAD), "{}: {told:?}", form.name);
    }
}

#[test]
fn a_conversation_with_calls_and_results_goes_on_where_the_answer_ended() {
    for form in forms() {
        let setup = Setup { template: Some(form.template), stop: form.stop, cache: true, ..Setup::default() };
        let server = setup.echo();
        let chat = |messages: &Value| {
            let body = json!({"messages": messages, "tools": tools(), "temperature": 0});
            let reply = post(server.address, "/v1/chat/completions", &body);
            assert_eq!(reply.status, 200, "{}: {}", form.name, reply.text());
            reply.json()
        };
        // gpt-oss's templates show a text beside a call as a thought.
        let before = if form.name == "harmony" { String::new() } else { lead(&form).0 };
        let script = format!("{}{before}{}", form.thought.join(THOUGHT), form.calls(form.most() == 2));
        let user = json!({"role": "user", "content": says(&script)});
        let first = chat(&json!([user]));
        let answer = first["choices"][0]["message"].clone();
        let calls = answer["tool_calls"].as_array().unwrap().clone();
        assert_eq!(calls.len(), form.most(), "{answer}");
        let mut messages = vec![user, answer];
        for call in calls {
            let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "Done it."});
            messages.push(result);
        }
        messages.push(json!({"role": "user", "content": says(&form.last.join("So it is."))}));
        let second = chat(&json!(messages));
        assert_eq!(second["choices"][0]["message"]["content"], "So it is.", "{}", form.name);
        // All of the first turn's prompt and answer, but for what ends the answer.
        let known = first["usage"]["total_tokens"].as_u64().unwrap();
        let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(cached + 16 >= known, "{}: {cached} of {known}", form.name);
    }
}
