//! `POST /v1/chat/completions`.

use serde_json::{Value, json};

use super::client::{Response, called, chat, chat_body, post};
use super::server::Setup;

fn says(text: &str) -> String {
    format!("<script>{text}<go>")
}

fn content(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn streamed(response: &Response, index: u64) -> (String, Vec<Value>) {
    let (mut text, mut ends) = (String::new(), Vec::new());
    for chunk in response.chunks() {
        for choice in chunk["choices"].as_array().unwrap().iter().filter(|choice| choice["index"] == index) {
            text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            ends.extend(Some(choice["finish_reason"].clone()).filter(|end| !end.is_null()));
        }
    }
    (text, ends)
}

#[test]
fn a_whole_answer_has_everything_clients_read() {
    let server = Setup::default().echo();
    let response = chat(server.address, &says("Hello, world"), json!({"model": "alias"}));
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    let body = response.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "alias");
    assert!(
        body["id"].as_str().unwrap().starts_with("chatcmpl-")
            && body["created"].as_u64().unwrap() > 1_700_000_000
    );
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": "Hello, world", "refusal": null}, "logprobs": null, "finish_reason": "stop"});
    assert_eq!(body["choices"], json!([choice]));
    // bos, start, "user\n", script, the text, go, end, start, "assistant\n"; the answer and its stop token.
    let (prompt, answer) = (1 + 1 + 5 + 1 + 12 + 1 + 1 + 1 + 10, 13);
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 0}})
    );
}

#[test]
fn a_stream_is_framed_as_clients_demand_and_its_deltas_are_the_whole_text() {
    let server = Setup::default().echo();
    let script = says("naïve 🦀 你好\n\n  two  spaces\ttab 👨‍👩‍👧");
    let whole = content(&chat(server.address, &script, json!({})));
    assert_eq!(whole, "naïve 🦀 你好\n\n  two  spaces\ttab 👨‍👩‍👧");
    let response = chat(server.address, &script, json!({"stream": true}));
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    let chunks = response.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
        assert!(chunk.get("usage").is_none());
        assert!(!chunk.to_string().contains('\u{fffd}'));
    }
    assert!(chunks[1..].iter().all(|chunk| chunk["choices"][0]["delta"].get("role").is_none()));
    assert_eq!(streamed(&response, 0), (whole, vec![json!("stop")]));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[test]
fn usage_comes_in_its_own_chunk_when_asked_for() {
    let server = Setup::default().echo();
    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = chat(server.address, &says("abc"), body).chunks();
    let (usage, others) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["object"], "chat.completion.chunk");
    assert_eq!(usage["usage"]["completion_tokens"], 4);
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(others.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn stop_strings_cut_exactly_and_are_never_streamed_in_part() {
    let server = Setup::default().echo();
    for (stop, expected) in [
        (json!("STOP"), "one ST two "),
        (json!(["zzz", " two"]), "one ST"),
        (json!(["two STOP three"]), "one ST "),
        (json!("nowhere"), "one ST two STOP three"),
        (json!(null), "one ST two STOP three"),
        (json!([]), "one ST two STOP three"),
    ] {
        let script = says("one ST two STOP three");
        assert_eq!(content(&chat(server.address, &script, json!({"stop": stop}))), expected);
        let response = chat(server.address, &script, json!({"stop": stop, "stream": true}));
        assert_eq!(streamed(&response, 0), (expected.to_owned(), vec![json!("stop")]));
    }
}

#[test]
fn lengths_are_honoured_by_either_name() {
    let server = Setup::default().echo();
    for field in ["max_tokens", "max_completion_tokens"] {
        let body = chat(server.address, &says("abcdef"), json!({field: 3})).json();
        assert_eq!(
            (&body["choices"][0]["message"]["content"], &body["choices"][0]["finish_reason"]),
            (&json!("abc"), &json!("length"))
        );
        assert_eq!(body["usage"]["completion_tokens"], 3);
    }
    let body = chat(server.address, &says("ab"), json!({"ignore_eos": true, "max_tokens": 10})).json();
    assert_eq!(
        (&body["usage"]["completion_tokens"], &body["choices"][0]["finish_reason"]),
        (&json!(10), &json!("length"))
    );
    let body = chat(server.address, &says("ab"), json!({"min_tokens": 6, "max_tokens": 50})).json();
    assert!(body["usage"]["completion_tokens"].as_u64().unwrap() >= 6, "{body}");
    let body =
        chat(server.address, &says("aXb"), json!({"stop": "X", "min_tokens": 3, "max_tokens": 50})).json();
    assert!(body["choices"][0]["message"]["content"].as_str().unwrap().starts_with("aXb"), "{body}");
    let body = chat(server.address, &says("abc"), json!({"stop_token_ids": [u32::from(b'c')]})).json();
    assert_eq!(body["choices"][0]["message"]["content"], "ab");
}

#[test]
fn half_a_character_at_the_length_limit_is_the_same_streamed_and_whole() {
    let server = Setup::default().echo();
    let whole = content(&chat(server.address, &says("a🦀"), json!({"max_tokens": 3})));
    assert_eq!(whole, "a\u{fffd}");
    assert_eq!(
        streamed(&chat(server.address, &says("a🦀"), json!({"max_tokens": 3, "stream": true})), 0).0,
        whole
    );
}

#[test]
fn content_may_be_parts_or_null_and_roles_may_be_new_or_old() {
    let server = Setup::default().echo();
    let messages = json!([
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "user", "content": [{"type": "text", "text": "<script>o"}, {"type": "text", "text": "k<go>"}]}]);
    let response = post(
        server.address,
        "/v1/chat/completions",
        &json!({"messages": messages, "temperature": 0, "unknown": 1, "user": "u", "store": true, "metadata": {}}),
    );
    assert_eq!(content(&response), "ok");
    let rendered = "<s><|start|>system\nBe brief.<|end|><|start|>assistant\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call><|end|>\
        <|start|>tool\ndone<|end|><|start|>user\n<script>ok<go><|end|><|start|>assistant\n";
    let special = ["<s>", "<|start|>", "<|end|>", "<script>", "<go>", "<tool_call>", "</tool_call>"];
    let tokens = special
        .iter()
        .fold(rendered.len(), |tokens, name| tokens - rendered.matches(name).count() * (name.len() - 1));
    assert_eq!(response.json()["usage"]["prompt_tokens"], tokens);
}

const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"z\": \"é\", \"a\": 1}}\n</tool_call>\n<tool_call>{\"name\": \"pwd\"}</tool_call>";

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "pwd"}}])
}

#[test]
fn tool_calls_are_taken_from_the_text_when_tools_are_declared() {
    let server = Setup::default().echo();
    let body = chat(
        server.address,
        &says(CALLS),
        json!({"tools": tools(), "tool_choice": "auto", "parallel_tool_calls": true}),
    )
    .json();
    let choice = &body["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("Let me see."), &json!("tool_calls"))
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["function"], json!({"name": "ls", "arguments": "{\"z\":\"é\",\"a\":1}"}));
    assert_eq!((&calls[1]["function"]["arguments"], &calls[1]["type"]), (&json!("{}"), &json!("function")));
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_") && calls[0]["id"] != calls[1]["id"]);
    let only =
        chat(server.address, &says("<tool_call>{\"name\": \"pwd\"}</tool_call>"), json!({"tools": tools()}))
            .json();
    assert_eq!(only["choices"][0]["message"]["content"], Value::Null);
}

#[test]
fn tool_calls_are_streamed_as_deltas() {
    let server = Setup::default().echo();
    let response = chat(server.address, &says(CALLS), json!({"tools": tools(), "stream": true}));
    assert_eq!(streamed(&response, 0), ("Let me see.".to_owned(), vec![json!("tool_calls")]));
    let ls = json!({"name": "ls", "arguments": "{\"z\":\"é\",\"a\":1}"});
    assert_eq!(called(&response.chunks()), [ls, json!({"name": "pwd", "arguments": "{}"})]);
    let deltas = response.chunks();
    let deltas = deltas.iter().filter(|chunk| chunk["choices"][0]["delta"]["tool_calls"].is_array());
    assert!(deltas.count() > 10, "arguments come as they are made");
}

#[test]
fn without_wanted_tools_or_with_broken_json_a_call_is_text() {
    let server = Setup::default().echo();
    let broken = "<tool_call>{\"name\": }</tool_call> hm";
    // With `min_tokens` no grammar keeps calls whole.
    let more = json!({"tools": tools(), "min_tokens": 1});
    assert_eq!(content(&chat(server.address, &says(broken), more)), broken);
    for more in [json!({}), json!({"tools": []})] {
        let body = chat(server.address, &says(CALLS), more).json();
        assert_eq!(
            (&body["choices"][0]["message"]["content"], &body["choices"][0]["finish_reason"]),
            (&json!(CALLS), &json!("stop"))
        );
    }
}

#[test]
fn tools_that_must_not_be_called_are_shown_and_not_called() {
    let server = Setup::default().echo();
    let ask = |choice: &str| {
        let more = json!({"tools": tools(), "tool_choice": choice, "max_tokens": 300});
        chat(server.address, &says(CALLS), more).json()
    };
    let (auto, none) = (ask("auto"), ask("none"));
    assert_eq!(none["usage"]["prompt_tokens"], auto["usage"]["prompt_tokens"], "the prompt is the same");
    let message = &none["choices"][0]["message"];
    assert!(
        message["tool_calls"].is_null() && !message["content"].as_str().unwrap().contains("<tool_call>"),
        "{none}"
    );
}

#[test]
fn allowed_tools_are_called_and_no_others_while_all_are_shown() {
    let server = Setup::default().echo();
    let ask = |mode: &str, names: &[&str], script: &str| {
        let names: Vec<Value> =
            names.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect();
        let choice = json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}});
        chat(
            server.address,
            &says(script),
            json!({"tools": tools(), "tool_choice": choice, "max_tokens": 300}),
        )
    };
    for (mode, script) in [("auto", CALLS), ("required", CALLS), ("required", "I will not.")] {
        let body = ask(mode, &["pwd"], script).json();
        let calls = body["choices"][0]["message"]["tool_calls"].as_array().unwrap();
        assert!(!calls.is_empty() && calls.iter().all(|call| call["function"]["name"] == "pwd"), "{body}");
    }
    assert_eq!(
        ask("auto", &["pwd"], "I will not.").json()["choices"][0]["message"]["content"],
        "I will not."
    );
    for (mode, name) in [("auto", "rm"), ("never", "pwd")] {
        let refused = ask(mode, &[name], "x");
        assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("tool_choice")));
    }
}

#[test]
fn several_choices_are_numbered_and_their_prompt_counts_once() {
    let server = Setup::default().sim();
    let more = json!({"n": 3, "seed": 5, "temperature": 1, "max_tokens": 12, "ignore_eos": true});
    let body = chat(server.address, "hi", more.clone()).json();
    let texts: Vec<&str> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(
        body["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    let one = chat(server.address, "hi", json!({"max_tokens": 1})).json();
    assert_eq!(body["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert_eq!(body["usage"]["completion_tokens"], 36);
    let mut more = more;
    more["stream"] = true.into();
    let response = chat(server.address, "hi", more);
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(streamed(&response, index as u64), ((*text).to_owned(), vec![json!("length")]));
    }
}

#[test]
fn log_probabilities_are_told_for_every_token_of_the_text() {
    let server = Setup::default().echo();
    let more = json!({"logprobs": true, "top_logprobs": 2});
    let body = chat(server.address, &says("aé"), more.clone()).json();
    assert_eq!(body["choices"][0]["logprobs"].get("refusal"), Some(&Value::Null));
    let tokens = body["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(
        tokens.iter().map(|token| token["bytes"][0].as_u64().unwrap()).collect::<Vec<_>>(),
        [0x61, 0xc3, 0xa9]
    );
    assert_eq!((&tokens[0]["token"], tokens[0]["top_logprobs"].as_array().unwrap().len()), (&json!("a"), 2));
    let (most, next) = (&tokens[0]["top_logprobs"][0]["logprob"], &tokens[0]["top_logprobs"][1]["logprob"]);
    assert!(next.as_f64().unwrap() < most.as_f64().unwrap() && most.as_f64().unwrap() <= 0.0);
    assert_eq!(&tokens[0]["logprob"], most);
    let stop = chat(server.address, &says("abXYcd"), json!({"logprobs": true, "stop": "XY"})).json();
    assert_eq!(stop["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 2);
    let mut body = chat_body(&says("aé"), more);
    body["stream"] = true.into();
    let chunks = post(server.address, "/v1/chat/completions", &body).chunks();
    let streamed: Vec<Value> = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(streamed, tokens);
}

#[test]
fn sampling_fields_reach_the_sampler() {
    let server = Setup::default().echo();
    let biased = chat(server.address, &says("a"), json!({"logit_bias": {"98": 100}, "max_tokens": 4})).json();
    assert_eq!(biased["choices"][0]["message"]["content"], "bbbb");
    let sim = Setup::default().sim();
    let draw = |more: Value| {
        let mut body = json!({"temperature": 2.0, "max_tokens": 20, "ignore_eos": true, "seed": 1});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat(sim.address, "x", body).json()["choices"][0]["message"]["content"].clone()
    };
    let base = draw(json!({}));
    assert_eq!(draw(json!({})), base);
    for more in [
        json!({"seed": 2}),
        json!({"top_k": 1}),
        json!({"top_p": 0.01}),
        json!({"min_p": 1.0}),
        json!({"temperature": 0}),
    ] {
        assert_ne!(draw(more.clone()), base, "{more}");
    }
    assert_eq!(draw(json!({"top_k": -1, "top_p": 1, "min_p": 0})), base);
}

#[test]
fn variables_for_the_template_reach_it_and_its_refusal_reaches_the_client() {
    let server = Setup::default().echo();
    let open = chat(server.address, "x", json!({"max_tokens": 1})).json();
    let closed = chat(server.address, "x", json!({"max_tokens": 1, "add_generation_prompt": false})).json();
    let tokens = |body: &Value| body["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&open) - tokens(&closed), 11);
    let messages = json!([{"role": "user", "content": "unsayable"}]);
    let refused = post(server.address, "/v1/chat/completions", &json!({"messages": messages}));
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"]["message"].as_str().unwrap().ends_with("not this"));
}
