//! Agents: what sessions name, and what can be done with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prefixd::api::{AdminKey, ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{Response, get, post, receive, send};
use super::server::{Server, Setup};

const LONG: usize = 160;

fn long(name: &str) -> String {
    format!("{name} ").repeat(LONG).chars().take(LONG).collect()
}

fn call(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    receive(send(server.address, method, path, headers, body.as_bytes()))
}

fn body(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 2})
}

/// A turn on OpenAI's endpoint in a session.
fn turn(server: &Server, session: &str, content: &str) -> Value {
    let response = call(server, "POST", "/v1/chat/completions", &[("x-session-id", session)], &body(content));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn cached(body: &Value) -> u64 {
    body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn server() -> Server {
    Setup { cache: true, ..Setup::default() }.sim()
}

/// Waits for the step in which the last answer ended: what it left behind is there.
fn settle(server: &Server) {
    server.scheduler.agent_sums().unwrap();
}

fn names(list: &Value) -> Vec<&str> {
    list["agents"].as_array().unwrap().iter().map(|agent| agent["agent_id"].as_str().unwrap()).collect()
}

/// Files with blocks in a cache directory.
fn files(dir: &Path) -> usize {
    let shards = std::fs::read_dir(dir.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    let count = |shard: std::path::PathBuf| std::fs::read_dir(shard).unwrap().count();
    shards.filter(|path| path.is_dir()).map(count).sum()
}

#[test]
fn header_body_and_cache_key_name_an_agent_by_the_endpoint_they_come_in_at() {
    let server = server();
    turn(&server, "one", "hello");
    let mut with_field = body("hello");
    with_field["session_id"] = json!("two");
    call(&server, "POST", "/v1/messages", &[], &with_field);
    let mut with_key = body("hello");
    with_key["prompt_cache_key"] = json!("three");
    call(&server, "POST", "/v1/chat/completions", &[], &with_key);
    call(&server, "POST", "/v1/chat/completions", &[], &body("nobody"));
    let list = get(server.address, "/v1/agents/list").json();
    assert_eq!(names(&list), ["oai_one", "oai_three", "sess_two"]);
    assert_eq!(list["count"], 3);
    let refused = call(&server, "POST", "/v1/chat/completions", &[("x-session-id", "other")], &with_field);
    assert!(refused.status == 400 && refused.text().contains("session_id"), "{}", refused.text());
}

#[test]
fn an_agent_is_its_last_turn_and_the_sum_of_all() {
    let server = server();
    let first = turn(&server, "a", &long("agent"));
    let second = turn(&server, "a", &(long("agent") + " and more"));
    assert!(cached(&second) >= LONG as u64);
    let agent = get(server.address, "/v1/agents/oai_a").json();
    let usage = |body: &Value, field: &str| number(&body["usage"][field]);
    assert_eq!(number(&agent["turns"]), 2);
    assert_eq!(number(&agent["tokens"]), usage(&second, "total_tokens"));
    assert_eq!(
        number(&agent["prompt_tokens"]),
        usage(&first, "prompt_tokens") + usage(&second, "prompt_tokens")
    );
    assert_eq!(number(&agent["cached_tokens"]), cached(&second));
    assert_eq!(number(&agent["blocks"]), number(&agent["resident_blocks"]));
    assert!(number(&agent["blocks"]) >= 11 && agent["preferred"] == true, "{agent}");
    let stats = get(server.address, "/v1/agents/stats").json();
    assert_eq!((number(&stats["agents"]), number(&stats["turns"])), (1, 2));
    for path in ["/v1/agents/oai_b", "/v1/agents/a"] {
        let response = get(server.address, path);
        assert_eq!((response.status, &response.json()["error"]["code"]), (404, &json!("agent_not_found")));
    }
    for (method, path) in
        [("POST", "/v1/agents/list"), ("POST", "/v1/agents/a"), ("GET", "/v1/agents/a/generate")]
    {
        assert_eq!(call(&server, method, path, &[], &Value::Null).status, 405, "{method} {path}");
    }
}

#[test]
fn generate_goes_on_from_the_agents_last_token_and_computes_only_what_is_new() {
    let server = server();
    let first = turn(&server, "a", &long("agent"));
    let known = number(&first["usage"]["total_tokens"]);
    let generate = |prompt: Value, more: Value| {
        let mut body = json!({"prompt": prompt, "max_tokens": 3, "temperature": 0, "ignore_eos": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(server.address, "/v1/agents/oai_a/generate", &body)
    };
    let second = generate(json!("Go on."), json!({})).json();
    assert_eq!(number(&second["usage"]["prompt_tokens"]), known + 6);
    assert!(cached(&second) + 16 > known, "{second}");
    assert_eq!(second["object"], "text_completion");
    let third = generate(json!([65, 66]), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let usage = third.chunks().last().unwrap()["usage"].clone();
    assert_eq!(number(&usage["prompt_tokens"]), known + 6 + 3 + 2);
    assert_eq!(number(&get(server.address, "/v1/agents/oai_a").json()["turns"]), 3);
    // The same tokens without a session give the same answer.
    let fresh = Setup { cache: true, ..Setup::default() }.sim();
    let first_again = turn(&fresh, "b", &long("agent"));
    let again = post(
        fresh.address,
        "/v1/agents/oai_b/generate",
        &json!({"prompt": "Go on.", "max_tokens": 3, "temperature": 0, "ignore_eos": true}),
    );
    assert_eq!(first_again["choices"], first["choices"]);
    assert_eq!(again.json()["choices"], second["choices"]);
    for (body, field) in [
        (json!({}), "prompt"),
        (json!({"prompt": {"text": 1}}), "prompt"),
        (json!({"prompt": [1_000_000]}), "prompt"),
        (json!({"prompt": "x", "max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "x", "suffix": "y"}), "suffix"),
    ] {
        let response = post(server.address, "/v1/agents/oai_a/generate", &body);
        assert!(response.status == 400 && response.text().contains(field), "{body}: {}", response.text());
    }
    assert_eq!(post(server.address, "/v1/agents/oai_x/generate", &json!({"prompt": "x"})).status, 404);
}

#[test]
fn an_agent_that_is_deleted_leaves_no_file_and_nothing_that_others_share_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup { cache: true, dir: Some(dir.path().into()), ..Setup::default() }.sim();
    let shared = long("shared");
    let (a, b) = (format!("{shared}{}", long("a")), format!("{shared}{}", long("b")));
    turn(&server, "a", &a);
    turn(&server, "b", &b);
    let written = |server: &Server, wanted: u64| {
        server.eventually(
            "all blocks on disk",
            || {},
            |status| status.cache.disk.as_ref().is_some_and(|disk| disk.tier.blocks == wanted),
        );
    };
    settle(&server);
    let blocks = server.scheduler.status().cache.resident.blocks;
    written(&server, blocks);
    let deleted = call(&server, "DELETE", "/v1/agents/oai_a", &[], &Value::Null).json();
    assert_eq!(deleted["deleted"], true);
    let freed = number(&deleted["freed_blocks"]);
    assert!(freed >= 10 && number(&deleted["kept_blocks"]) >= 10, "{deleted}");
    assert!(number(&deleted["freed_disk_bytes"]) > 0 && number(&deleted["freed_ram_bytes"]) > 0, "{deleted}");
    written(&server, blocks - freed);
    assert_eq!(get(server.address, "/v1/agents/oai_a").status, 404);
    let before = number(&get(server.address, "/v1/agents/oai_b").json()["blocks"]);
    assert!(cached(&turn(&server, "b", &b)) + 17 > 2 * LONG as u64, "b's chain is whole: {before}");
    let found = cached(&turn(&server, "c", &a));
    assert!((LONG as u64..LONG as u64 + 48).contains(&found), "only what both share is left of a: {found}");
    for agent in ["b", "c"] {
        call(&server, "DELETE", &format!("/v1/agents/oai_{agent}"), &[], &Value::Null);
    }
    written(&server, 0);
    // A barrier behind the removals: they are done in order.
    server.scheduler.clear_cache().unwrap();
    server.eventually("an empty directory", || {}, |_| files(dir.path()) == 0);
}

#[test]
fn an_agent_that_is_evicted_leaves_ram_and_comes_back_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup { cache: true, dir: Some(dir.path().into()), ..Setup::default() }.sim();
    let first = turn(&server, "a", &long("agent"));
    let evicted = call(&server, "DELETE", "/v1/agents/oai_a?evict_only=true", &[], &Value::Null).json();
    assert!(number(&evicted["moved_blocks"]) >= 10 && evicted["kept_blocks"] == 0, "{evicted}");
    let agent = get(server.address, "/v1/agents/oai_a").json();
    assert_eq!((&agent["resident_blocks"], &agent["disk_blocks"]), (&json!(0), &agent["blocks"]));
    let response =
        call(&server, "POST", "/v1/chat/completions", &[("x-session-id", "a")], &body(&long("agent")));
    let from_disk: u64 = response.header("x-prefixd-disk-tokens").unwrap().parse().unwrap();
    assert!(from_disk >= LONG as u64, "{from_disk}");
    assert_eq!(response.header("x-prefixd-resident-tokens"), Some("0"));
    assert_eq!(response.json()["choices"], first["choices"]);
    assert_eq!(call(&server, "DELETE", "/v1/agents/oai_x?evict_only=true", &[], &Value::Null).status, 404);
    assert_eq!(call(&server, "DELETE", "/v1/agents/oai_a?evict_only=maybe", &[], &Value::Null).status, 400);
}

#[test]
fn without_a_disk_nothing_is_evicted_and_without_a_cache_agents_still_go_on() {
    let server = server();
    turn(&server, "a", &long("agent"));
    let refused = call(&server, "DELETE", "/v1/agents/oai_a?evict_only=true", &[], &Value::Null);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("no_disk_tier")));
    assert!(cached(&turn(&server, "a", &long("agent"))) >= LONG as u64);
    let bare = Setup::default().sim();
    let first = turn(&bare, "a", "hello");
    let second =
        post(bare.address, "/v1/agents/oai_a/generate", &json!({"prompt": "!", "max_tokens": 1})).json();
    assert_eq!(second["usage"]["prompt_tokens"], number(&first["usage"]["total_tokens"]) + 1);
    assert_eq!(call(&bare, "DELETE", "/v1/agents/oai_a", &[], &Value::Null).json()["freed_blocks"], 0);
}

#[test]
fn while_a_session_lives_its_blocks_outlast_others_and_then_they_do_not() {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000_000));
    let reads = time.clone();
    let mut setup = Setup { cache: true, resident_bytes: 60 * 320, ..Setup::default() };
    setup.options.time_of_day = Arc::new(move || reads.load(Ordering::Relaxed));
    setup.options.agent_ttl = Duration::from_hours(1);
    let server = setup.sim();
    let ask = |content: &str| post(server.address, "/v1/chat/completions", &body(content)).json();
    let pressure = |name: &str| (0..12).for_each(|at| drop(ask(&long(&format!("{name}{at}")))));
    turn(&server, "a", &long("living"));
    ask(&long("other"));
    pressure("x");
    assert!(cached(&ask(&long("other"))) < 48);
    assert!(cached(&turn(&server, "a", &long("living"))) >= LONG as u64);
    settle(&server);
    time.fetch_add(3_601_000_000, Ordering::Relaxed);
    assert_eq!(names(&get(server.address, "/v1/agents/list").json()), Vec::<&str>::new());
    pressure("y");
    assert!(cached(&ask(&long("living"))) < 48);
}

#[test]
fn no_tenant_sees_uses_or_deletes_anothers_agents() {
    let settings = ApiSettings {
        keys: ApiKeys::new(["one", "two"]),
        admin: AdminKey::new("root"),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { cache: true, settings, ..Setup::default() }.sim();
    let with = |key: &str, method: &str, path: &str, body: &Value| {
        call(&server, method, path, &[("x-api-key", key), ("x-session-id", "a")], body)
    };
    let secret = with("one", "POST", "/v1/chat/completions", &body(&long("secret")));
    assert_eq!(secret.status, 200);
    let mut salted = body(&long("salted"));
    salted["cache_salt"] = json!("s");
    with("one", "POST", "/v1/chat/completions", &salted);
    assert_eq!(names(&with("one", "GET", "/v1/agents/list", &Value::Null).json()), ["oai_a"]);
    assert_eq!(with("two", "GET", "/v1/agents/list", &Value::Null).json()["count"], 0);
    assert_eq!(with("two", "GET", "/v1/agents/stats", &Value::Null).json()["tokens"], 0);
    assert_eq!(with("two", "GET", "/v1/agents/list?cache_salt=s", &Value::Null).json()["count"], 0);
    let own = with("two", "GET", "/debug/memory", &Value::Null).json();
    assert_eq!(own, json!({"agents": {"agents": 0, "tokens": 0, "bytes": 0}}));
    for (method, path) in [
        ("GET", "/v1/agents/oai_a"),
        ("DELETE", "/v1/agents/oai_a"),
        ("DELETE", "/v1/agents/oai_a?evict_only=true"),
    ] {
        assert_eq!(with("two", method, path, &Value::Null).status, 404, "{method} {path}");
    }
    assert_eq!(with("two", "POST", "/v1/agents/oai_a/generate", &json!({"prompt": "x"})).status, 404);
    assert_eq!(with("two", "DELETE", "/admin/caches", &Value::Null).status, 401);
    let again = with("one", "POST", "/v1/chat/completions", &body(&long("secret")));
    assert!(cached(&again.json()) >= LONG as u64, "nothing of it was lost");
    let path = "/v1/agents/oai_a?cache_salt=s";
    assert_eq!(with("one", "GET", path, &Value::Null).json()["turns"], 1);
    for path in ["/v1/agents/list", "/v1/agents/stats", "/v1/agents/oai_a", "/debug/memory"] {
        assert_eq!(get(server.address, path).status, 401, "{path}");
    }
    let root = [("x-admin-key", "root")];
    let memory = call(&server, "GET", "/debug/memory", &root, &Value::Null).json();
    assert_eq!(memory["agents"]["agents"], 2);
    assert!(number(&memory["cache"]["resident_bytes"]) > 0, "{memory}");
    assert!(
        memory["device"]["budget_bytes"].is_null() && number(&memory["device"]["kept_bytes"]) == 0,
        "{memory}"
    );
    let cleared = call(&server, "DELETE", "/admin/caches", &root, &Value::Null);
    assert_eq!((cleared.status, cleared.json()), (200, json!({"cleared": true})));
    assert_eq!(with("one", "GET", "/v1/agents/list", &Value::Null).json()["count"], 0);
    assert_eq!(cached(&with("one", "POST", "/v1/chat/completions", &body(&long("secret"))).json()), 0);
}
