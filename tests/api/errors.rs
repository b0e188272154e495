//! Bad input of every kind gets an error object that names the field, and the server goes on.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use prefixd::api::ApiSettings;
use serde_json::{Map, Value, json};

use super::client::{Response, chat, get, post, receive, send};
use super::server::{Server, Setup};

fn error(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body = response.json();
    let error = &body["error"];
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "{field} is missing: {body}");
    }
    assert!(!error["message"].as_str().unwrap().is_empty());
    error.clone()
}

fn call(address: std::net::SocketAddr, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    receive(send(address, method, path, &[], body.as_bytes()))
}

fn still_serves(server: &Server) {
    assert_eq!(
        chat(server.address, "<script>ok<go>", json!({})).json()["choices"][0]["message"]["content"],
        "ok"
    );
}

#[test]
fn every_wrong_field_is_named() {
    let server = Setup::default().echo();
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let chat_fields = [
        ("messages", json!("hi"), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!(null), "messages"),
        ("messages", json!([{"role": "wizard", "content": "x"}]), "messages[0].role"),
        ("messages", json!([{"content": "x"}]), "messages[0].role"),
        ("messages", json!([1]), "messages[0]"),
        ("messages", user(json!(5)), "messages[0].content"),
        ("messages", user(json!([{"type": "image_url", "image_url": {"url": "x"}}])), "messages[0].content"),
        (
            "messages",
            json!([{"role": "assistant", "tool_calls": [{"function": {}}]}]),
            "messages[0].tool_calls[0].function.name",
        ),
        ("stop", json!([1, 2]), "stop"),
        ("stop", json!(7), "stop"),
        ("stop", json!(["a", ""]), "stop[1]"),
        ("stop", json!(vec!["x"; 65]), "stop"),
        ("max_tokens", json!(-2), "max_tokens"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!("many"), "max_tokens"),
        ("max_tokens", json!(1.5), "max_tokens"),
        ("max_completion_tokens", json!(-5), "max_completion_tokens"),
        ("min_tokens", json!(5000), "min_tokens"),
        ("min_tokens", json!(-1), "min_tokens"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!(1e30), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(0), "top_p"),
        ("top_p", json!(1.1), "top_p"),
        ("top_k", json!(-2), "top_k"),
        ("min_p", json!(2), "min_p"),
        ("seed", json!("x"), "seed"),
        ("presence_penalty", json!(3), "presence_penalty"),
        ("frequency_penalty", json!(-3), "frequency_penalty"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"1": 101}), "logit_bias.1"),
        ("logit_bias", json!([1]), "logit_bias"),
        ("n", json!(0), "n"),
        ("n", json!(1000), "n"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({"include_usage": 1}), "stream_options.include_usage"),
        ("logprobs", json!(3), "logprobs"),
        ("top_logprobs", json!(3), "top_logprobs"),
        ("tools", json!({"a": 1}), "tools"),
        ("tools", json!([{"type": "function"}]), "tools[0]"),
        ("tool_choice", json!("sometimes"), "tool_choice"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {"name": "f"}}), "tool_choice"),
        ("tool_choice", json!({"type": "function"}), "tool_choice"),
        ("parallel_tool_calls", json!("no"), "parallel_tool_calls"),
        ("response_format", json!({"type": "xml"}), "response_format.type"),
        ("response_format", json!({"type": "json_schema"}), "response_format.json_schema.schema"),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"schema": [1]}}),
            "response_format.json_schema.schema",
        ),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}),
            "response_format",
        ),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}),
            "response_format",
        ),
        ("functions", json!([{"name": "f"}]), "functions"),
        ("guided_json", json!({"type": "object"}), "guided_json"),
        ("chat_template_kwargs", json!([]), "chat_template_kwargs"),
        ("cache_salt", json!(1), "cache_salt"),
        ("model", json!(1), "model"),
    ];
    for (field, value, named) in chat_fields {
        let mut body = json!({"messages": user(json!("x"))});
        body[field] = value.clone();
        let response = post(server.address, "/v1/chat/completions", &body);
        assert_eq!(response.status, 400, "{field} = {value}: {}", response.text());
        assert_eq!(error(&response)["param"], named, "{field} = {value}: {}", response.text());
        body["stream"] = true.into();
        if field != "stream" {
            assert_eq!(
                post(server.address, "/v1/chat/completions", &body).status,
                400,
                "{field} = {value}, streamed"
            );
        }
    }
    still_serves(&server);
}

#[test]
fn every_wrong_field_of_completions_is_named() {
    let server = Setup::default().echo();
    let completion_fields = [
        ("prompt", json!(5), "prompt"),
        ("prompt", json!(null), "prompt"),
        ("prompt", json!([]), "prompt"),
        ("prompt", json!([[]]), "prompt"),
        ("prompt", json!([1, -1]), "prompt"),
        ("prompt", json!([1, 70000]), "prompt"),
        ("prompt", json!(vec!["x"; 129]), "prompt"),
        ("echo", json!(true), "echo"),
        ("response_format", json!({"type": "json_object"}), "response_format"),
        ("suffix", json!("end"), "suffix"),
        ("best_of", json!(3), "best_of"),
        ("logprobs", json!(21), "logprobs"),
    ];
    for (field, value, named) in completion_fields {
        let mut body = json!({"prompt": "x"});
        body[field] = value.clone();
        let response = post(server.address, "/v1/completions", &body);
        assert_eq!(response.status, 400, "{field} = {value}: {}", response.text());
        assert_eq!(error(&response)["param"], named, "{field} = {value}: {}", response.text());
    }
    still_serves(&server);
}

#[test]
fn neutral_values_of_unsupported_fields_are_fine() {
    let server = Setup::default().echo();
    let more = json!({"response_format": {"type": "text"}, "tool_choice": "none", "stop": null, "tools": null, "functions": [], "logit_bias": {},
        "max_tokens": null, "temperature": null, "n": null, "stream_options": null, "guided_json": null, "modalities": ["text"]});
    let response = chat(server.address, "<script>ok<go>", more);
    assert_eq!(response.status, 200, "{}", response.text());
    let body = json!({"prompt": "<script>ok<go>", "echo": false, "suffix": null, "best_of": 1, "max_tokens": 99_999_999_999_u64});
    assert_eq!(post(server.address, "/v1/completions", &body).status, 200);
}

#[test]
fn bodies_that_are_no_json_object_are_refused() {
    let server = Setup::default().echo();
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"not json",
        b"[1]",
        b"null",
        b"{\"messages\": [}",
        b"{\"a\": 1e999}",
        b"\xff\xfe{}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let response = receive(send(server.address, "POST", "/v1/chat/completions", &[], body));
        assert_eq!(response.status, 400);
        assert_eq!(error(&response)["type"], "invalid_request_error");
    }
    let utf8 = receive(send(server.address, "POST", "/v1/completions", &[], b"{\"prompt\": \"\xc3\x28\"}"));
    assert!(error(&utf8)["message"].as_str().unwrap().contains("not UTF-8: byte 12"));
    still_serves(&server);
}

#[test]
fn paths_methods_and_models_that_do_not_exist_are_named() {
    let server = Setup::default().echo();
    let path = get(server.address, "/v1/nothing");
    assert_eq!((path.status, error(&path)["code"].as_str()), (404, Some("unknown_url")));
    for (method, path, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/health", "GET, HEAD"),
    ] {
        let response = receive(send(server.address, method, path, &[], b""));
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {path}");
        error(&response);
    }
    let model = chat(server.address, "x", json!({"model": "gpt-5"}));
    assert_eq!(model.status, 404);
    assert_eq!(
        (error(&model)["code"].as_str(), error(&model)["param"].as_str()),
        (Some("model_not_found"), Some("model"))
    );
    let model = get(server.address, "/v1/models/gpt-5");
    assert_eq!((model.status, error(&model)["code"].as_str()), (404, Some("model_not_found")));
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_in_the_words_that_clients_look_for() {
    let server = Setup::default().echo();
    // Tokens with an `e` are long, so these must be counted; each `w` is a token.
    for (letter, length) in [("e", "5019"), ("w", "at least 50")] {
        let text = letter.repeat(5000);
        let response = chat(server.address, &text, json!({"stream": true}));
        assert_eq!(response.status, 400);
        let error = error(&response);
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("context_length_exceeded"), &json!("messages"))
        );
        let message = error["message"].as_str().unwrap();
        let expected = "This model's maximum context length is 4096 tokens";
        assert!(message.starts_with(expected) && message.contains(length), "{message}");
        let messages = json!([{"role": "user", "content": text}]);
        for (path, body) in [
            ("/v1/messages", json!({"messages": messages, "max_tokens": 5})),
            ("/v1/messages/count_tokens", json!({"messages": messages})),
        ] {
            let response = post(server.address, path, &body);
            if path.ends_with("count_tokens") && letter == "e" {
                assert_eq!(response.json(), json!({"input_tokens": 5019}), "what can be counted is");
                continue;
            }
            let reply = response.json();
            assert_eq!((response.status, &reply["error"]["type"]), (400, &json!("invalid_request_error")));
            let message = reply["error"]["message"].as_str().unwrap();
            assert!(
                message.starts_with("prompt is too long: ") && message.ends_with(" tokens > 4095 maximum"),
                "{message}"
            );
        }
        for (path, param, body) in [
            ("/v1/responses", "input", json!({"input": text})),
            ("/v1/completions", "prompt", json!({"prompt": text})),
            ("/v1/completions", "prompt", json!({"prompt": vec![7; 5000]})),
        ] {
            let response = post(server.address, path, &body);
            let error = response.json()["error"].clone();
            assert_eq!(
                (&error["code"], &error["param"]),
                (&json!("context_length_exceeded"), &json!(param)),
                "{path}"
            );
        }
    }
}

#[test]
fn what_would_cost_more_than_its_body_is_refused_by_name() {
    let server = Setup::default().echo();
    let biases: Map<String, Value> = (0..5000).map(|id| (id.to_string(), 1.into())).collect();
    let names: Vec<String> = (0..20_000).map(|nth| format!("value number {nth}")).collect();
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": names}}});
    for (param, value) in [
        ("stop", json!("x".repeat(5000))),
        ("stop", json!(vec!["x"; 65])),
        ("stop_token_ids", json!(vec![1; 65])),
        ("logit_bias", json!(biases)),
        ("response_format", format),
    ] {
        let response = chat(server.address, "x", json!({param: value}));
        assert_eq!((response.status, response.json()["error"]["param"].as_str()), (400, Some(param)));
    }
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_answer_arrives() {
    let settings =
        ApiSettings { body_limit_bytes: 100_000, keepalive: None, workers: 1, ..ApiSettings::default() };
    let server = Setup { settings, ..Setup::default() }.echo();
    for size in [100_001, 350_000] {
        let response = receive(send(server.address, "POST", "/v1/chat/completions", &[], &vec![b'x'; size]));
        assert_eq!(response.status, 413, "{size} bytes");
        assert_eq!(error(&response)["code"], "body_too_large");
    }
    still_serves(&server);
}

#[test]
fn a_body_that_stops_coming_is_cut_off() {
    let settings = ApiSettings {
        body_stall: Duration::from_millis(50),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { settings, ..Setup::default() }.echo();
    let mut connection = TcpStream::connect(server.address).unwrap();
    connection
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"prompt\"")
        .unwrap();
    let response = receive(connection);
    assert_eq!((response.status, error(&response)["code"].as_str()), (408, Some("body_timeout")));
    // Half a body, then the end: no answer is owed, and the server goes on.
    let mut connection = TcpStream::connect(server.address).unwrap();
    connection
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"prompt\"")
        .unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    still_serves(&server);
}

#[test]
fn paths_of_other_servers_name_the_right_address() {
    let server = Setup::default().echo();
    for (method, path, here) in [
        ("GET", "/api/tags", "/v1/models"),
        ("GET", "/api/version", "/health"),
        ("POST", "/api/show", "/v1/models"),
        ("POST", "/api/chat", "/v1/chat/completions"),
        ("POST", "/api/generate", "/v1/completions"),
        ("GET", "/props", "/health"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/v1/messages", "/v1/messages"),
        ("GET", "/models", "/v1/models"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("GET", "/api/v0/models", "/v1/models"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
    ] {
        let response = call(server.address, method, path, &json!({}));
        let message = error(&response)["message"].as_str().unwrap().to_owned();
        assert_eq!(response.status, 404, "{path}: {message}");
        assert!(message.contains(&format!("at {here},")), "{path}: {message}");
    }
    let nowhere = get(server.address, "/nowhere");
    assert_eq!(
        (nowhere.status, &error(&nowhere)["message"]),
        (404, &json!("there is nothing at GET /nowhere"))
    );
}

#[test]
fn a_preflight_is_told_what_a_path_takes() {
    let server = Setup::default().echo();
    for (path, allowed) in
        [("/v1/chat/completions", "POST"), ("/v1/models", "GET, HEAD"), ("/v1/messages", "POST")]
    {
        let response = call(server.address, "OPTIONS", path, &Value::Null);
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{path}");
    }
    assert_eq!(call(server.address, "OPTIONS", "/nowhere", &Value::Null).status, 404);
}
