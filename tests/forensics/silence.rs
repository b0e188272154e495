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

/// With its log probabilities, more bytes than the sockets hold.
const LONG: usize = 2500;

fn body(stream: bool, max_tokens: usize) -> Value {
    json!({"messages": [{"role": "user", "content": "Say: the quick brown fox jumps over the lazy dog"}],
        "temperature": 0, "max_tokens": max_tokens, "ignore_eos": true, "stream": stream,
        "logprobs": true, "top_logprobs": 20,
        "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null }})
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
    let expected = server.chat(&body(false, LONG));
    let text = expected["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(expected["usage"]["completion_tokens"], LONG);
    let mut slow = send(&server, &body(true, LONG));
    // Others are served meanwhile, and the slow reader's row ends although nobody reads.
    for _ in 0..3 {
        assert_eq!(server.chat(&body(false, 20))["usage"]["completion_tokens"], 20);
    }
    while health(&server)["decoding"] != 0 || health(&server)["prefilling"] != 0 {
        std::thread::yield_now();
    }
    let mut found = Vec::new();
    slow.read_to_end(&mut found).unwrap();
    let found = String::from_utf8_lossy(&found);
    let chunks: Vec<Value> = found
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    let streamed: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(streamed == text, "{} of {} bytes arrived", streamed.len(), text.len());
    assert!(found.contains("\"finish_reason\":\"length\"") && found.contains("data: [DONE]"));
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], LONG);
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-batch", "3"]);
    for round in 0..24 {
        let mut connection = send(&server, &body(round % 2 == 0, 3000));
        if round % 3 > 0 {
            // Somewhere within the answer, when it is streamed.
            let mut some = vec![0; if round % 2 == 0 { 300 * (round % 5) } else { 0 }];
            connection.read_exact(&mut some).unwrap();
        }
        drop(connection);
    }
    assert_eq!(server.chat(&body(false, 20))["usage"]["completion_tokens"], 20);
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
