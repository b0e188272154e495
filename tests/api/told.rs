//! What clients have when an answer is over, asked on every endpoint, whole and streamed.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{called, post};

const PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/messages", "/v1/responses"];

/// What a client has when the answer is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub text: String,
    pub thought: String,
    /// Names and arguments of the calls.
    pub calls: Vec<(String, String)>,
    /// In OpenAI's words.
    pub reason: &'static str,
}

/// A request in the words of `/v1/chat/completions`.
pub struct Asked {
    /// The user's one message.
    pub content: String,
    pub tools: Value,
    /// Further fields.
    pub more: Value,
}

impl Asked {
    fn body(&self, path: &str, stream: bool) -> Value {
        let messages = json!([{"role": "user", "content": self.content}]);
        let functions = self.tools.as_array().unwrap().iter().map(|tool| &tool["function"]);
        let mut body = match path {
            "/v1/chat/completions" => json!({"messages": messages, "tools": self.tools}),
            "/v1/messages" => {
                let tool = |f: &Value| json!({"name": f["name"], "input_schema": f["parameters"]});
                json!({"messages": messages, "tools": functions.map(tool).collect::<Vec<_>>(), "max_tokens": 2000})
            }
            _ => {
                let tool =
                    |f: &Value| json!({"type": "function", "name": f["name"], "parameters": f["parameters"]});
                json!({"input": messages, "tools": functions.map(tool).collect::<Vec<_>>()})
            }
        };
        (body["stream"], body["temperature"]) = (stream.into(), 0.into());
        let mut parallel = Value::Null;
        for (key, value) in self.more.as_object().unwrap() {
            let (key, value) = match (path, key.as_str()) {
                ("/v1/responses", "max_tokens") => ("max_output_tokens", value.clone()),
                ("/v1/messages", "stop") => ("stop_sequences", value.clone()),
                ("/v1/messages", "tool_choice") => (
                    "tool_choice",
                    match value.as_str() {
                        Some("required") => json!({"type": "any"}),
                        Some(word) => json!({"type": word}),
                        None => json!({"type": "tool", "name": value["function"]["name"]}),
                    },
                ),
                ("/v1/responses", "tool_choice") if value.is_object() => {
                    ("tool_choice", json!({"type": "function", "name": value["function"]["name"]}))
                }
                ("/v1/messages", "parallel_tool_calls") => {
                    parallel = value.clone();
                    continue;
                }
                (_, key) => (key, value.clone()),
            };
            body[key] = value;
        }
        if parallel == false {
            let mut choice = body["tool_choice"].take();
            if choice.is_null() {
                choice = json!({"type": "auto"});
            }
            choice["disable_parallel_tool_use"] = true.into();
            body["tool_choice"] = choice;
        }
        body
    }
}

fn reason(word: &Value, called: bool) -> &'static str {
    match word.as_str().unwrap() {
        "tool_calls" | "tool_use" => "tool_calls",
        "completed" if called => "tool_calls",
        "length" | "max_tokens" | "incomplete" => "length",
        "stop" | "stop_sequence" | "end_turn" | "completed" => "stop",
        other => panic!("{other}"),
    }
}

fn whole(path: &str, reply: &Value) -> Told {
    let mut told = Told::default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ended = if path == "/v1/chat/completions" {
        let choice = &reply["choices"][0];
        let message = &choice["message"];
        (told.text, told.thought) = (word(&message["content"]), word(&message["reasoning_content"]));
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        let call = |call: &Value| (word(&call["function"]["name"]), word(&call["function"]["arguments"]));
        told.calls = calls.iter().map(call).collect();
        &choice["finish_reason"]
    } else {
        let (items, ended) =
            if path == "/v1/messages" { ("content", "stop_reason") } else { ("output", "status") };
        for item in reply[items].as_array().unwrap() {
            match item["type"].as_str().unwrap() {
                "text" => told.text.push_str(&word(&item["text"])),
                "message" => told.text.push_str(&word(&item["content"][0]["text"])),
                "thinking" => told.thought.push_str(&word(&item["thinking"])),
                "reasoning" => told.thought.push_str(&word(&item["content"][0]["text"])),
                "tool_use" => told.calls.push((word(&item["name"]), item["input"].to_string())),
                "function_call" => {
                    assert_eq!(item["status"], "completed");
                    told.calls.push((word(&item["name"]), word(&item["arguments"])));
                }
                other => panic!("{other}"),
            }
        }
        &reply[ended]
    };
    told.reason = reason(ended, !told.calls.is_empty());
    told
}

/// The answer, and in how many pieces the arguments of its calls came.
fn streamed(path: &str, frames: &[String]) -> (Told, usize) {
    let data =
        |frame: &String| frame.split_once("data: ").and_then(|(_, data)| serde_json::from_str(data).ok());
    let chunks: Vec<Value> = frames.iter().filter_map(data).collect();
    let (mut told, mut ended, mut pieces) = (Told::default(), Value::Null, 0);
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    for chunk in &chunks {
        let (delta, kind) = (&chunk["delta"], chunk["type"].as_str().unwrap_or_default());
        match kind {
            "" => {
                let choice = &chunk["choices"][0];
                told.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
                told.thought.push_str(choice["delta"]["reasoning_content"].as_str().unwrap_or_default());
                pieces += choice["delta"]["tool_calls"].as_array().map_or(0, Vec::len);
                if !choice["finish_reason"].is_null() {
                    ended = choice["finish_reason"].clone();
                }
            }
            "content_block_start" if chunk["content_block"]["type"] == "tool_use" => {
                told.calls.push((word(&chunk["content_block"]["name"]), String::new()));
            }
            "response.output_item.added" if chunk["item"]["type"] == "function_call" => {
                told.calls.push((word(&chunk["item"]["name"]), String::new()));
            }
            "content_block_delta" => match delta["type"].as_str().unwrap() {
                "text_delta" => told.text.push_str(&word(&delta["text"])),
                "thinking_delta" => told.thought.push_str(&word(&delta["thinking"])),
                "input_json_delta" => {
                    pieces += 1;
                    told.calls.last_mut().unwrap().1.push_str(&word(&delta["partial_json"]));
                }
                "signature_delta" => {}
                other => panic!("{other}"),
            },
            "response.output_text.delta" => told.text.push_str(&word(delta)),
            "response.reasoning_text.delta" => told.thought.push_str(&word(delta)),
            "response.function_call_arguments.delta" => {
                pieces += 1;
                told.calls.last_mut().unwrap().1.push_str(&word(delta));
            }
            "response.completed" | "response.incomplete" => {
                let reply = whole(path, &chunk["response"]);
                assert!(told.calls.starts_with(&reply.calls) && reply.text == told.text, "{chunk}");
                ended = chunk["response"]["status"].clone();
            }
            "message_delta" => ended = delta["stop_reason"].clone(),
            _ => {}
        }
    }
    if path == "/v1/chat/completions" {
        let call = |call: &Value| (word(&call["name"]), word(&call["arguments"]));
        told.calls = called(&chunks).iter().map(call).collect();
    }
    told.reason = reason(&ended, !told.calls.is_empty());
    (told, pieces)
}

/// What every endpoint tells, whole and streamed: the same. A call that was cut off is in streams alone, and is taken from them. Also in
/// how few pieces the arguments came.
pub fn ask(address: SocketAddr, asked: &Asked) -> (Told, usize) {
    let (mut first, mut fewest) = (None, usize::MAX);
    for path in PATHS {
        let reply = post(address, path, &asked.body(path, false));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let whole = whole(path, &reply.json());
        let (mut streamed, pieces) = streamed(path, &post(address, path, &asked.body(path, true)).frames());
        fewest = fewest.min(pieces);
        if streamed.calls.len() > whole.calls.len() {
            let (_, cut) = streamed.calls.pop().unwrap();
            assert!(
                serde_json::from_str::<Value>(&cut).is_err() && streamed.reason == "length",
                "{path}: {cut}"
            );
        }
        let first = first.get_or_insert_with(|| whole.clone());
        for told in [&whole, &streamed] {
            assert_eq!(told, first, "{path}: {}: {}", asked.content, asked.more);
        }
    }
    (first.unwrap(), fewest)
}
