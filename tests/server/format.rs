//! Enforced formats on the embedded model.

use serde_json::{Value, json};

use crate::support::{Server, greedy, text};

fn ask(server: &Server, more: &Value) -> Value {
    let messages = [json!({"role": "user", "content": "What is the door code of the south depot?"})];
    let mut body = greedy(&messages, 200);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.chat(&body)
}

#[test]
fn the_model_answers_in_the_format_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let code = json!({"type": "string", "pattern": "^[0-9]{4}$"});
    let schema = json!({"type": "object", "properties": {"place": {"enum": ["north depot", "south depot"]}, "code": code},
        "required": ["place", "code"], "additionalProperties": false});
    for seed in 0..8 {
        let format = json!({"type": "json_schema", "json_schema": {"name": "code", "schema": schema}});
        let response = ask(&server, &json!({"response_format": format, "temperature": 2, "seed": seed}));
        assert_eq!(response["choices"][0]["finish_reason"], "stop", "{response}");
        let answer: Value = serde_json::from_str(text(&response)).unwrap();
        let code = answer["code"].as_str().unwrap();
        assert!(code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_digit()), "{answer}");
        assert!(answer["place"].as_str().unwrap().ends_with(" depot"), "{answer}");
    }
    let tools = json!([{"type": "function", "function": {"name": "look_up", "description": "Finds a code.", "parameters": schema}}]);
    let response =
        ask(&server, &json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false}));
    assert_eq!(response["choices"][0]["finish_reason"], "tool_calls", "{response}");
    let call = &response["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(call["name"] == "look_up" && arguments["place"].is_string(), "{call}");
    let cut = ask(&server, &json!({"response_format": {"type": "json_object"}, "max_tokens": 2}));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}
