//! `/v1/responses`, and `/v1/embeddings`, which is refused.

use std::net::SocketAddr;

use prefixd::api::{ApiKeys, ApiSettings, StoreLimits};
use serde_json::{Value, json};

use super::client::{Response, chat, chat_body, get, post, receive, send};
use super::server::Setup;

const PATH: &str = "/v1/responses";

fn says(text: &str) -> String {
    format!("<script>{text}<go>")
}

fn respond(address: SocketAddr, input: Value, more: Value) -> Response {
    let mut body = json!({"input": input, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(address, PATH, &body)
}

/// A whole response that went well.
fn whole(address: SocketAddr, input: Value, more: Value) -> Value {
    let response = respond(address, input, more);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The events of a stream: each frame has the name that its data has, and numbers count from 0.
fn events(response: &Response) -> Vec<Value> {
    let event = |(at, frame): (usize, &String)| -> Value {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        assert_eq!(data["sequence_number"], at);
        data
    };
    response.frames().iter().enumerate().map(event).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

/// What differs from one answer to the next by nature.
fn without_names(mut response: Value) -> Value {
    let object = response.as_object_mut().unwrap();
    object.retain(|name, _| !["id", "created_at", "completed_at", "usage"].contains(&name.as_str()));
    for item in object["output"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().retain(|name, _| !["id", "call_id"].contains(&name.as_str()));
    }
    response
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

fn tools() -> Value {
    let path = json!({"type": "object", "properties": {"path": {"enum": ["/", "/tmp"]}}, "required": ["path"], "additionalProperties": false});
    json!([{"type": "function", "name": "ls", "description": "Lists.", "parameters": path, "strict": true}])
}

const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/\"}}\n</tool_call>\n<tool_call>{\"name\": \"pwd\"}</tool_call>";

#[test]
fn a_whole_response_has_everything_clients_read() {
    let server = Setup::default().echo();
    let more = json!({"model": "alias", "instructions": "Be brief.", "max_output_tokens": 50, "metadata": {"a": "b"}, "user": "u"});
    let response = whole(server.address, json!(says("Hello, world")), more);
    for (field, prefix) in [("/id", "resp_"), ("/output/0/id", "msg_")] {
        assert!(response.pointer(field).unwrap().as_str().unwrap().starts_with(prefix), "{field}");
    }
    let (created, completed) =
        (response["created_at"].as_u64().unwrap(), response["completed_at"].as_u64().unwrap());
    assert!(created > 1_700_000_000 && (created..created + 60).contains(&completed));
    // bos, the system message, the user's, the assistant's head; the answer and its stop token.
    let (input, output) = (1 + (1 + 7 + 9 + 1) + (1 + 5 + 1 + 12 + 1 + 1) + (1 + 10), 13);
    assert_eq!(
        response["usage"],
        json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output})
    );
    let part = json!({"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []});
    assert_eq!(
        without_names(response),
        json!({"object": "response", "status": "completed", "error": null, "incomplete_details": null,
            "instructions": "Be brief.", "max_output_tokens": 50, "max_tool_calls": null, "model": "alias",
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "service_tier": "default", "top_logprobs": 0,
            "safety_identifier": null,
            "output": [{"type": "message", "status": "completed", "role": "assistant", "content": [part]}],
            "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
            "store": true, "temperature": 0.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled", "user": "u", "prompt_cache_key": null, "metadata": {"a": "b"},
            "background": false})
    );
}

#[test]
fn a_stream_has_every_event_in_order_and_ends_with_the_whole_response() {
    let server = Setup::default().echo();
    for (script, more) in [
        ("Hi 🦀", json!({})),
        (CALLS, json!({"tools": tools()})),
        ("abcdefgh", json!({"max_output_tokens": 3})),
        ("", json!({})),
        ("aé", json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2})),
    ] {
        let expected = whole(server.address, json!(says(script)), more.clone());
        let mut more = more;
        more["stream"] = true.into();
        let events = events(&respond(server.address, json!(says(script)), more));
        assert_eq!(kinds(&events)[..2], ["created", "in_progress"]);
        assert_eq!(
            (&events[0]["response"]["status"], &events[0]["response"]["output"]),
            (&json!("in_progress"), &json!([]))
        );
        let last = events.last().unwrap();
        assert_eq!(last["type"], format!("response.{}", expected["status"].as_str().unwrap()));
        assert_eq!(without_names(last["response"].clone()), without_names(expected.clone()), "{script}");
        assert_eq!(last["response"]["usage"]["output_tokens"], expected["usage"]["output_tokens"]);
        // Every item is told from its beginning to its end, and put together it is the item of the whole.
        for (index, item) in last["response"]["output"].as_array().unwrap().iter().enumerate() {
            let of_item: Vec<&Value> = events.iter().filter(|event| event["output_index"] == index).collect();
            let (first, end) = (of_item[0], of_item.last().unwrap());
            assert_eq!(
                (&first["type"], &first["item"]["status"]),
                (&json!("response.output_item.added"), &json!("in_progress"))
            );
            assert_eq!((&end["type"], &end["item"]), (&json!("response.output_item.done"), item));
            assert!(of_item[1..of_item.len() - 1].iter().all(|event| event["item_id"] == item["id"]));
            let deltas: String = of_item.iter().filter_map(|event| event["delta"].as_str()).collect();
            let told = item["arguments"].as_str().or_else(|| item["content"][0]["text"].as_str()).unwrap();
            assert_eq!(deltas, told);
        }
    }
    let streamed = respond(server.address, json!(says(CALLS)), json!({"tools": tools(), "stream": true}));
    let mut order = kinds(&events(&streamed)).into_iter().map(str::to_owned).collect::<Vec<_>>();
    order.dedup();
    let call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ];
    let message = [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ];
    let expected = [&["created", "in_progress"][..], &message, &call, &call, &["completed"]].concat();
    assert_eq!(order, expected);
}

#[test]
fn calls_are_items_and_a_limit_makes_a_response_incomplete() {
    let server = Setup::default().echo();
    let response = whole(server.address, json!(says(CALLS)), json!({"tools": tools()}));
    let output = response["output"].as_array().unwrap();
    assert_eq!(output.len(), 3);
    assert_eq!(text(&response), "Let me see.");
    assert_eq!(
        (&output[1]["type"], &output[1]["name"], &output[1]["arguments"], &output[1]["status"]),
        (&json!("function_call"), &json!("ls"), &json!("{\"path\":\"/\"}"), &json!("completed"))
    );
    assert!(
        output[1]["call_id"].as_str().unwrap().starts_with("call_")
            && output[1]["call_id"] != output[2]["call_id"]
    );
    let cut = whole(server.address, json!(says("abcdef")), json!({"max_output_tokens": 3}));
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!((text(&cut), &cut["output"][0]["status"]), ("abc", &json!("incomplete")));
}

#[test]
fn formats_and_tool_choices_are_enforced() {
    let server = Setup::default().sim();
    let schema = json!({"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "n", "strict": true, "schema": schema});
    let response = whole(server.address, json!("x"), json!({"text": {"format": format}, "seed": 1}));
    let value: Value = serde_json::from_str(text(&response)).unwrap();
    assert!(value == json!({"n": 1}) || value == json!({"n": 2}), "{value}");
    for choice in [json!("required"), json!({"type": "function", "name": "ls"})] {
        let more = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": false, "seed": 1});
        let response = whole(server.address, json!("x"), more);
        let output = response["output"].as_array().unwrap();
        assert_eq!((output.len(), &output[0]["name"]), (1, &json!("ls")));
        assert_eq!((&response["tool_choice"], &response["parallel_tool_calls"]), (&choice, &json!(false)));
    }
}

/// Items of every kind, and the same as chat messages.
fn history() -> (Value, Value) {
    let items = json!([
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List "}, {"type": "input_text", "text": "it."}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "Yes.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ls", "arguments": "{\"path\": \"/\"}"},
        {"type": "function_call", "call_id": "c2", "name": "pwd", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "bin"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "/"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No more."}]},
        {"role": "user", "content": says("ok")}]);
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let messages = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "List it."},
        {"role": "assistant", "content": "Yes.", "tool_calls": [call("c1", "ls", json!({"path": "/"})), call("c2", "pwd", json!({}))]},
        {"role": "tool", "tool_call_id": "c1", "content": "bin"},
        {"role": "tool", "tool_call_id": "c2", "content": "/"},
        {"role": "assistant", "content": "No more."},
        {"role": "user", "content": says("ok")}]);
    (items, messages)
}

#[test]
fn items_make_the_prompt_that_messages_make() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let (items, messages) = history();
    let body = json!({"messages": messages, "max_tokens": 1});
    let chat = post(server.address, "/v1/chat/completions", &body).json()["usage"].clone();
    let usage = whole(server.address, items, json!({"max_output_tokens": 1}))["usage"].clone();
    let tokens = chat["prompt_tokens"].as_u64().unwrap();
    assert_eq!(usage["input_tokens"], tokens);
    // Not only as long: chat computed it, so every whole block of it is known.
    let cached = usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached < tokens && cached + 16 >= tokens, "{cached} of {tokens}");
    let tools = json!([{"type": "function", "function": {"name": "ls", "description": "Lists.", "parameters": {"type": "object"}}}]);
    let flat = json!([{"type": "function", "name": "ls", "description": "Lists.", "parameters": {"type": "object"}, "strict": null}]);
    let by_chat = super::client::chat(server.address, "x", json!({"tools": tools, "max_tokens": 1})).json();
    let response = whole(server.address, json!("x"), json!({"tools": flat, "max_output_tokens": 1}));
    assert_eq!(response["usage"]["input_tokens"], by_chat["usage"]["prompt_tokens"]);
}

#[test]
fn a_conversation_goes_on_from_a_stored_response_as_if_it_were_sent_again() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let turn = |input: Value, previous: &Value, stream: bool| {
        let more = json!({"previous_response_id": previous, "max_output_tokens": 20, "ignore_eos": true, "seed": 3, "stream": stream});
        let response = respond(server.address, input, more);
        if stream { events(&response).last().unwrap()["response"].clone() } else { response.json() }
    };
    let mut all = Vec::new();
    let mut previous = Value::Null;
    for (at, stream) in [false, true, false].into_iter().enumerate() {
        let input = json!([{"role": "user", "content": format!("turn {at} {}", "x".repeat(100))}]);
        let response = turn(input.clone(), &previous, stream);
        assert_eq!(response["previous_response_id"], previous);
        all.extend(input.as_array().unwrap().clone());
        let again = turn(json!(all), &Value::Null, false);
        assert_eq!(response["usage"]["input_tokens"], again["usage"]["input_tokens"], "turn {at}");
        assert_eq!(without_names(again)["output"], without_names(response.clone())["output"], "turn {at}");
        // Only what is new is computed.
        let (cached, asked) =
            (&response["usage"]["input_tokens_details"]["cached_tokens"], &response["usage"]["input_tokens"]);
        let new = asked.as_u64().unwrap() - cached.as_u64().unwrap();
        assert!(at == 0 || new < 160, "turn {at} computed {new} tokens");
        all.extend(response["output"].as_array().unwrap().clone());
        previous = response["id"].clone();
    }
    let instructed =
        json!({"previous_response_id": previous, "instructions": "Be brief.", "max_output_tokens": 1});
    let plain = json!({"previous_response_id": previous, "max_output_tokens": 1});
    let tokens =
        |more: Value| whole(server.address, json!("x"), more)["usage"]["input_tokens"].as_u64().unwrap();
    // Start, "system\n", the text, end.
    assert_eq!(tokens(instructed), tokens(plain) + 1 + 7 + 9 + 1);
}

#[test]
fn a_function_call_and_its_result_make_a_round_trip() {
    let server = Setup::default().echo();
    let asked = json!([{"role": "user", "content": says(CALLS)}]);
    let first = whole(server.address, asked.clone(), json!({"tools": tools()}));
    let output = first["output"].as_array().unwrap().clone();
    let results = json!([
        {"type": "function_call_output", "call_id": output[1]["call_id"], "output": "bin"},
        {"type": "function_call_output", "call_id": output[2]["call_id"], "output": "/"},
        {"role": "user", "content": says("done")}]);
    let stored = whole(
        server.address,
        results.clone(),
        json!({"tools": tools(), "previous_response_id": first["id"]}),
    );
    assert_eq!(text(&stored), "done");
    let sent: Vec<Value> = [asked.as_array().unwrap(), &output, results.as_array().unwrap()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let again = whole(server.address, json!(sent), json!({"tools": tools(), "store": false}));
    assert_eq!(again["usage"], stored["usage"]);
}

#[test]
fn stored_responses_can_be_asked_for_until_they_are_deleted() {
    let server = Setup::default().echo();
    let path = |response: &Value| format!("{PATH}/{}", response["id"].as_str().unwrap());
    let first = whole(server.address, json!(says("one")), json!({}));
    assert_eq!(get(server.address, &path(&first)).json(), first);
    let as_stream = get(server.address, &format!("{}?stream=true", path(&first)));
    assert_eq!((as_stream.status, as_stream.json()["error"]["param"].as_str()), (400, Some("stream")));
    let streamed = events(&respond(
        server.address,
        json!(says("two")),
        json!({"stream": true, "previous_response_id": first["id"]}),
    ));
    let second = streamed.last().unwrap()["response"].clone();
    assert_eq!(get(server.address, &path(&second)).json(), second);
    let delete = || receive(send(server.address, "DELETE", &path(&first), &[], b""));
    assert_eq!(delete().json(), json!({"id": first["id"], "object": "response", "deleted": true}));
    for gone in [delete(), get(server.address, &path(&first))] {
        assert_eq!((gone.status, gone.json()["error"]["code"].as_str()), (404, Some("response_not_found")));
    }
    let from_deleted = respond(server.address, json!("x"), json!({"previous_response_id": first["id"]}));
    assert_eq!(
        (from_deleted.status, from_deleted.json()["error"]["param"].as_str()),
        (400, Some("previous_response_id"))
    );
    // What went on from it still can be gone on from.
    let third = whole(server.address, json!(says("three")), json!({"previous_response_id": second["id"]}));
    assert!(third["usage"]["input_tokens"].as_u64() > second["usage"]["input_tokens"].as_u64());
    let unstored = whole(server.address, json!(says("x")), json!({"store": false}));
    assert_eq!(
        (unstored["store"].clone(), get(server.address, &path(&unstored)).status),
        (json!(false), 404)
    );
    let settings = ApiSettings {
        responses: StoreLimits { budget_bytes: 0, ..StoreLimits::default() },
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { settings, ..Setup::default() }.echo();
    assert_eq!(whole(server.address, json!(says("x")), json!({}))["store"], false);
}

#[test]
fn items_of_stored_responses_may_be_named_in_place_of_being_sent() {
    let server = Setup::default().echo();
    let question = json!({"role": "user", "content": says(CALLS)});
    let first = whole(server.address, json!([question]), json!({"tools": tools()}));
    let output = first["output"].as_array().unwrap();
    let result =
        |item: &Value| json!({"type": "function_call_output", "call_id": item["call_id"], "output": "bin"});
    let results: Vec<Value> =
        output.iter().filter(|item| item["type"] == "function_call").map(result).collect();
    let next = |items: Vec<Value>| {
        let mut input = vec![question.clone()];
        input.extend(items);
        input.extend(results.clone());
        input.push(json!({"role": "user", "content": says("ok")}));
        whole(server.address, json!(input), json!({"tools": tools()}))
    };
    let sent = next(output.clone());
    let name = |item: &Value| json!({"type": "item_reference", "id": item["id"]});
    let named = next(output.iter().map(name).collect());
    assert_eq!((text(&named), text(&sent)), ("ok", "ok"));
    assert_eq!(named["usage"]["input_tokens"], sent["usage"]["input_tokens"]);
    assert!(results.len() == 2 && output.len() == 3, "{output:?}");
}

#[test]
fn a_key_finds_its_own_responses_alone() {
    let settings = ApiSettings {
        keys: ApiKeys::new(["one", "two"]),
        keepalive: None,
        workers: 1,
        ..ApiSettings::default()
    };
    let server = Setup { settings, ..Setup::default() }.echo();
    let ask = |key: &str, method: &str, path: &str, body: &Value| {
        receive(send(server.address, method, path, &[("x-api-key", key)], body.to_string().as_bytes()))
    };
    let made = ask("one", "POST", PATH, &json!({"input": says("secret")})).json();
    let path = format!("{PATH}/{}", made["id"].as_str().unwrap());
    for method in ["GET", "DELETE"] {
        assert_eq!(ask("two", method, &path, &Value::Null).status, 404);
        assert_eq!(ask("", method, &path, &Value::Null).status, 401);
    }
    let stolen = ask("two", "POST", PATH, &json!({"input": "x", "previous_response_id": made["id"]}));
    assert_eq!(stolen.status, 400);
    let reference =
        json!([{"type": "item_reference", "id": made["output"][0]["id"]}, {"role": "user", "content": "x"}]);
    assert_eq!(ask("two", "POST", PATH, &json!({"input": reference})).status, 400);
    assert_eq!(ask("one", "POST", PATH, &json!({"input": reference})).status, 200);
    assert_eq!(ask("one", "GET", &path, &Value::Null).json(), made);
}

#[test]
fn the_model_is_told_of_functions_in_namespaces_and_not_of_what_a_server_would_run() {
    let server = Setup::default().echo();
    let hosted = json!([{"type": "web_search", "external_web_access": false}, {"type": "image_generation"}]);
    let plain = whole(server.address, json!(says("x")), json!({}));
    let silent = whole(server.address, json!(says("x")), json!({"tools": hosted}));
    assert_eq!((&silent["usage"], &silent["tools"]), (&plain["usage"], &json!([])));
    let space =
        json!([{"type": "namespace", "name": "disk", "description": "Disks.", "tools": [tools()[0]]}]);
    let call = "<tool_call>{\"name\": \"disk__ls\", \"arguments\": {}}</tool_call>";
    let first = whole(server.address, json!(says(call)), json!({"tools": space}));
    let item = &first["output"][0];
    assert_eq!((&item["name"], &item["namespace"]), (&json!("ls"), &json!("disk")));
    assert_eq!(first["tools"][0]["tools"][0]["name"], "ls");
    // Sent back, the call is again what the model wrote.
    let result = json!([{"type": "function_call_output", "call_id": item["call_id"], "output": "bin"}, {"role": "user", "content": says("ok")}]);
    let next = whole(server.address, result, json!({"tools": space, "previous_response_id": first["id"]}));
    let named = json!({"type": "function", "name": "ls", "namespace": "disk"});
    assert_eq!(text(&next), "ok");
    let forced = whole(
        server.address,
        json!(says("no")),
        json!({"tools": space, "tool_choice": named, "max_output_tokens": 400}),
    );
    assert_eq!(
        (&forced["output"][0]["name"], &forced["output"][0]["namespace"]),
        (&json!("ls"), &json!("disk"))
    );
}

#[test]
fn every_wrong_field_of_responses_is_named() {
    let server = Setup::default().echo();
    let fields = [
        ("input", json!(null), "input"),
        ("input", json!(5), "input"),
        ("input", json!([]), "input"),
        ("input", json!([1]), "input[0]"),
        ("input", json!([{"content": "x"}]), "input[0].role"),
        ("input", json!([{"role": "wizard", "content": "x"}]), "input[0].role"),
        ("input", json!([{"role": "tool", "content": "x"}]), "input[0].role"),
        ("input", json!([{"role": "user"}]), "input[0].content"),
        ("input", json!([{"role": "user", "content": 5}]), "input[0].content"),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
            "input[0].content",
        ),
        ("input", json!([{"type": "item_reference", "id": "x"}]), "input[0].id"),
        ("input", json!([{"type": "item_reference"}]), "input[0].id"),
        ("input", json!([{"type": "function_call", "call_id": "c", "arguments": "{}"}]), "input[0].name"),
        ("input", json!([{"type": "function_call", "name": "f", "arguments": "{}"}]), "input[0].call_id"),
        ("input", json!([{"type": "function_call", "call_id": "c", "name": "f"}]), "input[0].arguments"),
        (
            "input",
            json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]),
            "input[0].arguments",
        ),
        ("input", json!([{"type": "function_call_output", "output": "x"}]), "input[0].call_id"),
        ("input", json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
        ("instructions", json!(5), "instructions"),
        ("previous_response_id", json!("resp_none"), "previous_response_id"),
        ("store", json!("no"), "store"),
        ("tools", json!({"a": 1}), "tools"),
        ("tools", json!([{"name": "f"}]), "tools[0].type"),
        ("tools", json!([{"type": "function"}]), "tools[0].name"),
        ("tools", json!([{"type": "custom", "name": "f"}]), "tools[0].type"),
        (
            "tools",
            json!([{"type": "namespace", "name": "s", "tools": [{"type": "function"}]}]),
            "tools[0].tools[0].name",
        ),
        ("tool_choice", json!("sometimes"), "tool_choice"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "name": "f"}), "tool_choice"),
        ("tool_choice", json!({"type": "web_search"}), "tool_choice"),
        ("parallel_tool_calls", json!("no"), "parallel_tool_calls"),
        ("text", json!({"format": {"type": "xml"}}), "text.format.type"),
        ("text", json!({"format": {"type": "json_schema"}}), "text.format.schema"),
        ("text", json!({"format": {"type": "json_schema", "schema": {"type": "odd"}}}), "text.format"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("max_output_tokens", json!("many"), "max_output_tokens"),
        ("max_tokens", json!(5), "max_tokens"),
        ("temperature", json!(-1), "temperature"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("include", json!("x"), "include"),
        ("metadata", json!({"a": 1}), "metadata.a"),
        ("metadata", json!({"a".repeat(65): "x"}), "metadata"),
        ("reasoning", json!({"effort": 1}), "reasoning.effort"),
        ("background", json!(true), "background"),
        ("conversation", json!("c"), "conversation"),
        ("truncation", json!("auto"), "truncation"),
        ("stream_options", json!({"include_obfuscation": true}), "stream_options"),
        ("n", json!(2), "n"),
    ];
    for (field, value, named) in fields {
        let mut body = json!({"input": "x"});
        body[field] = value.clone();
        for stream in [false, true] {
            body["stream"] = stream.into();
            let response = post(server.address, PATH, &body);
            assert_eq!(response.status, 400, "{field} = {value}: {}", response.text());
            assert_eq!(response.json()["error"]["param"], named, "{field} = {value}: {}", response.text());
        }
    }
    let ok = chat(server.address, &says("ok"), json!({})).json();
    assert_eq!(ok["choices"][0]["message"]["content"], "ok");
}

#[test]
fn neutral_values_are_fine() {
    let server = Setup::default().echo();
    let more = json!({"background": false, "truncation": "disabled", "conversation": null, "stream_options": {"include_obfuscation": false},
        "reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"], "service_tier": "auto", "text": {"verbosity": "low"},
        "prompt_cache_key": "k", "safety_identifier": "s", "tools": [], "tool_choice": "auto", "metadata": null, "store": null});
    let response = whole(server.address, json!(says("ok")), more);
    assert_eq!((text(&response), &response["prompt_cache_key"]), ("ok", &json!("k")));
}

#[test]
fn embeddings_are_refused_with_the_reason() {
    let server = Setup::default().echo();
    for input in [json!("x"), json!(["a", "b"]), json!([1, 2])] {
        let response = post(server.address, "/v1/embeddings", &json!({"input": input, "model": "alias"}));
        let error = response.json()["error"].clone();
        assert_eq!((response.status, error["code"].as_str()), (400, Some("model_does_not_embed")));
        assert!(error["message"].as_str().unwrap().contains("does not embed"), "{error}");
    }
    for wrong in [json!({}), json!({"input": 1}), json!({"input": []})] {
        let response = post(server.address, "/v1/embeddings", &wrong);
        assert_eq!((response.status, response.json()["error"]["param"].clone()), (400, json!("input")));
    }
    assert_eq!(
        post(server.address, "/v1/embeddings", &chat_body("x", json!({"model": "gpt-5"}))).status,
        404
    );
}

#[test]
fn the_fields_that_are_told_again_are_those_that_were_asked() {
    let server = Setup::default().echo();
    let more = json!({"presence_penalty": 0.5, "frequency_penalty": 0.25, "max_tool_calls": 3, "safety_identifier": "s", "user": null,
        "service_tier": "auto", "include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let response = whole(server.address, json!(says("x")), more);
    let told = json!([0.5, 0.25, 3, "s", null, "default", 2]);
    let fields = [
        "presence_penalty",
        "frequency_penalty",
        "max_tool_calls",
        "safety_identifier",
        "user",
        "service_tier",
        "top_logprobs",
    ];
    assert_eq!(json!(fields.map(|field| response[field].clone())), told);
    let cut = whole(server.address, json!(says("abcdef")), json!({"max_output_tokens": 2}));
    assert_eq!((&cut["status"], &cut["completed_at"]), (&json!("incomplete"), &Value::Null));
}

#[test]
fn an_input_can_be_counted_and_a_stored_one_be_listed() {
    let server = Setup::default().echo();
    let first = whole(server.address, json!(says("one")), json!({"instructions": "Be brief."}));
    let previous = json!({"previous_response_id": first["id"], "input": says("two"), "tools": tools()});
    let count = post(server.address, "/v1/responses/input_tokens", &previous);
    assert_eq!(
        (count.status, &count.json()["object"]),
        (200, &json!("response.input_tokens")),
        "{}",
        count.text()
    );
    let second = post(server.address, "/v1/responses", &previous).json();
    assert_eq!(count.json()["input_tokens"], second["usage"]["input_tokens"]);
    let path = format!("/v1/responses/{}/input_items", second["id"].as_str().unwrap());
    let list = |query: &str| get(server.address, &format!("{path}{query}")).json();
    let texts = |list: &Value| -> Vec<String> {
        let items = list["data"].as_array().unwrap().iter();
        items.map(|item| item["content"][0]["text"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("?order=asc");
    assert_eq!(texts(&all), [says("one"), "one".into(), says("two")]);
    assert_eq!(
        (&all["data"][0]["type"], &all["data"][0]["content"][0]["type"]),
        (&json!("message"), &json!("input_text"))
    );
    assert_eq!(all["data"][1]["content"][0]["type"], "output_text");
    let page = list("?limit=1");
    assert_eq!(
        (texts(&page), &page["has_more"], &page["first_id"]),
        (vec![says("two")], &json!(true), &all["data"][2]["id"])
    );
    let rest = list(&format!("?after={}", page["last_id"].as_str().unwrap()));
    assert_eq!((texts(&rest), &rest["has_more"]), (vec!["one".into(), says("one")], &json!(false)));
    for (query, param) in [("?order=up", "order"), ("?limit=0", "limit"), ("?after=x", "after")] {
        assert_eq!(list(query)["error"]["param"], param);
    }
    let cancel = post(server.address, &path.replace("input_items", "cancel"), &json!({}));
    assert!(cancel.status == 400 && cancel.text().contains("synchronous"), "{}", cancel.text());
    assert_eq!(post(server.address, "/v1/responses/none/cancel", &json!({})).status, 404);
    assert_eq!(get(server.address, "/v1/responses/none/input_items").status, 404);
}
