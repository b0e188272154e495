//! What clients see of the prefix cache, and whose prefixes they can hit.

use prefixd::api::{ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{Response, chat, chat_body, get, receive, send};
use super::server::Setup;

fn cached(body: &Value) -> u64 {
    body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[test]
fn cached_tokens_are_told_in_body_header_stream_and_statistics() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    let ask = |more: Value| chat(server.address, &long, more);
    let cold = ask(json!({"max_tokens": 4})).json();
    assert_eq!(cached(&cold), 0);
    let warm = ask(json!({"max_tokens": 4}));
    let tokens = warm.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(cached(&warm.json()) >= tokens / 16 * 16 - 16, "{}", warm.text());
    assert_eq!(warm.header("x-prefixd-cached-tokens").unwrap(), cached(&warm.json()).to_string());
    assert_eq!(warm.json()["choices"], cold["choices"]);
    let stream = ask(json!({"max_tokens": 4, "stream": true, "stream_options": {"include_usage": true}}));
    assert_eq!(cached(stream.chunks().last().unwrap()), cached(&warm.json()));
    let stats = get(server.address, "/v1/cache/stats").json();
    assert!(
        stats["resident"]["blocks"].as_u64().unwrap() > 10 && stats["lookups"].as_u64().unwrap() >= 3,
        "{stats}"
    );
}

#[test]
fn a_salt_and_a_key_each_keep_a_prefix_to_themselves() {
    let settings = ApiSettings {
        keys: ApiKeys::new(["one", "two"]),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { cache: true, settings, ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    let ask = |key: &str, salt: Value| {
        let body = chat_body(&long, json!({"max_tokens": 1, "cache_salt": salt})).to_string();
        let authorization = format!("Bearer {key}");
        let response = receive(send(
            server.address,
            "POST",
            "/v1/chat/completions",
            &[("authorization", &authorization)],
            body.as_bytes(),
        ));
        assert_eq!(response.status, 200, "{}", response.text());
        cached(&response.json())
    };
    assert_eq!(ask("one", Value::Null), 0);
    assert!(ask("one", Value::Null) > 0);
    assert_eq!(ask("two", Value::Null), 0);
    assert_eq!(ask("one", json!("s")), 0);
    assert!(ask("one", json!("s")) > 0);
    assert_eq!(ask("two", json!("s")), 0);
}

#[test]
fn keys_close_everything_but_health() {
    let settings =
        ApiSettings { keys: ApiKeys::new(["secret"]), keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { settings, ..Setup::default() }.sim();
    let with = |method: &str, path: &str, key: &str| -> Response {
        receive(send(
            server.address,
            method,
            path,
            &[("x-api-key", key)],
            chat_body("x", json!({"max_tokens": 1})).to_string().as_bytes(),
        ))
    };
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/alias"),
        ("GET", "/v1/cache/stats"),
    ] {
        let refused = with(method, path, "guess");
        assert_eq!(
            (refused.status, refused.json()["error"]["code"].as_str()),
            (401, Some("invalid_api_key")),
            "{path}"
        );
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(with("POST", "/v1/chat/completions", "secret").status, 200);
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(get(server.address, path).status, 200);
    }
}
