//! Formats that are enforced while the answer is made: JSON, schemas, calls.

use std::collections::HashSet;
use std::sync::Arc;

use prefixd::scheduler::{Event, Failure, FinishReason, Hold, Request, Stream};
use prefixd_cache::Tenant;
use prefixd_engine::{Allowed, Constraint, ConstraintError, Ending, Sampling};
use serde_json::{Value, json};

use super::client::{Response, called, chat, post};
use super::model::END;
use super::server::Setup;

fn says(text: &str) -> String {
    format!("<script>{text}<go>")
}

fn content(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn pet() -> Value {
    json!({"type": "object", "properties": {"kind": {"enum": ["cat", "dög"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["kind", "legs"], "additionalProperties": false})
}

fn of_schema(schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "pet", "strict": true, "schema": schema}})
}

fn tools() -> Value {
    let path = json!({"type": "object", "properties": {"path": {"enum": ["/", "/tmp"]}}, "required": ["path"], "additionalProperties": false});
    json!([{"type": "function", "function": {"name": "ls", "description": "Lists.", "parameters": path}},
        {"type": "function", "function": {"name": "feed", "parameters": pet()}}])
}

#[test]
fn what_is_valid_already_is_left_as_it_is() {
    let server = Setup::default().echo();
    for text in [r#"{"kind": "dög", "legs": 4}"#, "{\n  \"kind\": \"cat\",\n  \"legs\": 0\n}"] {
        let more = json!({"response_format": of_schema(&pet())});
        let response = chat(server.address, &says(text), more);
        assert_eq!(content(&response), text);
        assert_eq!(response.json()["choices"][0]["finish_reason"], "stop");
    }
    let text = r#"{"any": ["thing", {"é": null}]}"#;
    let more = json!({"response_format": {"type": "json_object"}});
    assert_eq!(content(&chat(server.address, &says(text), more)), text);
}

#[test]
fn random_answers_are_of_the_schema_and_only_the_length_cuts_them() {
    let server = Setup::default().sim();
    let (mut whole, mut kinds) = (0, HashSet::new());
    for seed in 0..40 {
        let more = json!({"response_format": of_schema(&pet()), "temperature": 2, "seed": seed, "max_tokens": 60, "n": 2});
        let body = chat(server.address, "x", more).json();
        for choice in body["choices"].as_array().unwrap() {
            let text = choice["message"]["content"].as_str().unwrap();
            if choice["finish_reason"] == "length" {
                continue;
            }
            assert_eq!(choice["finish_reason"], "stop");
            let pet: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(
                pet.as_object().unwrap().len() == 2 && (0..10).contains(&pet["legs"].as_i64().unwrap()),
                "{pet}"
            );
            kinds.insert(pet["kind"].as_str().unwrap().to_owned());
            whole += 1;
        }
    }
    assert_eq!(kinds, ["cat", "dög"].map(str::to_owned).into());
    assert!(whole > 20, "{whole} of 80 answers ended in time");
    let more = json!({"response_format": of_schema(&pet()), "max_tokens": 3});
    let body = chat(server.address, "x", more).json();
    assert_eq!(
        (&body["choices"][0]["finish_reason"], &body["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
}

#[test]
fn a_demanded_call_is_made_whatever_the_model_would_say() {
    let server = Setup::default().echo();
    let named = json!({"type": "function", "function": {"name": "feed"}});
    for (choice, names) in [(json!("required"), &["ls", "feed"][..]), (named, &["feed"])] {
        for one in [false, true] {
            let more = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": !one, "max_tokens": 400});
            let whole = chat(server.address, &says("I will not."), more.clone()).json();
            let message = &whole["choices"][0]["message"];
            assert_eq!(
                (&message["content"], &whole["choices"][0]["finish_reason"]),
                (&Value::Null, &json!("tool_calls"))
            );
            let calls = message["tool_calls"].as_array().unwrap();
            assert!(!one || calls.len() == 1);
            for call in calls {
                let function = &call["function"];
                assert!(names.contains(&function["name"].as_str().unwrap()), "{call}");
                let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
                assert!(arguments["path"].is_string() || arguments["legs"].is_number(), "{arguments}");
            }
            let mut more = more;
            more["stream"] = true.into();
            let stream = chat(server.address, &says("I will not."), more).chunks();
            let functions: Vec<Value> = calls.iter().map(|call| call["function"].clone()).collect();
            assert_eq!(called(&stream), functions);
        }
    }
}

#[test]
fn what_begins_as_a_call_becomes_one_of_a_declared_tool_and_other_text_stays_free() {
    let server = Setup::default().echo();
    let ask = |text: &str, tools: Value| {
        let more = json!({"tools": tools, "max_tokens": 400});
        chat(server.address, &says(text), more).json()["choices"][0].clone()
    };
    for text in ["I will not.", "{\"name\": \"ls\"}", "a <tool_ b"] {
        assert_eq!(ask(text, tools())["message"]["content"], text);
    }
    let wrong = "Well.\n<tool_call>\n{\"name\": \"list\", \"arguments\": {\"dir\": 1}}\n</tool_call>";
    let choice = ask(wrong, tools());
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("Well."), &json!("tool_calls"))
    );
    let function = &choice["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert!(function["name"] == "ls" && arguments["path"].is_string(), "{function}");
    // A schema that cannot be enforced is refused where a call is demanded; here the name alone is held to.
    let mut odd = tools();
    odd[0]["function"]["parameters"] = json!({"type": "object", "unevaluatedProperties": false});
    let text = ask(wrong, json!([odd[0]])).to_string();
    assert!(text.contains("ls") && !text.contains("list"), "{text}");
}

#[test]
fn with_a_schema_and_tools_the_answer_is_either() {
    let server = Setup::default().echo();
    let call = "<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/tmp\"}}\n</tool_call>";
    let ask = |text: &str| {
        let more = json!({"tools": tools(), "response_format": of_schema(&pet())});
        chat(server.address, &says(text), more).json()["choices"][0].clone()
    };
    assert_eq!(ask(call)["message"]["tool_calls"][0]["function"]["arguments"], "{\"path\":\"/tmp\"}");
    let text = r#"{"kind": "cat", "legs": 4}"#;
    assert_eq!(ask(text)["message"]["content"], text);
}

#[test]
fn where_one_call_is_allowed_the_first_ends_the_answer() {
    let server = Setup::default().echo();
    let two = "Ok.\n<tool_call>{\"name\": \"pwd\"}</tool_call>\n<tool_call>{\"name\": \"pwd\"}</tool_call>";
    let count = |more: Value| {
        let body = chat(server.address, &says(two), more).json();
        assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(body["choices"][0]["message"]["content"], "Ok.");
        body["choices"][0]["message"]["tool_calls"].as_array().unwrap().len()
    };
    let tools = json!([{"type": "function", "function": {"name": "pwd"}}]);
    assert_eq!(count(json!({"tools": tools})), 2);
    assert_eq!(count(json!({"tools": tools, "parallel_tool_calls": false})), 1);
}

#[test]
fn messages_enforce_the_same() {
    let server = Setup::default().echo();
    let tool = json!({"name": "feed", "input_schema": pet()});
    let ask = |text: &str, more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": says(text)}], "max_tokens": 1000, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let response = post(server.address, "/v1/messages", &body);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    for choice in
        [json!({"type": "any", "disable_parallel_tool_use": true}), json!({"type": "tool", "name": "feed"})]
    {
        let message = ask("no", json!({"tools": [tool], "tool_choice": choice}));
        let blocks = message["content"].as_array().unwrap();
        assert_eq!((blocks.len(), &message["stop_reason"]), (1, &json!("tool_use")));
        assert!(blocks[0]["input"]["legs"].is_number(), "{message}");
    }
    for more in [
        json!({"output_config": {"format": {"type": "json_schema", "schema": pet()}}}),
        json!({"output_format": {"type": "json_schema", "schema": pet()}}),
    ] {
        let message = ask("no", more);
        let pet: Value = serde_json::from_str(message["content"][0]["text"].as_str().unwrap()).unwrap();
        assert!(pet["legs"].is_number(), "{message}");
    }
}

#[test]
fn what_contradicts_a_format_is_refused_by_name() {
    let server = Setup::default().echo();
    let format = json!({"response_format": {"type": "json_object"}});
    for (field, value) in [("min_tokens", json!(5)), ("ignore_eos", json!(true))] {
        let mut more = format.clone();
        more[field] = value;
        let response = chat(server.address, "x", more);
        assert_eq!((response.status, response.json()["error"]["param"].as_str()), (400, Some(field)));
    }
    let mut wrong = tools();
    wrong[0]["function"]["parameters"] = json!({"type": "no such type"});
    let response = chat(server.address, "x", json!({"tools": wrong, "tool_choice": "required"}));
    assert_eq!((response.status, response.json()["error"]["param"].as_str()), (400, Some("tools")));
    assert_eq!(
        chat(server.address, &says("ok"), json!({"tools": wrong})).status,
        200,
        "what is not enforced needs no schema"
    );
}

/// Allows everything, a few times.
#[derive(Clone, Debug)]
struct Breaks {
    after: usize,
}

impl Constraint for Breaks {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        self.after = self.after.checked_sub(1).ok_or_else(|| ConstraintError("it broke".into()))?;
        Ok(Allowed { tokens: vec![u32::MAX; 9], ..Allowed::default() })
    }

    fn advance(&mut self, _: u32) -> Result<Ending, ConstraintError> {
        Ok(Ending::Open)
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

fn last(stream: &mut Stream) -> (usize, Event) {
    let mut tokens = 0;
    loop {
        match stream.blocking_next().unwrap() {
            Event::Started(_) => {}
            Event::Token(_) => tokens += 1,
            end => return (tokens, end),
        }
    }
}

#[test]
fn a_grammar_that_breaks_ends_its_own_sequence_alone() {
    let server = Setup::default().sim();
    let submit = |constraint: Option<Breaks>| {
        let request = Request {
            prompt: vec![1, 2, 3],
            max_tokens: 50,
            min_tokens: 0,
            stop_tokens: if constraint.is_some() { Arc::from([END]) } else { Arc::from([]) },
            sampling: Sampling::default(),
            constraint: constraint.map(|constraint| Box::new(constraint) as Box<dyn Constraint>),
            top_logprobs: None,
            tenant: Tenant::PUBLIC,
            hold: Hold::default(),
        };
        server.scheduler.submit(request).unwrap()
    };
    let mut streams =
        [submit(None), submit(Some(Breaks { after: 0 })), submit(Some(Breaks { after: 7 })), submit(None)];
    let ends: Vec<(usize, Event)> = streams.iter_mut().map(last).collect();
    for (at, tokens) in [(1, 0), (2, 7)] {
        assert_eq!(ends[at], (tokens, Event::Failed(Failure::Constraint("it broke".into()))));
    }
    for at in [0, 3] {
        assert!(
            ends[at].0 == 50
                && matches!(&ends[at].1, Event::Finished(finish) if finish.reason == FinishReason::Length)
        );
    }
    server.eventually("the end", || {}, |status| status.decoding == 0 && status.failed == 2);
}

#[test]
fn what_cannot_be_enforced_in_full_is_told_or_where_it_is_strict_refused_with_the_tools_name() {
    let server = Setup::default().echo();
    let mut schema = pet();
    schema["not"] = json!({"required": ["wings"]});
    let text = r#"{"kind": "cat", "legs": 4}"#;
    let format = |strict: bool| json!({"type": "json_schema", "json_schema": {"name": "pet", "strict": strict, "schema": schema}});
    for stream in [false, true] {
        let response =
            chat(server.address, &says(text), json!({"response_format": format(false), "stream": stream}));
        let warning = response.header("x-prefixd-warning").unwrap();
        assert!(
            response.status == 200 && warning.contains("response_format") && warning.contains("not"),
            "{warning}"
        );
    }
    assert_eq!(chat(server.address, &says(text), json!({"response_format": format(true)})).status, 400);
    let mut endless = pet();
    endless["properties"]["kin"] = json!({"$ref": "#/$defs/A"});
    endless["$defs"] = json!({"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}});
    let response = chat(
        server.address,
        &says(text),
        json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "pet", "schema": endless}}}),
    );
    assert!(response.status == 200 && response.header("x-prefixd-warning").unwrap().contains("$ref"));
    assert_eq!(
        chat(server.address, &says(text), json!({"response_format": of_schema(&pet())}))
            .header("x-prefixd-warning"),
        None
    );
    let mut tools = tools();
    tools[1]["function"]["parameters"] = schema.clone();
    tools[1]["function"]["strict"] = true.into();
    let refused = chat(server.address, "x", json!({"tools": tools, "tool_choice": "required"}));
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        refused.status == 400 && message.contains("\"feed\"") && !message.contains("\"ls\""),
        "{message}"
    );
}
