//! The client against what servers send, right and wrong, over real sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// What the client makes of one connection on which the server sends `bytes` and then, when `silent`, says nothing more.
fn ask(bytes: &[u8], silent: bool, timeout: Duration) -> Result<Answer, ClientError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let bytes = bytes.to_vec();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            let count = socket.read(&mut part).unwrap();
            assert!(count > 0, "the request ended early");
            request.extend_from_slice(&part[..count]);
        }
        socket.write_all(&bytes).unwrap();
        if silent {
            // Until the client gives up and closes.
            while matches!(socket.read(&mut part), Ok(count) if count > 0) {}
        }
        String::from_utf8(request).unwrap()
    });
    let client = Client::new(&url, ClientOptions { api_key: Some("k".into()), timeout });
    let found = client.chat(json!({"messages": []}));
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/chat/completions "), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer k"), "{request}");
    found
}

fn stream(body: &str) -> Result<Answer, ClientError> {
    ask(format!("{HEAD}{body}").as_bytes(), false, Duration::from_secs(20))
}

#[test]
fn an_answer_is_put_together_from_its_chunks() {
    let answer = stream(concat!(
        ": keepalive\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Gr\"}}]}\r\n\r\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\"\u{fc}\u{df}e\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
    ))
    .unwrap();
    assert_eq!((answer.text.as_str(), answer.finish_reason.as_str()), ("Gr\u{fc}\u{df}e", "stop"));
    let expected = Usage { prompt_tokens: Some(9), cached_tokens: None, completion_tokens: Some(2) };
    assert_eq!((answer.usage, answer.gaps.len()), (expected, 1));
    assert!(answer.ttft <= answer.total);
}

#[test]
fn a_stream_that_ends_without_done_is_no_answer() {
    let error = stream("data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n").unwrap_err();
    assert_eq!(error.kind(), "no [DONE]");
}

#[test]
fn an_answer_of_nothing_is_empty() {
    let answer =
        stream("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    assert!(answer.unwrap().is_empty());
}

#[test]
fn errors_are_told_apart() {
    let refused = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy";
    let error = ask(refused, false, Duration::from_secs(20)).unwrap_err();
    assert_eq!(
        (error.kind().as_str(), error.to_string().as_str()),
        ("status 429", "the server answered 429: busy")
    );
    assert_eq!(
        stream("data: {\"error\":{\"message\":\"no\"}}\n\n").unwrap_err().kind(),
        "error in the stream"
    );
    assert_eq!(stream("data: \u{1}{oops\n\n").unwrap_err().kind(), "malformed");
    assert_eq!(ask(b"HTTP/1.1 nonsense", false, Duration::from_secs(20)).unwrap_err().kind(), "transport");
}

#[test]
fn a_server_that_falls_silent_is_left_when_time_is_up() {
    let body = format!("{HEAD}data: {{\"choices\":[{{\"delta\":{{\"content\":\"and\"}}}}]}}\n\n");
    let error = ask(body.as_bytes(), true, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), "time-out", "{error}");
}

#[test]
fn nobody_at_the_address_is_a_failed_connection() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{address}"), ClientOptions::default());
    assert_eq!(client.chat(json!({})).unwrap_err().kind(), "connect");
}
