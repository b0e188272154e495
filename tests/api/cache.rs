//! What clients see of the prefix cache, and whose prefixes they can hit.

use prefixd::api::{AdminKey, ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{Response, chat, chat_body, get, post, receive, send};
use super::server::Setup;

fn cached(body: &Value) -> u64 {
    body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

/// Two tenants.
fn two_keys() -> ApiSettings {
    ApiSettings { keys: ApiKeys::new(["one", "two"]), keepalive: None, workers: 1, ..ApiSettings::default() }
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
    let server = Setup { cache: true, settings: two_keys(), ..Setup::default() }.sim();
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
        ("POST", "/v1/cache/probe"),
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

#[test]
fn with_keys_sums_over_tenants_take_the_admin_key() {
    let settings = ApiSettings { admin: AdminKey::new("root"), ..two_keys() };
    let server = Setup { settings, cache: true, ..Setup::default() }.sim();
    let with = |method: &str, path: &str, key: &str| -> Response {
        let body = chat_body(&"a prompt ".repeat(20), json!({"max_tokens": 1})).to_string();
        receive(send(server.address, method, path, &[("x-api-key", key)], body.as_bytes()))
    };
    let stats = |key: &str| with("GET", "/v1/cache/stats", key).json();
    let before = stats("two");
    for _ in 0..3 {
        assert_eq!(with("POST", "/v1/chat/completions", "one").status, 200);
    }
    assert_eq!(stats("two"), before, "what one does, two does not see");
    assert_ne!(stats("one"), before);
    assert!(before.get("resident").is_none() && stats("root")["resident"]["blocks"].as_u64().unwrap() > 0);
    assert_eq!(with("GET", "/metrics", "root").status, 200);
    assert_eq!(with("GET", "/metrics", "one").status, 401);
}

#[test]
fn what_the_cache_did_is_told_in_headers_and_on_demand_in_usage() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    let cold = chat(server.address, &long, json!({"max_tokens": 1, "prefixd_usage": true}));
    assert_eq!(cold.header("x-prefixd-miss"), Some("absent"));
    assert_eq!(cold.json()["usage"]["prefixd"]["miss"], json!({"reason": "absent"}));
    let other = format!("{}and so on", "a shared prompt ".repeat(19));
    let warm = chat(server.address, &other, json!({"max_tokens": 1, "prefixd_usage": true}));
    let told = &warm.json()["usage"]["prefixd"];
    assert_eq!((&told["resident_tokens"], &told["disk_tokens"]), (&json!(cached(&warm.json())), &json!(0)));
    assert_eq!(told["miss"]["reason"], "diverged", "{told}");
    assert_eq!(warm.header("x-prefixd-resident-tokens"), warm.header("x-prefixd-cached-tokens"));
    for (header, field) in [
        ("x-prefixd-queue-ms", "queue_ms"),
        ("x-prefixd-restore-ms", "restore_ms"),
        ("x-prefixd-prefill-ms", "prefill_ms"),
    ] {
        let ms: f64 = warm.header(header).unwrap().parse().unwrap();
        assert!((ms - told[field].as_f64().unwrap()).abs() < 0.001 && ms >= 0.0, "{header}: {told}");
    }
    let more = json!({"max_tokens": 1, "prefixd_usage": true, "stream": true, "stream_options": {"include_usage": true}});
    let stream = chat(server.address, &long, more).chunks();
    let told = &stream.last().unwrap()["usage"]["prefixd"];
    assert!(told["resident_tokens"].as_u64().unwrap() > 300, "{told}");
    let brief = chat(server.address, &long, json!({"max_tokens": 1}));
    assert!(brief.json()["usage"].get("prefixd").is_none());
    let body =
        json!({"messages": [{"role": "user", "content": long}], "max_tokens": 1, "prefixd_usage": true});
    let message = post(server.address, "/v1/messages", &body).json();
    assert_eq!(message["usage"]["prefixd"]["resident_tokens"], message["usage"]["cache_read_input_tokens"]);
}

#[test]
fn a_probe_tells_what_a_request_would_find_and_only_its_own_tenant_s() {
    let server = Setup { cache: true, settings: two_keys(), ..Setup::default() }.sim();
    let body = chat_body(&"a shared prompt ".repeat(20), json!({"max_tokens": 1}));
    let ask = |key: &str, path: &str, body: &Value| {
        let bytes = body.to_string();
        receive(send(server.address, "POST", path, &[("x-api-key", key)], bytes.as_bytes()))
    };
    let before = ask("one", "/v1/cache/probe", &body).json();
    let tokens = before["prompt_tokens"].as_u64().unwrap();
    assert_eq!((&before["cached_tokens"], &before["miss"]), (&json!(0), &json!({"reason": "absent"})));
    assert_eq!(ask("one", "/v1/chat/completions", &body).status, 200);
    let after = ask("one", "/v1/cache/probe", &body).json();
    assert!(after["cached_tokens"].as_u64().unwrap() > tokens - 16, "{after}");
    assert_eq!(after["resident_tokens"], after["cached_tokens"]);
    assert_eq!(
        cached(&ask("one", "/v1/chat/completions", &body).json()),
        after["cached_tokens"].as_u64().unwrap()
    );
    assert_eq!(ask("two", "/v1/cache/probe", &body).json()["cached_tokens"], 0);
    let text = ask("one", "/v1/cache/probe", &json!({"prompt": "abc"})).json();
    assert_eq!(text["prompt_tokens"], 4, "{text}");
    assert_eq!(ask("one", "/v1/cache/probe", &json!({"prompt": [1, 2, 3]})).json()["prompt_tokens"], 3);
    for (wrong, named) in
        [(json!({"prompt": ["a", "b"]}), "prompt"), (json!({"prompt": []}), "prompt"), (json!({}), "prompt")]
    {
        let refused = ask("one", "/v1/cache/probe", &wrong);
        assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some(named)));
    }
}

#[test]
fn a_server_without_a_cache_says_so_to_a_probe() {
    let server = Setup::default().sim();
    let known = post(server.address, "/v1/cache/probe", &json!({"prompt": "abc"})).json();
    assert_eq!(known["miss"], json!({"reason": "no_cache"}));
}

#[test]
fn only_the_admin_empties_the_cache() {
    let settings =
        ApiSettings { admin: AdminKey::new("root"), keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { cache: true, settings, ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    let ask = || cached(&chat(server.address, &long, json!({"max_tokens": 1})).json());
    assert!(ask() == 0 && ask() > 0);
    let clear =
        |key: &str| receive(send(server.address, "POST", "/v1/cache/clear", &[("x-admin-key", key)], b""));
    let refused = clear("guess");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (401, Some("invalid_admin_key")));
    assert!(ask() > 0);
    assert_eq!(clear("root").json(), json!({"cleared": true}));
    assert_eq!(ask(), 0);
    let open = Setup::default().sim();
    let nobody = post(open.address, "/v1/cache/clear", &json!({}));
    assert_eq!((nobody.status, nobody.json()["error"]["code"].as_str()), (403, Some("admin_disabled")));
}
