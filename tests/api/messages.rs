//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::net::SocketAddr;

use prefixd::api::{ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{Response, get, post, receive, send};
use super::server::Setup;

fn body(content: &Value, more: &Value) -> Value {
    let mut body =
        json!({"messages": [{"role": "user", "content": content}], "max_tokens": 200, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn ask(address: SocketAddr, content: Value, more: Value) -> Response {
    post(address, "/v1/messages", &body(&content, &more))
}

fn says(text: &str) -> Value {
    json!(format!("<script>{text}<go>"))
}

/// The events of a stream: each frame has the name that its data has.
fn events(response: &Response) -> Vec<Value> {
    let event = |frame: &String| -> Value {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    response.frames().iter().map(event).collect()
}

/// The message that a client puts together from events.
fn assembled(events: &[Value]) -> Value {
    let mut message = events[0]["message"].clone();
    let mut inputs = Vec::new();
    for event in &events[1..] {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!(index, inputs.len());
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => match event["delta"]["type"].as_str().unwrap() {
                "text_delta" => {
                    let text = &mut message["content"][index]["text"];
                    *text =
                        (text.as_str().unwrap().to_owned() + event["delta"]["text"].as_str().unwrap()).into();
                }
                "input_json_delta" => {
                    inputs[index].push_str(event["delta"]["partial_json"].as_str().unwrap());
                }
                other => panic!("{other}"),
            },
            "content_block_stop" if !inputs[index].is_empty() => {
                message["content"][index]["input"] = serde_json::from_str(&inputs[index]).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    message
}

/// A message without its random ids.
fn nameless(mut message: Value) -> Value {
    message["id"] = Value::Null;
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            block["id"] = Value::Null;
        }
    }
    message
}

const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"z\": \"é\", \"a\": 1}}\n</tool_call>\n<tool_call>{\"name\": \"pwd\"}</tool_call>";

fn tools() -> Value {
    json!([{"name": "ls", "description": "Lists.", "input_schema": {"type": "object"}},
        {"name": "pwd", "input_schema": {"type": "object"}}])
}

#[test]
fn a_whole_message_has_everything_clients_read() {
    let server = Setup::default().echo();
    let response =
        ask(server.address, says("Hello, world"), json!({"model": "alias", "metadata": {"user_id": "u"}}));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("request-id"), response.header("x-request-id"));
    let message = response.json();
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    let usage = json!({"input_tokens": 33, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 13});
    assert_eq!(
        nameless(message),
        json!({"id": null, "type": "message", "role": "assistant", "model": "alias", "content": [{"type": "text", "text": "Hello, world"}],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": usage})
    );
}

#[test]
fn a_stream_has_anthropics_events_in_order() {
    let server = Setup::default().echo();
    let response = ask(server.address, says("Hi 🦀"), json!({"stream": true}));
    let events = events(&response);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(kinds[3..kinds.len() - 3].iter().all(|kind| *kind == "content_block_delta"));
    let start = &events[0]["message"];
    assert!(start["usage"]["input_tokens"].as_u64().unwrap() > 0 && start["content"] == json!([]));
    assert_eq!(assembled(&events)["content"], json!([{"type": "text", "text": "Hi 🦀"}]));
}

#[test]
fn streamed_and_whole_messages_are_equal_for_every_ending() {
    let server = Setup::default().echo();
    for (content, more, reason, stop) in [
        (says("plain"), json!({}), "end_turn", Value::Null),
        (says("one STOP two"), json!({"stop_sequences": ["nope", "STOP"]}), "stop_sequence", json!("STOP")),
        (says("abcdef"), json!({"max_tokens": 3}), "max_tokens", Value::Null),
        (says(CALLS), json!({"tools": tools(), "tool_choice": {"type": "auto"}}), "tool_use", Value::Null),
        (says(CALLS), json!({"tools": tools(), "tool_choice": {"type": "none"}}), "end_turn", Value::Null),
        (says(""), json!({}), "end_turn", Value::Null),
    ] {
        let whole = ask(server.address, content.clone(), more.clone());
        assert_eq!(whole.status, 200, "{}", whole.text());
        let whole = nameless(whole.json());
        assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!(reason), &stop));
        let mut more = more;
        more["stream"] = true.into();
        let stream = ask(server.address, content, more);
        assert_eq!(nameless(assembled(&events(&stream))), whole);
    }
}

#[test]
fn calls_become_blocks_with_objects_as_input() {
    let server = Setup::default().echo();
    let message = ask(server.address, says(CALLS), json!({"tools": tools()})).json();
    let blocks = message["content"].as_array().unwrap();
    assert_eq!(blocks[0], json!({"type": "text", "text": "Let me see."}));
    assert_eq!((&blocks[1]["name"], &blocks[1]["input"]), (&json!("ls"), &json!({"z": "é", "a": 1})));
    assert_eq!((&blocks[2]["name"], &blocks[2]["input"]), (&json!("pwd"), &json!({})));
    assert!(blocks[1]["id"].as_str().unwrap().starts_with("toolu_") && blocks[1]["id"] != blocks[2]["id"]);
    let odd = ask(
        server.address,
        says("<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>"),
        json!({"tools": tools(), "min_tokens": 1}),
    );
    assert_eq!(odd.json()["content"][0]["input"], json!({"arguments": "[1]"}));
}

/// The same conversation in both dialects.
fn dialects() -> (Value, Value) {
    let anthropic = json!({
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=0af31;"},
            {"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"name": "ls", "description": "Lists.", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Yes."},
                {"type": "tool_use", "id": "t1", "name": "ls", "input": {"z": 1, "a": "b"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
                {"type": "text", "text": "<script>ok<go>"}, {"type": "text", "text": "!", "cache_control": {"type": "ephemeral"}}]}],
        "max_tokens": 9, "temperature": 0});
    let openai = json!({
        "tools": [{"type": "function", "function": {"name": "ls", "description": "Lists.", "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": "Be brief.\nBe kind."},
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": "Yes.", "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "ls", "arguments": "{\"z\":1,\"a\":\"b\"}"}}]},
            {"role": "tool", "tool_call_id": "t1", "content": "x\ny"},
            {"role": "user", "content": "<script>ok<go>\n!"}],
        "max_tokens": 9, "temperature": 0});
    (anthropic, openai)
}

fn whole_prompt(usage: &Value) -> u64 {
    ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
        .iter()
        .map(|field| usage[field].as_u64().unwrap())
        .sum()
}

#[test]
fn both_dialects_make_the_same_prompt_and_count_tokens_tells_its_length() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let (anthropic, openai) = dialects();
    let first = post(server.address, "/v1/chat/completions", &openai).json();
    let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
    let second = post(server.address, "/v1/messages", &anthropic);
    assert_eq!(second.status, 200, "{}", second.text());
    let usage = &second.json()["usage"];
    assert_eq!(whole_prompt(usage), prompt);
    // The first request left the whole prompt in the cache; its last token is always computed.
    assert_eq!(usage["cache_read_input_tokens"], prompt - 1);
    assert_eq!(usage["input_tokens"], 1);
    let count = post(server.address, "/v1/messages/count_tokens?beta=true", &anthropic).json();
    assert_eq!(count, json!({"input_tokens": prompt}));
}

#[test]
fn a_billing_header_that_changes_with_every_request_does_not_break_the_prefix() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let ask = |nonce: &str| {
        let (mut anthropic, _) = dialects();
        anthropic["system"][0]["text"] = format!("x-anthropic-billing-header: cch={nonce};").into();
        post(server.address, "/v1/messages?beta=true", &anthropic).json()["usage"].clone()
    };
    let (cold, warm) = (ask("1a2b3"), ask("4c5d6"));
    assert_eq!(cold["cache_read_input_tokens"], 0);
    assert_eq!(warm["cache_read_input_tokens"], whole_prompt(&cold) - 1);
    let with = |system: &str| {
        post(server.address, "/v1/messages/count_tokens", &body(&json!("x"), &json!({"system": system})))
            .json()
    };
    assert_eq!(with("x-anthropic-billing-header: cch=1;\nBe brief."), with("Be brief."));
    assert_ne!(with("An x-anthropic-billing-header"), with(""));
}

#[test]
fn new_tokens_count_as_written_only_where_a_prefix_is_marked() {
    let long = "a shared prompt ".repeat(20);
    let marked = json!([{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}]);
    let ask = |server: &super::server::Server, content: &Value| {
        ask(server.address, content.clone(), json!({"max_tokens": 2})).json()["usage"].clone()
    };
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let plain = ask(&server, &json!(long));
    assert_eq!(
        (&plain["cache_creation_input_tokens"], &plain["cache_read_input_tokens"]),
        (&json!(0), &json!(0))
    );
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let cold = ask(&server, &marked);
    assert_eq!(
        (&cold["input_tokens"], &cold["cache_creation_input_tokens"]),
        (&json!(1), &json!(whole_prompt(&plain) - 1))
    );
    let warm = ask(&server, &marked);
    assert_eq!(whole_prompt(&warm), whole_prompt(&cold));
    // The end of a sequence that is too short for a block of its own is computed again.
    let tail = warm["cache_creation_input_tokens"].as_u64().unwrap();
    assert!(warm["input_tokens"] == 1 && tail < 16, "{warm}");
    let server = Setup::default().sim();
    assert_eq!(ask(&server, &marked)["cache_creation_input_tokens"], 0, "without a cache nothing is written");
}

fn error(response: &Response) -> (u16, String, String) {
    let body = response.json();
    assert_eq!(body["type"], "error", "{body}");
    let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
    (response.status, text("type"), text("message"))
}

#[test]
fn every_wrong_field_is_named_in_anthropics_shape() {
    let server = Setup::default().echo();
    let content = |blocks: Value| json!({"messages": [{"role": "user", "content": blocks}]});
    let said = |role: &str, blocks: Value| json!({"messages": [{"role": role, "content": blocks}, {"role": "user", "content": "x"}]});
    let cases = [
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (content(json!(5)), "messages[0].content"),
        (content(json!([{"text": "x"}])), "messages[0].content"),
        (content(json!([{"type": "image", "source": {}}])), "messages[0].content[0].type"),
        (content(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (content(json!([{"type": "tool_result", "content": "x"}])), "messages[0].content[0].tool_use_id"),
        (
            content(json!([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}])),
            "messages[0].content[0].content[0].type",
        ),
        (
            content(json!([{"type": "text", "text": "x", "cache_control": {"type": "forever"}}])),
            "messages[0].content[0].cache_control",
        ),
        (
            content(
                json!([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}}]),
            ),
            "messages[0].content[0].cache_control.ttl",
        ),
        (said("assistant", json!([{"type": "tool_use", "name": "f"}])), "messages[0].content[0].id"),
        (said("assistant", json!([{"type": "video"}])), "messages[0].content[0].type"),
        (json!({"messages": [{"role": "assistant", "content": "And"}]}), "an assistant message as the last"),
        (json!({"system": 5}), "system"),
        (json!({"system": [{"type": "image"}]}), "system[0].type"),
        (json!({"tools": [{}]}), "tools[0].name"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (json!({"tools": [{"name": "w", "type": "web_search_20250305"}]}), "tools[0]"),
        (json!({"tool_choice": {"type": "sometimes"}}), "tool_choice.type"),
        (json!({"tool_choice": {}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"tools": tools(), "tool_choice": {"type": "tool", "name": "rm"}}), "rm"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema"),
        (json!({"output_format": {"type": "yaml"}}), "output_format.type"),
        (json!({"thinking": {"type": "a lot"}}), "thinking.type"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"stop_sequences": "x"}), "stop_sequences"),
        (json!({"stop_sequences": ["a", ""]}), "stop_sequences[1]"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_k": "x"}), "top_k"),
        (json!({"n": 2}), "n"),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
        (json!({"thread": {"type": "create"}}), "thread"),
        (
            json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
            "context_management",
        ),
    ];
    for (more, named) in cases {
        let response = ask(server.address, json!("x"), more.clone());
        let (status, kind, message) = error(&response);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{more}: {message}");
        assert!(message.contains(named), "{more}: {message}");
    }
    for wrong in [&b"{"[..], b"[]", b"\xff"] {
        let response = receive(send(server.address, "POST", "/v1/messages", &[], wrong));
        assert_eq!(error(&response).0, 400);
    }
    let fine = json!({"mcp_servers": [], "thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "auto",
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}, "output_config": {"effort": "low"}, "stop_sequences": []});
    assert_eq!(ask(server.address, says("ok"), fine).json()["content"][0]["text"], "ok");
}

#[test]
fn a_message_that_goes_on_in_a_thread_is_refused_in_the_words_that_make_clients_send_all_of_it() {
    let server = Setup::default().echo();
    let thread = json!({"thread": {"type": "continue", "previous_message_id": "msg_1"}});
    let refused = ask(
        server.address,
        json!([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "4417"}]),
        thread,
    );
    assert_eq!(refused.status, 400);
    let details = json!({"error_code": "thread_unsupported_request", "unsupported": ["thread"]});
    assert_eq!(refused.json()["error"]["details"], details);
    assert_eq!(ask(server.address, says("ok"), json!({"thread": null})).status, 200);
}

#[test]
fn other_errors_have_anthropics_words_too() {
    let keys =
        ApiSettings { keys: ApiKeys::new(["secret"]), keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { settings: keys, ..Setup::default() }.echo();
    let with = |headers: &[(&str, &str)], path: &str, more: Value| {
        receive(send(server.address, "POST", path, headers, body(&says("ok"), &more).to_string().as_bytes()))
    };
    let version = ("anthropic-version", "2023-06-01");
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        let refused = with(&[version], path, json!({}));
        assert_eq!((error(&refused).0, error(&refused).1.as_str()), (401, "authentication_error"));
        let key = [version, ("x-api-key", "secret"), ("anthropic-beta", "prompt-caching-2024-07-31")];
        assert_eq!(with(&key, path, json!({})).status, 200);
        let model = with(&key, path, json!({"model": "claude-9"}));
        assert_eq!((error(&model).0, error(&model).1.as_str()), (404, "not_found_error"));
        let method = get(server.address, path);
        assert_eq!((error(&method).0, method.header("allow")), (405, Some("POST")));
    }
    let long =
        with(&[("x-api-key", "secret")], "/v1/messages", json!({"system": "x".repeat(5000), "stream": true}));
    assert!(error(&long).0 == 400 && error(&long).2.contains("> 4095 maximum"), "{}", long.text());
}
