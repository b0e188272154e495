//! A server that is told to stop: everybody who waits for an answer hears how it ended.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::Server;

/// Endpoints, and the field that bounds an answer's length.
const ENDPOINTS: [(&str, &str); 4] = [
    ("/v1/chat/completions", "max_tokens"),
    ("/v1/messages", "max_tokens"),
    ("/v1/responses", "max_output_tokens"),
    ("/v1/completions", "max_tokens"),
];

/// Whole and streamed, on every endpoint.
fn kinds() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    ENDPOINTS.into_iter().flat_map(|(path, most)| [(path, most, false), (path, most, true)])
}

/// A request for an answer of exactly so many tokens.
fn body(path: &str, most: &str, tokens: u32, stream: bool) -> Value {
    let mut body = json!({"ignore_eos": true, "stream": stream, "temperature": 0});
    body[most] = tokens.into();
    match path {
        "/v1/responses" => body["input"] = "Hello".into(),
        "/v1/completions" => body["prompt"] = "Hello".into(),
        _ => body["messages"] = json!([{"role": "user", "content": "Hello"}]),
    }
    body
}

/// Status and body, which must come whole.
fn ask(url: &str, path: &str, body: &Value) -> (u16, String) {
    let agent =
        ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let response = agent.post(format!("{url}{path}")).header("content-type", "application/json");
    let mut response = response.send(body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string();
    (response.status().as_u16(), text.unwrap_or_else(|error| panic!("{path}: the answer was cut: {error}")))
}

/// The server's own words for its end, in the endpoint's dialect.
fn assert_told(path: &str, stream: bool, status: u16, text: &str) {
    let what = format!("{path}, stream {stream}: {status} {text}");
    let error = if stream {
        assert_eq!(status, 200, "{what}");
        assert!(!text.contains("[DONE]") && text.ends_with("\n\n"), "{what}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let (event, data) = last.rsplit_once("data: ").unwrap_or_else(|| panic!("{what}"));
        let expected = match path {
            "/v1/messages" => "event: error\n",
            "/v1/responses" => "event: response.failed\n",
            _ => "",
        };
        assert_eq!(event, expected, "{what}");
        let data: Value = serde_json::from_str(data).unwrap();
        if path == "/v1/responses" { data["response"].clone() } else { data }
    } else {
        assert_eq!(status, 503, "{what}");
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{what}"))
    };
    assert!(
        error["error"]["message"].as_str().is_some_and(|message| message.contains("shutting down")),
        "{what}"
    );
}

/// A server whose answers have so many seconds to finish.
fn start(dir: &std::path::Path, drain_s: u32) -> Server {
    let config = dir.join("prefixd.toml");
    std::fs::write(&config, format!("[server]\ndrain_s = {drain_s}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_prefixd"));
    // Also where this process ignores hang-ups (`nohup`).
    // SAFETY: between fork and exec, `signal` is one of the calls that are allowed.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let flags = ["--max-batch", "6", "--config", config.to_str().unwrap()];
    Server::start_as(command, &dir.join("cache"), &flags)
}

/// Every kind of request at once, more than there are rows; `signal` is called when all rows decode.
fn interrupted(
    server: &Server,
    tokens: u32,
    signal: impl FnOnce(),
) -> Vec<(&'static str, bool, u16, String)> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = kinds()
            .map(|(path, most, stream)| {
                let url = server.url.clone();
                scope.spawn(move || {
                    let (status, text) = ask(&url, path, &body(path, most, tokens, stream));
                    (path, stream, status, text)
                })
            })
            .collect();
        while server.get("/health")["queue"] != json!({"waiting": 2, "prefilling": 0, "decoding": 6}) {
            std::thread::yield_now();
        }
        signal();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn every_answer_that_cannot_finish_is_told_so_however_long_the_drain() {
    for drain_s in [0, 1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path(), drain_s);
        let mut began = Instant::now();
        let answers = interrupted(&server, 30_000, || {
            began = Instant::now();
            server.signal(Signal::TERM);
        });
        assert!(began.elapsed() >= Duration::from_secs(drain_s.into()), "{drain_s}: {:?}", began.elapsed());
        for (path, stream, status, text) in answers {
            assert_told(path, stream, status, &text);
        }
        server.ended();
    }
}

#[test]
fn a_second_signal_ends_a_long_drain_and_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 30);
    let mut drains_since = Instant::now();
    let answers = interrupted(&server, 30_000, || {
        drains_since = Instant::now();
        server.signal(Signal::TERM);
        // A request that comes before the drain has begun is no refusal: it waits for a row.
        while ureq::get(format!("{}/health/ready", server.url)).call().is_ok() {
            std::thread::yield_now();
        }
        let refused = ask(&server.url, "/v1/chat/completions", &body("", "max_tokens", 1, false));
        assert_told("/v1/chat/completions", false, refused.0, &refused.1);
        server.signal(Signal::INT);
    });
    for (path, stream, status, text) in answers {
        assert_told(path, stream, status, &text);
    }
    server.ended();
    let drained = drains_since.elapsed();
    assert!(drained < Duration::from_secs(30), "{drained:?}");
}

#[test]
fn answers_that_finish_in_time_are_whole_and_a_hang_up_stops_the_server_in_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 30);
    for (path, stream, status, text) in interrupted(&server, 600, || server.signal(Signal::HUP)) {
        assert_eq!(status, 200, "{path}, stream {stream}: {text}");
        let end = match (path, stream) {
            ("/v1/messages", true) => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ("/v1/responses", true) => "response.incomplete",
            (_, true) => "data: [DONE]\n\n",
            (_, false) => "}",
        };
        let ended = if end.ends_with('e') { text.contains(end) } else { text.ends_with(end) };
        assert!(ended, "{path}, stream {stream}: {text}");
    }
    server.ended();
}

#[test]
fn a_hang_up_that_was_ignored_at_the_start_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_prefixd")]);
    let server = Server::start_as(shell, dir.path(), &[]);
    server.signal(Signal::HUP);
    let (status, text) = ask(&server.url, "/v1/chat/completions", &body("", "max_tokens", 20, false));
    assert_eq!(status, 200, "{text}");
    server.stop();
}
