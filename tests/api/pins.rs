//! `cache_control`: what is marked stays under pressure for as long as it says, and never takes all of the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prefixd::api::{AdminKey, ApiKeys, ApiSettings};
use serde_json::{Value, json};

use super::client::{get, post, receive, send};
use super::server::{Server, Setup};

/// Bytes of a block of sixteen tokens on this engine.
const BLOCK_BYTES: u64 = 320;
const LONG: usize = 160;

/// The time of day of a server.
#[derive(Clone)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

/// A server with room for so many blocks, half of them for pins.
fn server(blocks: u64) -> (Server, Time) {
    server_for(blocks, ApiSettings::default())
}

fn server_for(blocks: u64, settings: ApiSettings) -> (Server, Time) {
    let time = Time(Arc::new(AtomicU64::new(1_700_000_000_000_000)));
    let reads = time.0.clone();
    let settings = ApiSettings { keepalive: None, workers: 2, ..settings };
    let mut setup = Setup { cache: true, resident_bytes: blocks * BLOCK_BYTES, settings, ..Setup::default() };
    setup.options.time_of_day = Arc::new(move || reads.load(Ordering::Relaxed));
    (setup.sim(), time)
}

/// Text of its own that is ten blocks long.
fn long(name: &str) -> String {
    format!("{name} ").repeat(LONG).chars().take(LONG).collect()
}

/// A request whose system text, tools or message may be marked. The tokens of it that were cached.
fn ask(server: &Server, body: Value) -> u64 {
    let mut whole =
        json!({"max_tokens": 1, "temperature": 0, "messages": [{"role": "user", "content": "Hm?"}]});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let response = post(server.address, "/v1/messages", &whole);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["usage"]["cache_read_input_tokens"].as_u64().unwrap()
}

fn system(name: &str, control: Option<Value>) -> Value {
    let mut block = json!({"type": "text", "text": long(name)});
    if let Some(control) = control {
        block["cache_control"] = control;
    }
    json!({"system": [block]})
}

fn for_time(ttl: &str) -> Value {
    json!({"type": "ephemeral", "ttl": ttl})
}

/// Many prompts that nobody asked for before.
fn pressure(server: &Server, name: &str) {
    for at in 0..12 {
        ask(server, system(&format!("{name}{at}"), None));
    }
}

#[test]
fn under_pressure_a_marked_prefix_stays_for_its_time_and_an_unmarked_one_leaves() {
    let (server, time) = server(60);
    ask(&server, system("short", Some(json!({"type": "ephemeral"}))));
    ask(&server, system("lasting", Some(for_time("1h"))));
    ask(&server, system("plain", None));
    pressure(&server, "a");
    assert!(ask(&server, system("short", None)) >= LONG as u64);
    assert!(ask(&server, system("lasting", None)) >= LONG as u64);
    assert_eq!(ask(&server, system("plain", None)) / 16, 0, "what is not marked makes room");
    time.pass(Duration::from_secs(301));
    pressure(&server, "b");
    assert!(ask(&server, system("short", None)) < LONG as u64 / 2, "five minutes are over");
    assert!(ask(&server, system("lasting", None)) >= LONG as u64, "an hour is not");
    time.pass(Duration::from_hours(1));
    pressure(&server, "c");
    assert!(ask(&server, system("lasting", None)) < LONG as u64 / 2);
    server.eventually("the end of all pins", || {}, |status| status.cache.retained_blocks == 0);
}

#[test]
fn a_request_that_marks_again_renews_the_time() {
    let (server, time) = server(60);
    for _ in 0..3 {
        ask(&server, system("renewed", Some(for_time("5m"))));
        time.pass(Duration::from_secs(200));
    }
    pressure(&server, "a");
    assert!(ask(&server, system("renewed", None)) >= LONG as u64);
}

#[test]
fn tools_and_messages_are_pinned_up_to_the_marked_block_and_no_further() {
    let (server, _) = server(200);
    let pinned = |body: Value| {
        let before = server.scheduler.status().cache.retained_blocks;
        ask(&server, body);
        let enough = |after: u64| after > before;
        server.eventually("a pin", || {}, |status| enough(status.cache.retained_blocks));
        server.scheduler.status().cache.retained_blocks - before
    };
    let marked = json!({"type": "ephemeral"});
    let tool =
        |name: &str| json!({"name": name, "description": long(name), "input_schema": {"type": "object"}});
    let mut first = tool("first");
    first["cache_control"] = marked.clone();
    let blocks = pinned(json!({"tools": [first, tool("second")]}));
    assert!(
        (10..=20).contains(&blocks),
        "the first tool is 10 blocks and some, both are 20 and more: {blocks}"
    );
    let turns = json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": long("one")}, {"type": "text", "text": long("two"), "cache_control": marked},
            {"type": "text", "text": long("three")}]},
        {"role": "assistant", "content": long("four")},
        {"role": "user", "content": "five"}]});
    let blocks = pinned(turns);
    assert!((20..=22).contains(&blocks), "{blocks}");
    let turns = json!({"cache_control": marked, "messages": [
        {"role": "user", "content": long("six")}, {"role": "assistant", "content": long("seven")}, {"role": "user", "content": long("eight")}]});
    let blocks = pinned(turns);
    assert!((30..=33).contains(&blocks), "{blocks}");
}

#[test]
fn nobody_can_pin_the_cache_full_and_what_is_refused_is_counted() {
    let (server, _) = server(40);
    for at in 0..6 {
        ask(&server, system(&format!("greedy{at}"), Some(for_time("1h"))));
    }
    server.eventually("refused pins", || {}, |status| status.cache.refused_pins >= 30);
    let cache = server.scheduler.status().cache;
    assert!(cache.retained_bytes <= 20 * BLOCK_BYTES && cache.retained_blocks >= 10, "{cache:?}");
    assert!(get(server.address, "/metrics").text().contains("prefixd_cache_refused_pins_total"));
    // Others still get room.
    ask(&server, system("other", None));
    assert!(ask(&server, system("other", None)) >= LONG as u64);
}

/// Keys `one` and `two`, and room for eighty blocks: forty for pins, a fair half of them twenty.
fn server_of_two() -> Server {
    let keys = ApiKeys::new(["one", "two"]);
    server_for(80, ApiSettings { keys, admin: AdminKey::new("root"), ..ApiSettings::default() }).0
}

fn call(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let response = receive(send(server.address, method, path, &[("x-api-key", key)], body.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Puts a context of ten blocks and some.
fn put(server: &Server, key: &str, salt: &str, name: &str) -> Value {
    let body = json!({"system": long(name), "cache_salt": salt});
    call(server, key, "PUT", &format!("/v1/contexts/{name}"), &body)
}

/// Pinned blocks of a key's contexts.
fn pinned(server: &Server, key: &str, salts: &[&str]) -> u64 {
    let of = |salt: &&str| {
        let list = call(server, key, "GET", &format!("/v1/contexts?cache_salt={salt}"), &Value::Null);
        let contexts = list["contexts"].as_array().unwrap().clone();
        contexts.iter().map(|context| context["pinned_blocks"].as_u64().unwrap()).sum::<u64>()
    };
    salts.iter().map(of).sum()
}

#[test]
fn a_key_that_took_the_whole_share_gives_way_to_another_s_fair_part_and_salts_do_not_help() {
    let server = server_of_two();
    for (at, salt) in ["", "a", "b", "", "a", "b"].into_iter().enumerate() {
        put(&server, "one", salt, &format!("greedy{at}"));
    }
    assert!(pinned(&server, "one", &["", "a", "b"]) >= 39, "alone it may have all of it");
    let first = put(&server, "two", "", "first");
    assert_eq!(first["pinned_blocks"], first["blocks"], "there is room for it at once: {first}");
    for at in 0..3 {
        put(&server, "two", "", &format!("more{at}"));
    }
    let two = pinned(&server, "two", &[""]);
    assert!((19..=23).contains(&two), "its fair half and no more: {two}");
    let one = pinned(&server, "one", &["", "a", "b"]);
    assert!((19..=23).contains(&one), "the other's half stays: {one}");
    let late = put(&server, "one", "another salt", "late");
    assert_eq!(late["pinned_blocks"], 0, "one key has one part: {late}");
    assert_eq!(pinned(&server, "two", &[""]), two);
    let cache = server.scheduler.status().cache;
    assert!(cache.retained_bytes <= 40 * BLOCK_BYTES && cache.yielded_pins >= 15, "{cache:?}");
    let scraped = receive(send(server.address, "GET", "/metrics", &[("x-admin-key", "root")], b""));
    let line = format!("\nprefixd_cache_yielded_pins_total {}\n", cache.yielded_pins);
    assert!(scraped.text().contains(&line), "{}", scraped.text());
    // What was pinned is there under the other key's pressure.
    for at in 0..20 {
        let messages = json!([{"role": "user", "content": long(&format!("pressure{at}"))}]);
        call(&server, "one", "POST", "/v1/chat/completions", &json!({"messages": messages, "max_tokens": 1}));
    }
    let chat = json!({"context": "first", "messages": [{"role": "user", "content": "Hm?"}], "max_tokens": 1});
    let usage = call(&server, "two", "POST", "/v1/chat/completions", &chat)["usage"].clone();
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() >= LONG as u64, "{usage}");
}

#[test]
fn keys_that_pin_at_the_same_time_end_with_their_fair_parts() {
    let server = server_of_two();
    for at in 0..4 {
        put(&server, "one", "", &format!("full{at}"));
    }
    std::thread::scope(|scope| {
        for (key, number) in [("one", 0), ("two", 0), ("one", 1), ("two", 1)] {
            let server = &server;
            scope.spawn(move || {
                for at in 0..4 {
                    put(server, key, "", &format!("of{number}at{at}"));
                }
            });
        }
    });
    for key in ["one", "two"] {
        let blocks = pinned(&server, key, &[""]);
        assert!((19..=24).contains(&blocks), "{key}: {blocks}");
    }
    let cache = server.scheduler.status().cache;
    assert!(cache.retained_bytes <= 40 * BLOCK_BYTES && cache.refused_pins > 0, "{cache:?}");
}

#[test]
fn five_marked_blocks_are_one_too_many() {
    let (server, _) = server(40);
    let block = |text: &str| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
    let body = json!({"max_tokens": 1, "system": [block("a"), block("b"), block("c"), block("d"), block("e")],
        "messages": [{"role": "user", "content": "x"}]});
    let response = post(server.address, "/v1/messages", &body);
    assert!(response.status == 400 && response.text().contains("at most 4"), "{}", response.text());
}
