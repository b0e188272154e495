//! Contexts of the configuration are warm before anybody asks.

use std::time::{Duration, Instant};

use crate::support::{Server, cached_tokens, greedy, text};
use serde_json::{Value, json};

#[test]
fn a_configured_context_is_warm_at_the_first_request_that_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let demo: Value = serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap();
    let body = dir.path().join("handbook.json");
    std::fs::write(&body, json!({"messages": demo["messages"]}).to_string()).unwrap();
    let config = dir.path().join("prefixd.toml");
    std::fs::write(&config, format!("[cache]\ncontexts = [{:?}]\n", body.to_str().unwrap())).unwrap();
    let cache = dir.path().join("cache");
    let server = Server::start(&cache, &["--config", config.to_str().unwrap()]);
    let deadline = Instant::now() + Duration::from_mins(1);
    let context = loop {
        let list = server.get("/v1/contexts");
        if list["count"] == 1 {
            break list["contexts"][0].clone();
        }
        assert!(Instant::now() < deadline, "the context is not put");
        std::thread::yield_now();
    };
    assert_eq!((&context["name"], &context["pinned_blocks"]), (&json!("handbook"), &context["blocks"]));
    let turn = &demo["turns"][0];
    let mut request = greedy(&[json!({"role": "user", "content": turn["user"]})], 64);
    request["context"] = json!("handbook");
    let response = server.chat(&request);
    assert_eq!(text(&response), turn["expect"]["text"].as_str().unwrap());
    let tokens = context["tokens"].as_u64().unwrap();
    assert!(tokens > 3000 && cached_tokens(&response) + 16 >= tokens, "{}", response["usage"]);
    server.stop();
    std::fs::write(&body, "[]").unwrap();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_prefixd"))
        .args(["serve", "--port", "0", "--cache-dir"])
        .arg(&cache)
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("handbook.json"), "{told}");
}
