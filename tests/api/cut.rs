//! Calls that are cut off, by a stop string or by the token limit: no API shows their markup, streamed or whole.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{called, post};
use super::server::Setup;

const LEAD: &str = "Let me see.";
const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/tmp\"}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/etc\"}}\n</tool_call>";
const PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/messages", "/v1/responses"];

/// What a client has when the answer is over.
#[derive(Debug, PartialEq)]
struct Told {
    text: String,
    /// Arguments of the calls, whole ones first.
    calls: Vec<String>,
    /// In OpenAI's words.
    reason: &'static str,
}

fn body(path: &str, stream: bool, more: &Value) -> Value {
    let parameters =
        json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    let function = json!({"name": "ls", "parameters": parameters});
    let messages = json!([{"role": "user", "content": format!("<script>{CALLS}<go>")}]);
    let mut body = match path {
        "/v1/chat/completions" => {
            json!({"messages": messages, "tools": [{"type": "function", "function": function}]})
        }
        "/v1/messages" => {
            json!({"messages": messages, "tools": [{"name": "ls", "input_schema": parameters}]})
        }
        _ => {
            json!({"input": messages, "tools": [{"type": "function", "name": "ls", "parameters": parameters}]})
        }
    };
    (body["stream"], body["temperature"]) = (stream.into(), 0.into());
    for (key, value) in more.as_object().unwrap() {
        let key = match (path, key.as_str()) {
            ("/v1/responses", "max_tokens") => "max_output_tokens",
            ("/v1/messages", "stop") => "stop_sequences",
            (_, key) => key,
        };
        body[key] = value.clone();
    }
    body
}

fn reason(word: &Value, called: bool) -> &'static str {
    match word.as_str().unwrap() {
        "tool_calls" | "tool_use" => "tool_calls",
        "completed" if called => "tool_calls",
        "length" | "max_tokens" | "incomplete" => "length",
        "stop" | "stop_sequence" | "completed" => "stop",
        other => panic!("{other}"),
    }
}

fn whole(path: &str, reply: &Value) -> Told {
    let (mut text, mut calls) = (String::new(), Vec::new());
    if path == "/v1/chat/completions" {
        let choice = &reply["choices"][0];
        text.push_str(choice["message"]["content"].as_str().unwrap_or_default());
        let told = choice["message"]["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        calls.extend(told.iter().map(|call| call["function"]["arguments"].as_str().unwrap().to_owned()));
        let reason = reason(&choice["finish_reason"], !calls.is_empty());
        return Told { text, calls, reason };
    }
    let (items, ended) =
        if path == "/v1/messages" { ("content", "stop_reason") } else { ("output", "status") };
    for item in reply[items].as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "text" => text.push_str(item["text"].as_str().unwrap()),
            "message" => text.push_str(item["content"][0]["text"].as_str().unwrap()),
            "tool_use" => calls.push(item["input"].to_string()),
            "function_call" => {
                assert_eq!(item["status"], "completed");
                calls.push(item["arguments"].as_str().unwrap().to_owned());
            }
            other => panic!("{other}"),
        }
    }
    let reason = reason(&reply[ended], !calls.is_empty());
    Told { text, calls, reason }
}

fn streamed(path: &str, frames: &[String]) -> Told {
    let data =
        |frame: &String| frame.split_once("data: ").and_then(|(_, data)| serde_json::from_str(data).ok());
    let chunks: Vec<Value> = frames.iter().filter_map(data).collect();
    let (mut text, mut calls, mut ended) = (String::new(), Vec::<String>::new(), Value::Null);
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        let (delta, kind) = (&chunk["delta"], chunk["type"].as_str().unwrap_or_default());
        match kind {
            "" => text.push_str(choice["delta"]["content"].as_str().unwrap_or_default()),
            "content_block_start" if chunk["content_block"]["type"] == "tool_use" => {
                calls.push(String::new());
            }
            "response.output_item.added" if chunk["item"]["type"] == "function_call" => {
                calls.push(String::new());
            }
            "content_block_delta" if delta["type"] == "text_delta" => {
                text.push_str(delta["text"].as_str().unwrap());
            }
            "content_block_delta" => {
                calls.last_mut().unwrap().push_str(delta["partial_json"].as_str().unwrap());
            }
            "response.output_text.delta" => text.push_str(delta.as_str().unwrap()),
            "response.function_call_arguments.delta" => {
                calls.last_mut().unwrap().push_str(delta.as_str().unwrap());
            }
            "response.completed" | "response.incomplete" => {
                let reply = whole(path, &chunk["response"]);
                assert!(calls.starts_with(&reply.calls) && reply.text == text, "{chunk}");
                ended = chunk["response"]["status"].clone();
            }
            "message_delta" => ended = delta["stop_reason"].clone(),
            _ => {}
        }
        if !choice["finish_reason"].is_null() {
            ended = choice["finish_reason"].clone();
        }
    }
    if path == "/v1/chat/completions" {
        calls = called(&chunks).iter().map(|call| call["arguments"].as_str().unwrap().to_owned()).collect();
    }
    let reason = reason(&ended, !calls.is_empty());
    Told { text, calls, reason }
}

/// What every API tells, whole and streamed; a call that was cut off is taken from the stream.
fn ask(address: SocketAddr, more: &Value) -> Told {
    let mut all = PATHS.iter().flat_map(|path| {
        let reply = post(address, path, &body(path, false, more));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let whole = whole(path, &reply.json());
        let mut streamed = streamed(path, &post(address, path, &body(path, true, more)).frames());
        if streamed.calls.len() > whole.calls.len() {
            let cut = streamed.calls.pop().unwrap();
            assert!(
                serde_json::from_str::<Value>(&cut).is_err() && streamed.reason == "length",
                "{path}: {cut}"
            );
        }
        [whole, streamed]
    });
    let first = all.next().unwrap();
    all.for_each(|told| assert_eq!(told, first, "{more}"));
    first
}

#[test]
fn a_call_that_the_token_limit_cuts_off_is_no_text() {
    let server = Setup::default().echo();
    let calls = ["{\"path\":\"/tmp\"}", "{\"path\":\"/etc\"}"];
    // With `min_tokens` no grammar holds the calls.
    for more in [json!({}), json!({"min_tokens": 1})] {
        let mut found = 0;
        for most in (1..140).step_by(3).chain([13, 14, 15, 16, 200]) {
            let mut more = more.clone();
            more["max_tokens"] = most.into();
            let told = ask(server.address, &more);
            assert!(LEAD.starts_with(told.text.trim_end()), "{most}: {told:?}");
            assert!(
                calls.starts_with(&told.calls.iter().map(String::as_str).collect::<Vec<_>>()),
                "{most}: {told:?}"
            );
            assert!(told.reason == "length" || told.calls.len() == 2, "{most}: {told:?}");
            found = found.max(told.calls.len());
        }
        assert_eq!(found, 2);
    }
}

#[test]
fn a_call_that_a_stop_string_cuts_off_is_no_text() {
    let server = Setup::default().echo();
    for more in [json!({}), json!({"min_tokens": 1})] {
        for (stop, calls) in [("name", 0), ("{", 0), ("/tmp", 0), ("}\n</tool", 1), ("l>\n<", 1), ("/etc", 1)]
        {
            let mut more = more.clone();
            more["stop"] = json!([stop]);
            let told = ask(server.address, &more);
            assert_eq!((told.text.as_str(), told.calls.len()), (LEAD, calls), "{stop}: {told:?}");
            // Behind the arguments of the first call nothing is cut off.
            let whole = ["}\n</tool", "l>\n<"].contains(&stop);
            assert_eq!(told.reason, if whole { "tool_calls" } else { "length" }, "{stop}: {told:?}");
        }
        // Before a call it stops the text.
        let mut more = more.clone();
        more["stop"] = json!(["see"]);
        assert_eq!(
            ask(server.address, &more),
            Told { text: "Let me ".into(), calls: Vec::new(), reason: "stop" }
        );
    }
}
