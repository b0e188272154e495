//! An HTTP client that shows every byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// A response, transfer coding taken away.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The frames of an event stream: each must be `data: ` and an empty line, or a comment.
    pub fn frames(&self) -> Vec<String> {
        assert_eq!(self.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let text = self.text().strip_suffix("\n\n").expect("the last frame is whole");
        text.split("\n\n").map(str::to_owned).collect()
    }

    /// The chunks of a stream that ended well: every frame is data, the last is `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let frames = self.frames();
        let (done, chunks) = frames.split_last().unwrap();
        assert_eq!(done, "data: [DONE]");
        let data = |frame: &String| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
        chunks.iter().map(data).collect()
    }
}

/// The functions that the deltas of one choice call, put together. Only the first delta of a call names it.
pub fn called(chunks: &[Value]) -> Vec<Value> {
    let mut calls: Vec<Value> = Vec::new();
    let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array());
    for delta in deltas.flatten() {
        let (index, function) = (delta["index"].as_u64().unwrap() as usize, &delta["function"]);
        if index == calls.len() {
            assert!(
                delta["id"].as_str().unwrap().starts_with("call_") && delta["type"] == "function",
                "{delta}"
            );
            calls.push(function.clone());
            continue;
        }
        assert!(index + 1 == calls.len() && delta["id"].is_null() && function["name"].is_null(), "{delta}");
        let arguments = &mut calls[index]["arguments"];
        *arguments =
            format!("{}{}", arguments.as_str().unwrap(), function["arguments"].as_str().unwrap()).into();
    }
    calls
}

/// Sends a request and leaves the answer to be read.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    connection.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    connection
}

/// Reads an answer to its end.
pub fn receive(mut connection: TcpStream) -> Response {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[split + 4..].to_vec();
    let mut response = Response { status, head, body };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = unchunk(&response.body);
    }
    response
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        let chunk = &bytes[line + 2..];
        if size == 0 {
            return out;
        }
        out.extend(&chunk[..size]);
        bytes = &chunk[size + 2..];
    }
}

pub fn get(address: SocketAddr, path: &str) -> Response {
    receive(send(address, "GET", path, &[], b""))
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    receive(send(address, "POST", path, &[], body.to_string().as_bytes()))
}

/// One message of a user, and further fields.
pub fn chat_body(content: &str, more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": content}], "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub fn chat(address: SocketAddr, content: &str, more: Value) -> Response {
    post(address, "/v1/chat/completions", &chat_body(content, more))
}

/// Leaves in the middle of an answer.
pub fn leave(connection: TcpStream) {
    connection.shutdown(Shutdown::Both).unwrap();
}
