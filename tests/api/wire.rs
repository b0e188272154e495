//! Connections that do not speak HTTP as agreed: each gets a 4xx or is cut off, within a limit, and the server goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use prefixd::api::ApiSettings;
use serde_json::{Value, json};

use super::client::{chat, chat_body, get, post, receive, send};
use super::server::{Server, Setup};

const LIMIT: Duration = Duration::from_secs(30);

fn still_serves(server: &Server) {
    let answer = chat(server.address, "<script>ok<go>", json!({}));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "ok");
}

fn connect(server: &Server) -> TcpStream {
    let connection = TcpStream::connect(server.address).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.set_write_timeout(Some(LIMIT)).unwrap();
    connection
}

/// The status that comes before the server ends the connection; `None` when it just ends it.
fn end_of(mut connection: TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection did not end: {error}"),
    }
    let head = String::from_utf8_lossy(&bytes);
    (!head.is_empty()).then(|| head.split(' ').nth(1).unwrap().parse().unwrap())
}

fn is_refusal(status: Option<u16>) -> bool {
    status.is_none_or(|status| (400..500).contains(&status))
}

#[test]
fn what_is_not_http_is_cut_off() {
    let server = Setup::default().echo();
    let head =
        |more: &str| format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    let cases: [(&str, Vec<u8>); 12] = [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("words", b"hello\r\n\r\n".to_vec()),
        ("another version", b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("a long path", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes()),
        ("a long header", head(&format!("x: {}\r\n", "x".repeat(1 << 20))).into_bytes()),
        ("many headers", head(&"x: y\r\n".repeat(5000)).into_bytes()),
        ("a header that is not UTF-8", b"GET /health HTTP/1.1\r\n\xff: x\r\n\r\n".to_vec()),
        ("a negative length", head("content-length: -1\r\n").into_bytes()),
        ("a length beyond all", head("content-length: 99999999999999999999999\r\n").into_bytes()),
        ("two lengths", head("content-length: 2\r\ntransfer-encoding: chunked\r\n").into_bytes()),
        (
            "a chunk without a size",
            [head("transfer-encoding: chunked\r\n").as_bytes(), b"zz\r\n{}\r\n0\r\n\r\n"].concat(),
        ),
    ];
    for (name, bytes) in cases {
        let mut connection = connect(&server);
        // The server may have cut it off already.
        let sent = connection.write_all(&bytes).and_then(|()| connection.shutdown(Shutdown::Write));
        let status = if sent.is_ok() { end_of(connection) } else { None };
        assert!(is_refusal(status), "{name}: {status:?}");
        still_serves(&server);
    }
}

#[test]
fn a_head_that_does_not_end_is_cut_off() {
    let server = Setup::default().echo();
    let mut connection = connect(&server);
    connection.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n").unwrap();
    assert!(is_refusal(end_of(connection)));
    still_serves(&server);
}

#[test]
fn a_body_that_drips_is_cut_off() {
    let settings = ApiSettings {
        body_stall: Duration::from_millis(200),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { settings, ..Setup::default() }.echo();
    let mut connection = connect(&server);
    connection
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        .unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let started = Instant::now();
    let mut seen = [0; 12];
    // No pause is long, and the body would take hours.
    while connection.write_all(b" ").is_ok() && connection.read(&mut seen).is_err() {
        assert!(started.elapsed() < LIMIT, "one byte at a time keeps a connection for ever");
    }
    assert!(seen == *b"HTTP/1.1 408" || seen == [0; 12], "{:?}", String::from_utf8_lossy(&seen));
    still_serves(&server);
}

#[test]
fn a_body_in_chunks_is_limited_too() {
    let settings =
        ApiSettings { body_limit_bytes: 1000, keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { settings, ..Setup::default() }.echo();
    let mut connection = connect(&server);
    connection
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..3 {
        connection.write_all(format!("200\r\n{}\r\n", " ".repeat(0x200)).as_bytes()).unwrap();
    }
    connection.write_all(b"0\r\n\r\n").unwrap();
    let refused = receive(connection);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (413, Some("body_too_large")));
    still_serves(&server);
}

#[test]
fn who_closes_the_sending_side_has_left() {
    let server = Setup::default().sim();
    for stream in [false, true] {
        let body = chat_body("x", json!({"stream": stream, "max_tokens": 90_000, "ignore_eos": true}));
        let connection =
            send(server.address, "POST", "/v1/chat/completions", &[], body.to_string().as_bytes());
        connection.shutdown(Shutdown::Write).unwrap();
        server.eventually(
            "the cancel",
            || {},
            |status| status.waiting + status.prefilling + status.decoding == 0,
        );
        end_of(connection);
    }
    assert_eq!(get(server.address, "/health").status, 200);
}

#[test]
fn numbers_beyond_all_bounds_are_named() {
    let server = Setup::default().echo();
    for (field, value) in [
        ("n", "18446744073709551616"),
        ("n", "-9223372036854775808"),
        ("seed", "9223372036854775808"),
        ("seed", "1e300"),
        ("max_tokens", "1e30"),
        ("max_tokens", "-9223372036854775809"),
        ("min_tokens", "18446744073709551615"),
        ("top_k", "99999999999999999999"),
        ("temperature", "-1e300"),
        ("top_logprobs", "4294967296"),
        ("presence_penalty", "1e39"),
        ("stop_token_ids", "[4294967296]"),
        ("logit_bias", r#"{"4294967296": 1}"#),
        ("logit_bias", r#"{"1": 1e300}"#),
    ] {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "x"}}], "{field}": {value}}}"#);
        let refused = receive(send(server.address, "POST", "/v1/chat/completions", &[], body.as_bytes()));
        let error = &refused.json()["error"];
        assert_eq!(refused.status, 400, "{field} = {value}: {error}");
        assert!(
            error["param"].as_str().is_some_and(|param| param.starts_with(field)),
            "{field} = {value}: {error}"
        );
    }
    still_serves(&server);
}

#[test]
fn names_and_paths_of_any_bytes_are_unknown_not_fatal() {
    let server = Setup::default().echo();
    for path in [
        "/v1/models/%ff%fe",
        "/v1/models/%00",
        "/v1/models/..%2f..%2fetc",
        "/%ff",
        "/v1//models",
        "/v1/models/%",
    ] {
        let response = get(server.address, path);
        assert!((400..500).contains(&response.status), "{path}: {}", response.status);
        assert!(!response.json()["error"]["message"].as_str().unwrap().is_empty(), "{path}");
    }
    let name = "m".repeat(100_000);
    assert_eq!(post(server.address, "/v1/completions", &json!({"prompt": "x", "model": name})).status, 404);
    still_serves(&server);
}

#[test]
fn odd_but_legal_bodies_are_read() {
    let server = Setup::default().echo();
    let ask = |headers: &[(&str, &str)], body: &[u8]| {
        let response = receive(send(server.address, "POST", "/v1/chat/completions", headers, body));
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()["choices"][0].clone()
    };
    let text =
        |script: &str| format!(r#"{{"messages": [{{"role": "user", "content": "<script>{script}<go>"}}]}}"#);
    let said = |choice: &Value| choice["message"]["content"].clone();
    assert_eq!(said(&ask(&[], text("cut \\ud83d here").as_bytes())), "cut \u{fffd} here");
    assert_eq!(said(&ask(&[], format!("\u{feff}{}", text("marked")).as_bytes())), "marked");
    let gzip = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text("packed").as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let deflate = {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text("packed").as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    assert_eq!(said(&ask(&[("content-encoding", "gzip")], &gzip)), "packed");
    assert_eq!(said(&ask(&[("content-encoding", "deflate")], &deflate)), "packed");
    for most in ["1.0", "1"] {
        let body = text("abc").replace("\"messages\"", &format!("\"max_tokens\": {most}, \"messages\""));
        assert_eq!(said(&ask(&[], body.as_bytes())), "a");
    }
    let body = text("abc").replace("\"messages\"", "\"max_tokens\": -1, \"messages\"");
    let choice = ask(&[], body.as_bytes());
    assert_eq!((said(&choice), &choice["finish_reason"]), ("abc".into(), &json!("stop")));
}

#[test]
fn packed_bodies_are_limited_as_they_are_unpacked_and_wrong_ones_refused() {
    let settings =
        ApiSettings { body_limit_bytes: 100_000, keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { settings, ..Setup::default() }.echo();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![b' '; 50_000_000]).unwrap();
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 100_000);
    for (encoding, body, status) in [("gzip", bomb.as_slice(), 413), ("gzip", b"{}", 400), ("br", b"{}", 400)]
    {
        let headers = [("content-encoding", encoding)];
        let refused = receive(send(server.address, "POST", "/v1/chat/completions", &headers, body));
        assert_eq!(refused.status, status, "{encoding}: {}", refused.text());
        assert!(refused.json()["error"]["message"].is_string());
    }
    still_serves(&server);
}

#[test]
fn a_client_of_the_first_version_gets_its_stream_to_the_end_of_the_connection() {
    let server = Setup::default().echo();
    let body = chat_body("<script>ok<go>", json!({"stream": true})).to_string();
    let mut connection = connect(&server);
    let head = format!("POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes()).unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    assert!(
        !text.to_lowercase().contains("transfer-encoding") && text.ends_with("\n\ndata: [DONE]\n\n"),
        "{text}"
    );
}
