//! The main promise over HTTP on the real model: a prompt is computed once, whatever happens to the process.

use crate::support::{Server, cached_tokens, greedy, text};
use serde_json::{Value, json};

/// A handbook of about 4,000 tokens with a question about it.
fn conversation() -> Value {
    serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap()
}

fn first_turn() -> (Vec<Value>, String) {
    let conversation = conversation();
    let mut messages = conversation["messages"].as_array().unwrap().clone();
    messages.push(json!({"role": "user", "content": conversation["turns"][0]["user"]}));
    (messages, conversation["turns"][0]["expect"]["text"].as_str().unwrap().to_owned())
}

#[test]
fn a_prompt_is_still_warm_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (messages, expected) = first_turn();
    let body = greedy(&messages, 64);
    let server = Server::start(dir.path(), &[]);
    let cold = server.chat(&body);
    let warm = server.chat(&body);
    server.stop();
    let server = Server::start(dir.path(), &[]);
    let restored = server.chat(&body);
    let mut parts_seconds = 0.0;
    for part in ["lookup", "read", "verify", "import"] {
        let of =
            |what: &str| server.metric(&format!("prefixd_restore_part_seconds_{what}{{part=\"{part}\"}}"));
        assert!(of("count") as u64 == 1 && of("sum") > 0.0, "{part}");
        parts_seconds += of("sum");
    }
    let whole_seconds = server.metric("prefixd_restore_seconds_sum");
    assert!(parts_seconds <= whole_seconds + 1e-9, "{parts_seconds} of {whole_seconds} s");
    server.stop();
    let prompt_tokens = cold["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt_tokens > 3000, "{}", cold["usage"]);
    assert_eq!(cached_tokens(&cold), 0);
    assert!(cached_tokens(&warm) >= prompt_tokens - 1, "{}", warm["usage"]);
    assert!(cached_tokens(&restored) >= prompt_tokens - 1, "{}", restored["usage"]);
    assert_eq!([text(&cold), text(&warm), text(&restored)], [expected.as_str(); 3]);
}

#[test]
fn a_killed_server_serves_what_it_had_written_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (messages, expected) = first_turn();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(text(&server.chat(&greedy(&messages, 64))), expected);
    let written =
        |server: &Server| server.get("/v1/cache/stats")["disk"]["writes"]["written_blocks"].as_u64().unwrap();
    while written(&server) == 0 {
        std::thread::yield_now();
    }
    server.kill();
    let server = Server::start(dir.path(), &[]);
    let restored = server.chat(&greedy(&messages, 64));
    assert_eq!(text(&restored), expected);
    assert!(cached_tokens(&restored) >= 256, "{}", restored["usage"]);
}

#[test]
fn every_turn_finds_the_whole_blocks_of_the_turn_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let conversation = conversation();
    let mut messages = conversation["messages"].as_array().unwrap().clone();
    let mut known = 0;
    for turn in conversation["turns"].as_array().unwrap() {
        messages.push(json!({"role": "user", "content": turn["user"]}));
        let response = server.chat(&greedy(&messages, 64));
        assert!(cached_tokens(&response) >= known, "{} after {known}", response["usage"]);
        let usage = &response["usage"];
        // All but the answer's last token are in KV.
        known = (usage["total_tokens"].as_u64().unwrap() - 1) / 256 * 256;
        messages.push(response["choices"][0]["message"].clone());
    }
}

#[test]
fn without_a_cache_nothing_is_reused_and_the_answer_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (messages, expected) = first_turn();
    let server = Server::start(dir.path(), &["--no-cache"]);
    for _ in 0..2 {
        let response = server.chat(&greedy(&messages, 64));
        assert_eq!((text(&response), cached_tokens(&response)), (expected.as_str(), 0));
    }
}

#[test]
fn another_kv_setting_over_the_same_directory_reuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (messages, expected) = first_turn();
    for bits in ["k8v4", "16"] {
        let server = Server::start(dir.path(), &["--kv-bits", bits]);
        let response = server.chat(&greedy(&messages, 64));
        assert_eq!((text(&response), cached_tokens(&response)), (expected.as_str(), 0), "{bits}");
        server.stop();
    }
}
