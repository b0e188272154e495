//! Models that think before they answer, and models that call tools in another syntax, over every dialect.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{called, chat, post};
use super::model::{GEMMA, LLAMA, THINKING};
use super::server::{Server, Setup};

const SCRIPT: &str = "<think>\nIs 2 < 3?\n\nYes.\n</think>\n\nIt is.";
const THOUGHT: &str = "Is 2 < 3?\n\nYes.";

fn says(text: &str) -> String {
    format!("<script>{text}<go>")
}

fn thinking() -> Server {
    Setup { template: Some(THINKING), ..Setup::default() }.echo()
}

/// Thought and answer, and the same streamed.
fn chats(address: SocketAddr, script: &str, more: Value) -> (Value, Value) {
    let whole = chat(address, &says(script), more.clone()).json()["choices"][0]["message"].clone();
    let mut more = more;
    more["stream"] = true.into();
    let (mut thought, mut said) = (String::new(), String::new());
    for chunk in chat(address, &says(script), more).chunks() {
        let delta = &chunk["choices"][0]["delta"];
        // Thoughts come first.
        assert!(delta["reasoning_content"].is_null() || said.is_empty());
        thought.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        said.push_str(delta["content"].as_str().unwrap_or_default());
    }
    assert_eq!(whole["reasoning_content"].as_str().unwrap_or_default(), thought);
    assert_eq!(whole["content"].as_str().unwrap_or_default(), said);
    (whole["reasoning_content"].clone(), whole["content"].clone())
}

#[test]
fn chat_tells_thoughts_apart_from_the_answer() {
    let server = thinking();
    assert_eq!(chats(server.address, SCRIPT, json!({})), (json!(THOUGHT), json!("It is.")));
    assert_eq!(chats(server.address, "It is.", json!({})), (Value::Null, json!("It is.")));
    // The engine takes what the prompt begins of an answer for part of its script.
    let open = json!({"chat_template_kwargs": {"open": true}});
    assert_eq!(chats(server.address, "<think>Hm.\n</think>\n\nYes.", open), (json!("Hm."), json!("Yes.")));
    let closed = json!({"chat_template_kwargs": {"enable_thinking": false}});
    assert_eq!(chats(server.address, "<think></think><think>", closed), (Value::Null, json!("<think>")));
    for closed in [
        json!({"reasoning_effort": "none"}),
        json!({"reasoning": {"effort": "none"}}),
        json!({"reasoning": {"enabled": false}}),
        json!({"thinking": {"type": "disabled"}}),
        json!({"enable_thinking": false}),
        json!({"think": false}),
        json!({"think": "none"}),
    ] {
        let told = chats(server.address, "<think></think><think>", closed.clone());
        assert_eq!(told, (Value::Null, json!("<think>")), "{closed}");
    }
    for wrong in
        [json!({"thinking": {"type": "often"}}), json!({"reasoning": {"max_tokens": 9}}), json!({"think": 3})]
    {
        let refused = chat(server.address, "x", wrong.clone());
        let param = wrong.as_object().unwrap().keys().next().unwrap();
        assert_eq!(
            (refused.status, refused.json()["error"]["param"].as_str()),
            (400, Some(param.as_str())),
            "{wrong}"
        );
    }
    let cut = json!({"max_tokens": 12});
    assert_eq!(chats(server.address, SCRIPT, cut), (json!("Is 2"), json!("")));
    let usage = chat(server.address, &says(SCRIPT), json!({})).json()["usage"].clone();
    // Everything but the line break, the answer and its stop token.
    let thought = "<think>\nIs 2 < 3?\n\nYes.\n</think>".len() - "<think".len();
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], thought);
    let logprobs = chat(server.address, &says(SCRIPT), json!({"logprobs": true})).json();
    let tokens = logprobs["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let told: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(told, "It is.");
}

#[test]
fn a_model_without_thoughts_keeps_the_marks_as_text() {
    let server = Setup::default().echo();
    assert_eq!(chats(server.address, SCRIPT, json!({})), (Value::Null, json!(SCRIPT)));
}

#[test]
fn what_is_enforced_holds_after_the_thought() {
    let server = Setup { template: Some(THINKING), ..Setup::default() }.sim();
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, 2]}}});
    for seed in 0..5 {
        let more = json!({"response_format": schema, "seed": seed, "max_tokens": 400,
            "chat_template_kwargs": {"open": true}, "logit_bias": {u32::from(b'<').to_string(): 40}});
        let choice = chat(server.address, "x", more).json()["choices"][0].clone();
        let content = choice["message"]["content"].as_str().unwrap();
        assert!(["1", "2"].contains(&content) || choice["finish_reason"] == "length", "{choice}");
    }
    let server = thinking();
    let more = json!({"response_format": schema});
    assert_eq!(chats(server.address, "<think>Hm.</think>\n1", more), (json!("Hm."), json!("1")));
}

#[test]
fn calls_come_after_the_thought_and_marks_within_it_are_none() {
    let server = thinking();
    let tools = json!([{"type": "function", "function": {"name": "pwd"}}]);
    let thought = "I could <tool_call> pwd.";
    let call = "<tool_call>\n{\"name\": \"pwd\"}\n</tool_call>";
    for (kwargs, begun) in [(json!({}), "<think>\n"), (json!({"open": true}), "<think>")] {
        for (said, calls) in [("Well.", 0), ("", 1), ("Well.", 1)] {
            let script = format!("{begun}{thought}\n</think>\n\n{said}{}", call.repeat(calls));
            let more = json!({"tools": tools, "chat_template_kwargs": kwargs});
            assert_eq!(
                chats(server.address, &script, more.clone()),
                (json!(thought), if said.is_empty() { Value::Null } else { json!(said) })
            );
            let choice = chat(server.address, &says(&script), more).json()["choices"][0].clone();
            assert_eq!(choice["message"]["tool_calls"].as_array().map_or(0, Vec::len), calls, "{choice}");
            assert_eq!(choice["finish_reason"], if calls > 0 { "tool_calls" } else { "stop" });
        }
    }
    // Cut off within the thought, there is neither text nor call.
    let cut = json!({"tools": tools, "max_tokens": 20});
    let choice =
        chat(server.address, &says(&format!("<think>{thought}</think>")), cut).json()["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["tool_calls"]),
        (&json!("length"), &Value::Null)
    );
    assert!(thought.starts_with(choice["message"]["reasoning_content"].as_str().unwrap()), "{choice}");
}

#[test]
fn messages_have_thinking_blocks() {
    let server = thinking();
    let body =
        json!({"messages": [{"role": "user", "content": says(SCRIPT)}], "max_tokens": 100, "temperature": 0});
    let whole = post(server.address, "/v1/messages", &body).json();
    assert_eq!(
        whole["content"],
        json!([{"type": "thinking", "thinking": THOUGHT, "signature": ""}, {"type": "text", "text": "It is."}])
    );
    let mut body = body;
    body["stream"] = true.into();
    let response = post(server.address, "/v1/messages", &body);
    let events: Vec<Value> = response
        .frames()
        .iter()
        .map(|frame| serde_json::from_str(frame.split_once("data: ").unwrap().1).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let starts: Vec<&Value> = events.iter().filter_map(|event| event.get("content_block")).collect();
    assert_eq!(
        starts,
        [&json!({"type": "thinking", "thinking": "", "signature": ""}), &json!({"type": "text", "text": ""})]
    );
    assert_eq!(kinds.iter().filter(|kind| **kind == "content_block_stop").count(), 2);
    let deltas = |kind: &str, field: &str| -> String {
        let of_kind = events.iter().filter(|event| event["delta"]["type"] == kind);
        of_kind.map(|event| event["delta"][field].as_str().unwrap()).collect()
    };
    assert_eq!(deltas("thinking_delta", "thinking"), THOUGHT);
    assert_eq!(deltas("text_delta", "text"), "It is.");
    body["thinking"] = json!({"type": "disabled"});
    body["stream"] = false.into();
    body["messages"][0]["content"] = says(&format!("<think></think>{SCRIPT}")).into();
    assert_eq!(post(server.address, "/v1/messages", &body).json()["content"][0]["text"], SCRIPT);
}

#[test]
fn responses_have_reasoning_items_that_can_be_sent_back() {
    let server = thinking();
    let body = json!({"input": [{"role": "user", "content": says(SCRIPT)}], "temperature": 0});
    let whole = post(server.address, "/v1/responses", &body).json();
    let output = whole["output"].as_array().unwrap();
    assert_eq!(
        (&output[0]["type"], &output[0]["content"], &output[0]["summary"]),
        (&json!("reasoning"), &json!([{"type": "reasoning_text", "text": THOUGHT}]), &json!([]))
    );
    assert_eq!(output[1]["content"][0]["text"], "It is.");
    assert!(whole["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 20);
    let mut stream = body.clone();
    stream["stream"] = true.into();
    let events: Vec<Value> = post(server.address, "/v1/responses", &stream)
        .frames()
        .iter()
        .map(|frame| serde_json::from_str(frame.split_once("data: ").unwrap().1).unwrap())
        .collect();
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    let of_item = |name: &str| {
        [
            "output_item.added",
            "content_part.added",
            &format!("{name}.delta"),
            &format!("{name}.done"),
            "content_part.done",
            "output_item.done",
        ]
        .map(|kind| format!("response.{kind}"))
    };
    assert_eq!(kinds[2..kinds.len() - 1], [of_item("reasoning_text"), of_item("output_text")].concat());
    // The thought goes back into the history, where the template decides whether it is shown.
    let tokens = |input: Value| {
        let asked = json!({"input": input, "max_output_tokens": 1});
        post(server.address, "/v1/responses", &asked).json()["usage"]["input_tokens"].as_u64().unwrap()
    };
    let sent = [body["input"].as_array().unwrap().as_slice(), output].concat();
    let without: Vec<Value> = sent.iter().filter(|item| item["type"] != "reasoning").cloned().collect();
    assert_eq!(
        tokens(json!(sent)) - tokens(json!(without)),
        ("<think>".len() + THOUGHT.len() + "</think>".len()) as u64
    );
}

#[test]
fn calls_without_marks_are_calls_of_the_declared_tools() {
    let server = Setup { template: Some(LLAMA), ..Setup::default() }.echo();
    let tools = json!([{"type": "function", "function": {"name": "ls", "parameters": {"type": "object", "properties": {"path": {"enum": ["/", "/tmp"]}}, "required": ["path"], "additionalProperties": false}}}]);
    let call = r#"{"name": "ls", "parameters": {"path": "/"}}"#;
    let ask = |script: &str, more: Value| {
        let mut body = json!({"tools": tools});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat(server.address, &says(script), body)
    };
    for script in [call.to_owned(), format!("<|python_tag|>{call}"), format!("```json\n[{call}]\n```")] {
        let choice = ask(&script, json!({})).json()["choices"][0].clone();
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null)
        );
        assert_eq!(
            choice["message"]["tool_calls"][0]["function"],
            json!({"name": "ls", "arguments": r#"{"path":"/"}"#})
        );
        let streamed = ask(&script, json!({"stream": true})).chunks();
        assert_eq!(called(&streamed), [choice["message"]["tool_calls"][0]["function"].clone()]);
    }
    for text in [r#"{"name": "rm", "parameters": {}}"#, "{ not a call", "Just text."] {
        let choice = ask(text, json!({})).json()["choices"][0].clone();
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("stop"), &json!(text)));
    }
    let forced = ask(
        "I will not.",
        json!({"tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 200}),
    )
    .json();
    let call = &forced["choices"][0]["message"]["tool_calls"][0]["function"];
    assert!(call["name"] == "ls" && call["arguments"].as_str().unwrap().contains("path"), "{forced}");
}

#[test]
fn gemmas_calls_are_read_enforced_and_steered_in_its_own_syntax() {
    let server = Setup { template: Some(GEMMA), ..Setup::default() }.echo();
    let parameters = json!({"type": "object", "properties": {"path": {"enum": ["/tmp", "/{a: \"b\"}"]}, "depth": {"type": "integer"}}, "required": ["path"]});
    let tools = json!([{"type": "function", "function": {"name": "ls", "parameters": parameters}}, {"type": "function", "function": {"name": "pwd"}}]);
    let ask = |script: &str, more: Value| {
        let mut body = json!({"tools": tools, "max_tokens": 300});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat(server.address, &says(script), body)
    };
    let call = |body: &str| format!("<start_function_call>call:{body}<end_function_call>");
    // The token that begins a tool's answer ends the model's.
    let script = format!(
        "Let me look.\n{}{}<start_function_response>x",
        call("ls{depth:2,path:<escape>/{a: \"b\"}<escape>}"),
        call("pwd{}")
    );
    let functions = [
        json!({"name": "ls", "arguments": r#"{"depth":2,"path":"/{a: \"b\"}"}"#}),
        json!({"name": "pwd", "arguments": "{}"}),
    ];
    let choice = ask(&script, json!({})).json()["choices"][0].clone();
    let message = &choice["message"];
    assert_eq!(
        (&choice["finish_reason"], &message["content"]),
        (&json!("tool_calls"), &json!("Let me look."))
    );
    let told = |calls: &Value| {
        calls.as_array().unwrap().iter().map(|call| call["function"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&message["tool_calls"]), functions);
    // Not for the grammar's sake: `min_tokens` sets it aside.
    let free = ask(&script, json!({"min_tokens": 1})).json()["choices"][0]["message"].clone();
    assert_eq!((&free["content"], told(&free["tool_calls"])), (&json!("Let me look."), functions.to_vec()));
    let streamed = ask(&script, json!({"stream": true})).chunks();
    let said = streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!((said.collect::<String>().as_str(), called(&streamed)), ("Let me look.", functions.to_vec()));
    // What begins as a call of nothing becomes one of a tool, with the keys and types of its schema.
    let wrong = ask(&call("list{dir:1}"), json!({})).json()["choices"][0]["message"].clone();
    assert!(wrong["content"].is_null() && told(&wrong["tool_calls"])[0]["name"] == "ls", "{wrong}");
    let arguments = told(&wrong["tool_calls"])[0]["arguments"].clone();
    assert!(
        serde_json::from_str::<Value>(arguments.as_str().unwrap()).unwrap()["path"].is_string(),
        "{wrong}"
    );
    // Other text stays free; without tools, so does everything.
    assert_eq!(ask("1 < 2 {a:1}", json!({})).json()["choices"][0]["message"]["content"], "1 < 2 {a:1}");
    let free = chat(server.address, &says(&call("f{}")), json!({})).json();
    assert_eq!(free["choices"][0]["message"]["content"], call("f{}"));
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "ls"}})] {
        let forced = ask("I will not.", json!({"tool_choice": choice, "parallel_tool_calls": false})).json();
        let forced = &forced["choices"][0];
        assert_eq!(forced["finish_reason"], "tool_calls", "{forced}");
        let named = &told(&forced["message"]["tool_calls"])[0]["name"];
        assert!(named == "ls" || choice == "required" && named == "pwd", "{forced}");
    }
    // A call goes back into the history as the model wrote it.
    let history = json!({"tools": tools, "messages": [
        {"role": "assistant", "content": "", "tool_calls": message["tool_calls"]},
        {"role": "user", "content": says("Yes.")}]});
    let mut again = history.clone();
    again["messages"][0] = json!({"role": "assistant", "content": format!("{}{}", call("ls{depth:2,path:<escape>/{a: \"b\"}<escape>}"), call("pwd{}"))});
    let tokens = |body: &Value| {
        post(server.address, "/v1/chat/completions", body).json()["usage"]["prompt_tokens"].clone()
    };
    assert_eq!(tokens(&history), tokens(&again));
}
