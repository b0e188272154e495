//! Named contexts: put once, computed once, pinned, referred to, gone when deleted or over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefixd::api::{ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{Response, receive, send};
use super::server::{Server, Setup};

const LONG: usize = 160;

fn long(name: &str) -> String {
    format!("{name} ").repeat(LONG).chars().take(LONG).collect()
}

fn call(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    receive(send(server.address, method, path, &[("x-api-key", key)], body.as_bytes()))
}

fn fine(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn handbook() -> Value {
    json!({"system": long("handbook"), "messages": [{"role": "user", "content": long("example")}, {"role": "assistant", "content": "Yes."}],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}], "ttl_s": 600})
}

/// Room for sixty blocks, and a clock.
fn server() -> (Server, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000_000));
    let reads = time.clone();
    let mut setup = Setup { cache: true, resident_bytes: 80 * 320, ..Setup::default() };
    setup.options.time_of_day = Arc::new(move || reads.load(Ordering::Relaxed));
    (setup.sim(), time)
}

#[test]
fn a_context_is_computed_once_and_every_request_that_refers_to_it_begins_with_it() {
    let (server, time) = server();
    let context = fine(&call(&server, "", "PUT", "/v1/contexts/handbook", &handbook()));
    let tokens = number(&context["tokens"]);
    assert!(tokens > 2 * LONG as u64 && context["pinned_blocks"] == context["blocks"], "{context}");
    assert_eq!(number(&context["expires_at"]), 1_700_000_600);
    let asked = json!([{"role": "user", "content": "And now?"}]);
    let chat = json!({"context": "handbook", "messages": asked, "max_tokens": 1, "temperature": 0});
    let usage = fine(&call(&server, "", "POST", "/v1/chat/completions", &chat))["usage"].clone();
    let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
    assert!(
        cached + 16 > tokens && number(&usage["prompt_tokens"]) > tokens,
        "{cached} of {tokens}: {usage}"
    );
    // The same words without a name are the same prompt.
    let mut whole = handbook();
    let mut messages = vec![json!({"role": "system", "content": whole["system"]})];
    messages.extend(whole["messages"].as_array().unwrap().clone());
    messages.extend(asked.as_array().unwrap().clone());
    whole = json!({"messages": messages, "tools": whole["tools"], "max_tokens": 1, "temperature": 0});
    let same = fine(&call(&server, "", "POST", "/v1/chat/completions", &whole))["usage"].clone();
    assert_eq!(same["prompt_tokens"], usage["prompt_tokens"]);
    let counted = fine(&call(
        &server,
        "",
        "POST",
        "/v1/messages/count_tokens",
        &json!({"context": "handbook", "messages": asked}),
    ));
    assert_eq!(counted["input_tokens"], usage["prompt_tokens"]);
    let probed = fine(&call(
        &server,
        "",
        "POST",
        "/v1/cache/probe",
        &json!({"context": "handbook", "messages": asked}),
    ));
    assert_eq!(probed["prompt_tokens"], usage["prompt_tokens"]);
    // A mark counts from the request's own blocks.
    let marked = json!({"context": "handbook", "max_tokens": 1, "messages": [{"role": "user", "content": [
        {"type": "text", "text": long("marked"), "cache_control": {"type": "ephemeral"}}]}]});
    fine(&call(&server, "", "POST", "/v1/messages", &marked));
    let pinned =
        |wanted: u64| server.eventually("pins", || {}, |status| status.cache.retained_blocks >= wanted);
    pinned(number(&context["blocks"]) + 9);
    // It stays under pressure until its time is over.
    let pressure = |name: &str| {
        for at in 0..12 {
            let messages = json!([{"role": "user", "content": long(&format!("{name}{at}"))}]);
            let body = json!({"messages": messages, "max_tokens": 1});
            fine(&call(&server, "", "POST", "/v1/chat/completions", &body));
        }
    };
    let known = || number(&fine(&call(&server, "", "POST", "/v1/cache/probe", &whole))["cached_tokens"]);
    pressure("a");
    assert!(known() + 16 > tokens, "{} of {tokens}", known());
    assert_eq!(fine(&call(&server, "", "GET", "/v1/contexts", &Value::Null))["count"], 1);
    time.fetch_add(3_600_000_000, Ordering::Relaxed);
    assert_eq!(fine(&call(&server, "", "GET", "/v1/contexts", &Value::Null))["count"], 0);
    assert_eq!(call(&server, "", "POST", "/v1/chat/completions", &chat).status, 404);
    pressure("b");
    assert!(known() < LONG as u64);
}

#[test]
fn a_deleted_context_frees_its_blocks_and_a_deleted_agent_leaves_them() {
    let (server, _) = server();
    let context = fine(&call(&server, "", "PUT", "/v1/contexts/a", &handbook()));
    let turn = json!({"context": "a", "session_id": "s", "max_tokens": 1, "messages": [{"role": "user", "content": long("own")}]});
    fine(&call(&server, "", "POST", "/v1/chat/completions", &turn));
    let agent = fine(&call(&server, "", "DELETE", "/v1/agents/oai_s", &Value::Null));
    assert!(
        number(&agent["freed_blocks"]) >= 9
            && number(&agent["kept_blocks"]) + 1 >= number(&context["blocks"]),
        "{agent}"
    );
    let state = fine(&call(&server, "", "GET", "/v1/contexts/a", &Value::Null));
    assert!(number(&state["blocks"]) + 1 >= number(&context["blocks"]), "{state}");
    fine(&call(&server, "", "PUT", "/v1/contexts/b", &handbook()));
    let first = fine(&call(&server, "", "DELETE", "/v1/contexts/a", &Value::Null));
    assert_eq!(
        (&first["deleted"], &first["freed_blocks"]),
        (&json!(true), &json!(0)),
        "b is made of the same blocks"
    );
    let second = fine(&call(&server, "", "DELETE", "/v1/contexts/b", &Value::Null));
    assert!(number(&second["freed_blocks"]) + 1 >= number(&context["blocks"]), "{second}");
    assert_eq!(
        server.scheduler.probe(prefixd_cache::Tenant::PUBLIC, vec![256; 40]).unwrap().unwrap().tokens,
        0
    );
    assert_eq!(call(&server, "", "DELETE", "/v1/contexts/b", &Value::Null).status, 404);
}

#[test]
fn a_context_that_cannot_be_is_refused_by_field_and_nobody_sees_anothers() {
    let settings = ApiSettings {
        keys: ApiKeys::new(["one", "two"]),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { cache: true, settings, ..Setup::default() }.sim();
    for (body, field) in [
        (json!({}), "messages"),
        (json!({"messages": 5}), "messages"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role"),
        (json!({"system": 5}), "system"),
        (json!({"system": "x", "tools": [{}]}), "tools[0]"),
        (json!({"system": "x", "ttl_s": 0}), "ttl_s"),
        (json!({"system": "x", "ttl_s": -1}), "ttl_s"),
        (json!({"system": "x", "ttl_s": 100_000_000}), "ttl_s"),
    ] {
        let response = call(&server, "one", "PUT", "/v1/contexts/a", &body);
        assert!(
            response.status == 400 && response.json()["error"]["param"] == field,
            "{body}: {}",
            response.text()
        );
    }
    fine(&call(&server, "one", "PUT", "/v1/contexts/a", &handbook()));
    let chat = json!({"context": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    assert_eq!(call(&server, "one", "POST", "/v1/chat/completions", &chat).status, 200);
    for (method, path, body) in [
        ("GET", "/v1/contexts/a", Value::Null),
        ("DELETE", "/v1/contexts/a", Value::Null),
        ("POST", "/v1/chat/completions", chat.clone()),
        ("POST", "/v1/messages", chat.clone()),
    ] {
        assert_eq!(call(&server, "two", method, path, &body).status, 404, "{method} {path}");
    }
    assert_eq!(fine(&call(&server, "two", "GET", "/v1/contexts", &Value::Null))["count"], 0);
    assert_eq!(call(&server, "", "GET", "/v1/contexts", &Value::Null).status, 401);
    let text = json!({"context": "a", "prompt": "x"});
    let refused = call(&server, "one", "POST", "/v1/completions", &text);
    assert!(refused.status == 400 && refused.json()["error"]["param"] == "context", "{}", refused.text());
    assert_eq!(fine(&call(&server, "one", "GET", "/v1/contexts/a", &Value::Null))["name"], "a");
}
