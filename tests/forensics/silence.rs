//! Silence is not the end: a consumer took a pause of the producer for the end of the stream and cut answers short; a
//! reader that did not read held the whole batch up.
//!
//! Protections: a stream ends by `Finished` or `Failed` and by nothing else; its channel has room for every event, so
//! the batch never waits. Shown by giving the channel room for 16 events (`Stream::channel` in `scheduler/message.rs`):
//! the slow reader's answer loses its middle. That a producer may pause is shown in `tests/scheduler.rs`
//! (`a_producer_that_pauses_loses_nothing`).

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::Server;

/// Tokens of each of four choices: with their log probabilities, more bytes than the sockets hold.
const LONG: usize = 1800;
const CHOICES: usize = 4;

fn body(max_tokens: usize) -> Value {
    json!({"messages": [{"role": "user", "content": "Say: the quick brown fox jumps over the lazy dog"}],
        "temperature": 0, "max_tokens": max_tokens, "ignore_eos": true})
}

fn streamed(max_tokens: usize, more: &Value) -> Value {
    let mut body = body(max_tokens);
    body["stream"] = true.into();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Sends a request and leaves the answer unread.
fn send(server: &Server, body: &Value) -> TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body.as_bytes()).unwrap();
    connection
}

fn health(server: &Server) -> Value {
    server.get("/health")["queue"].clone()
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let expected = server.chat(&body(LONG));
    let text = expected["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(expected["usage"]["completion_tokens"], LONG);
    let more = json!({"n": CHOICES, "logprobs": true, "top_logprobs": 20, "stream_options": {"include_usage": true}});
    let mut slow = send(&server, &streamed(LONG, &more));
    // Others are served meanwhile, and the slow reader's rows end although nobody reads.
    for _ in 0..3 {
        assert_eq!(server.chat(&body(20))["usage"]["completion_tokens"], 20);
    }
    while health(&server)["decoding"] != 0 || health(&server)["prefilling"] != 0 {
        std::thread::yield_now();
    }
    let mut found = Vec::new();
    slow.read_to_end(&mut found).unwrap();
    assert!(found.len() > 8 << 20, "{} bytes may fit between the sockets", found.len());
    let found = String::from_utf8_lossy(&found);
    let data = found.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks: Vec<Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
    for choice in 0..CHOICES {
        let own = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == choice);
        let streamed: String =
            own.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert!(streamed == text, "choice {choice}: {} of {} bytes arrived", streamed.len(), text.len());
    }
    assert!(found.contains("data: [DONE]"));
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], LONG * CHOICES);
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-batch", "3"]);
    for round in 0..24 {
        let body = if round % 2 == 0 { streamed(3000, &json!({})) } else { body(3000) };
        let mut connection = send(&server, &body);
        if round % 3 > 0 {
            // Somewhere within the answer, when it is streamed.
            let mut some = vec![0; if round % 2 == 0 { 300 * (round % 5) } else { 0 }];
            connection.read_exact(&mut some).unwrap();
        }
        drop(connection);
    }
    assert_eq!(server.chat(&body(20))["usage"]["completion_tokens"], 20);
    let gone = |server: &Server| {
        let queue = health(server);
        ["waiting", "prefilling", "decoding"].iter().all(|state| queue[state] == 0)
    };
    while !gone(&server) {
        std::thread::yield_now();
    }
    while server.get("/v1/cache/stats")["pinned_blocks"] != 0 {
        std::thread::yield_now();
    }
}
