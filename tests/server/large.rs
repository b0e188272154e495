//! Requests that are far too large cost little more than their bodies, and nobody else waits for them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::Server;

/// Bytes of text in a large body.
const LARGE: usize = 6_000_000;
/// What the whole process may have held at any time.
const MOST_MEMORY_MB: u64 = 600;
/// Processor time of refusing a body, in times of that of parsing it here. Tokenizing it takes more than 1,000 times.
const MOST_WORK: f64 = 60.0;

/// Every way to send a long prompt, each refused by its length.
fn large() -> Vec<(&'static str, &'static str, Value)> {
    let prose = "The clerk wrote it down twice, and at 12:30 he sent the letter on to Saltmarsh. ";
    let text = prose.repeat(LARGE / prose.len());
    let messages = json!([{"role": "user", "content": text}]);
    let many = |count| (0..count).map(|_| json!({"role": "user", "content": "Hi."})).collect::<Vec<_>>();
    vec![
        ("POST", "/v1/chat/completions", json!({"messages": messages})),
        ("POST", "/v1/messages", json!({"messages": messages, "max_tokens": 5})),
        ("POST", "/v1/messages/count_tokens", json!({"messages": messages})),
        ("POST", "/v1/responses", json!({"input": text})),
        ("POST", "/v1/completions", json!({"prompt": text})),
        ("POST", "/v1/completions", json!({"prompt": vec![7; LARGE / 2]})),
        ("POST", "/v1/cache/probe", json!({"messages": messages})),
        ("POST", "/v1/cache/probe", json!({"prompt": text})),
        ("PUT", "/v1/contexts/long", json!({"messages": messages})),
        ("POST", "/v1/agents/oai_known/generate", json!({"prompt": text})),
        ("POST", "/v1/chat/completions", json!({"messages": many(LARGE / 40)})),
        ("POST", "/v1/chat/completions", json!({"messages": many(70_000)})),
        (
            "POST",
            "/v1/chat/completions",
            json!({"messages": messages, "metadata": vec![json!({"": 0}); LARGE / 8]}),
        ),
        (
            "POST",
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi."}], "stop": text}),
        ),
        (
            "POST",
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi."}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [text]}}}}),
        ),
    ]
}

/// A server that has had one turn of the session "known".
fn server(dir: &Path) -> Server {
    let server = Server::start(dir, &[]);
    let known =
        json!({"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2, "session_id": "known"});
    assert_eq!(send(&server, "POST", "/v1/chat/completions", known.to_string().as_bytes()).0, 200);
    server
}

fn send(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let agent =
        ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let url = format!("{}{path}", server.url);
    let request = if method == "PUT" { agent.put(url) } else { agent.post(url) };
    let mut response = request.header("content-type", "application/json").send(body).unwrap();
    let body = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
    (response.status().as_u16(), body)
}

/// Until the first text of a short answer.
fn first_token(server: &Server, nth: usize) {
    let body = json!({"messages": [{"role": "user", "content": format!("Question {nth}: who are you?")}],
        "stream": true, "max_tokens": 2, "ignore_eos": true, "temperature": 0});
    let request =
        ureq::post(format!("{}/v1/chat/completions", server.url)).header("content-type", "application/json");
    let response = request.send(body.to_string()).unwrap();
    let lines = BufReader::new(response.into_body().into_reader()).lines();
    let mut told = lines.map_while(Result::ok).filter(|line| {
        let chunk: Option<Value> =
            line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
        chunk.is_some_and(|chunk| {
            chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
        })
    });
    told.next().expect("a token");
}

/// Seconds of processor time that a process has used: `utime` and `stime` of its `stat`, in hundredths.
fn processor_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn four_large_bodies_at_once_cost_little_and_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let bodies: Vec<_> =
        large().into_iter().map(|(method, path, body)| (method, path, body.to_string())).collect();
    let at_large = AtomicUsize::new(4);
    let answered = std::thread::scope(|scope| {
        for first in 0..4 {
            let (server, bodies, at_large) = (&server, &bodies, &at_large);
            scope.spawn(move || {
                for nth in 0..bodies.len() {
                    let (method, path, body) = &bodies[(first * 3 + nth) % bodies.len()];
                    let (status, reply) = send(server, method, path, body.as_bytes());
                    assert_eq!(status, 400, "{path}: {reply}");
                }
                at_large.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut answered = 0;
        while at_large.load(Ordering::SeqCst) > 0 {
            first_token(&server, answered);
            answered += 1;
        }
        answered
    });
    assert!(answered >= 2 * bodies.len(), "{answered} small requests beside {} large ones", 4 * bodies.len());
    let memory = server.most_memory_mb();
    assert!(memory < MOST_MEMORY_MB, "{memory} MB");
}

#[test]
fn refusing_a_body_takes_a_small_multiple_of_parsing_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    for (method, path, body) in large() {
        let body = body.to_string();
        let before = processor_seconds(&server.id().to_string());
        for _ in 0..5 {
            assert_eq!(send(&server, method, path, body.as_bytes()).0, 400, "{path}");
        }
        let refusing = processor_seconds(&server.id().to_string()) - before;
        let before = processor_seconds("thread-self");
        for _ in 0..5 {
            serde_json::from_str::<Value>(&body).unwrap();
        }
        // The clock ticks in hundredths.
        let parsing = (processor_seconds("thread-self") - before).max(0.01);
        println!("{path}: {refusing:.2} s of processor time, {parsing:.2} s to parse");
        assert!(refusing < MOST_WORK * parsing, "{path}: {refusing:.2} s, {parsing:.2} s to parse");
    }
}
