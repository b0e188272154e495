//! What clients do to a conversation between two turns, and that it costs no prefix.

use prefixd::api::ApiSettings;
use serde_json::{Value, json};

use super::client::{Response, post};
use super::model::END;
use super::server::{Server, Setup};

const LONG: usize = 160;

fn long(name: &str) -> String {
    format!("{name} ").repeat(LONG).chars().take(LONG).collect()
}

fn server() -> Server {
    Setup { cache: true, ..Setup::default() }.sim()
}

fn ask(server: &Server, path: &str, body: Value) -> Value {
    let mut whole =
        json!({"max_tokens": 1, "temperature": 0, "messages": [{"role": "user", "content": "Hm?"}]});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let response: Response = post(server.address, path, &whole);
    assert_eq!(response.status, 200, "{body}: {}", response.text());
    response.json()
}

fn chat(server: &Server, messages: Value, more: Value) -> Value {
    let mut body = json!({"messages": messages});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(server, "/v1/chat/completions", body)
}

/// Tokens of the prompt, and how many of them were cached.
fn tokens(response: &Value) -> (u64, u64) {
    let usage = &response["usage"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{usage}"));
    if let Some(prompt) = usage.get("prompt_tokens") {
        return (number(prompt), number(&usage["prompt_tokens_details"]["cached_tokens"]));
    }
    let read = number(&usage["cache_read_input_tokens"]);
    let new = number(&usage["input_tokens"]) + number(&usage["cache_creation_input_tokens"]);
    (new + read, read)
}

#[test]
fn a_billing_header_that_changes_with_every_request_is_no_part_of_the_prompt() {
    let server = server();
    let system = |header: &str| json!({"system": [{"type": "text", "text": header}, {"type": "text", "text": long("rules")}]});
    let one = ask(&server, "/v1/messages", system("x-anthropic-billing-header: cc_version=1; cch=0a1b2;"));
    let other = ask(&server, "/v1/messages", system("x-anthropic-billing-header: cc_version=1; cch=99f3e;"));
    let (prompt, cached) = tokens(&other);
    assert_eq!(tokens(&one).0, prompt);
    assert!(cached + 16 >= prompt - 1, "{cached} of {prompt}");
    let without = ask(&server, "/v1/messages", json!({"system": long("rules")}));
    assert_eq!(tokens(&without).0, prompt);
}

#[test]
fn the_same_tools_in_another_order_of_keys_are_the_same_prompt_on_both_endpoints() {
    let server = server();
    let text = long("finds");
    let one = json!({"type": "function", "function": {"name": "find", "description": text,
        "parameters": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer", "minimum": 1}}, "required": ["b"]}}});
    let other = json!({"function": {"parameters": {"required": ["b"], "properties": {"b": {"type": "string"}, "a": {"minimum": 1, "type": "integer"}}, "type": "object"},
        "description": text, "name": "find"}, "type": "function"});
    assert_ne!(one.to_string(), other.to_string());
    let messages = json!([{"role": "user", "content": "Find it."}]);
    let (prompt, _) = tokens(&chat(&server, messages.clone(), json!({"tools": [one]})));
    let again = tokens(&chat(&server, messages.clone(), json!({"tools": [other]})));
    assert!(again.0 == prompt && again.1 + 16 >= prompt - 1, "{again:?} of {prompt}");
    let anthropic =
        json!({"input_schema": other["function"]["parameters"], "description": text, "name": "find"});
    let again = tokens(&ask(&server, "/v1/messages", json!({"messages": messages, "tools": [anthropic]})));
    assert!(again.0 == prompt && again.1 + 16 >= prompt - 1, "{again:?} of {prompt}");
}

#[test]
fn content_in_parts_developers_and_system_messages_anywhere_are_accepted() {
    let server = server();
    let first = json!([{"role": "developer", "content": [{"type": "text", "text": long("rules")}]},
        {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]}]);
    let (prompt, _) = tokens(&chat(&server, first.clone(), json!({})));
    let plain =
        json!([{"role": "system", "content": long("rules")}, {"role": "user", "content": "What now?"}]);
    let same = tokens(&chat(&server, plain, json!({})));
    assert!(same.0 == prompt && same.1 + 16 >= prompt - 1, "{same:?} of {prompt}");
    // The template of this model refuses a system message that is not the first.
    let mut later = first.as_array().unwrap().clone();
    later.push(json!({"role": "assistant", "content": "This."}));
    later.push(json!({"role": "system", "content": "Be quick."}));
    later.push(json!({"role": "user", "content": "And now?"}));
    let (_, cached) = tokens(&chat(&server, json!(later), json!({})));
    assert!(cached + 16 >= prompt - 1, "what was said before stays a prefix: {cached} of {prompt}");
    let anthropic = json!({"system": long("rules"), "messages": [{"role": "user", "content": "What now?"},
        {"role": "assistant", "content": "This."}, {"role": "system", "content": "Be quick."}, {"role": "user", "content": "And now?"}]});
    let (same, all) = tokens(&ask(&server, "/v1/messages", anthropic));
    assert!(all + 16 >= same - 1, "{all} of {same}");
}

#[test]
fn an_answer_that_comes_back_without_its_thoughts_costs_no_more_than_itself() {
    let server = server();
    let asked = json!({"role": "user", "content": long("think")});
    let (prompt, _) = tokens(&chat(&server, json!([asked]), json!({"max_tokens": 40})));
    let turn =
        json!([asked, {"role": "assistant", "content": "Short."}, {"role": "user", "content": "And?"}]);
    let (_, cached) = tokens(&chat(&server, turn, json!({})));
    assert!(cached + 16 >= prompt, "{cached} of {prompt}");
}

/// A turn whose answer is a row of `q`, each a token of its own, where the tokenizer would take them two by two.
fn odd_answer(server: &Server, messages: Value) -> (String, u64) {
    let only_q = json!({"113": 100, END.to_string(): 100});
    let more = json!({"logit_bias": only_q, "min_tokens": 40, "max_tokens": 400});
    let response = chat(server, messages, more);
    let choice = &response["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(
        choice["finish_reason"] == "stop" && text.len() >= 39 && text.chars().all(|c| c == 'q'),
        "{choice}"
    );
    assert_eq!(response["usage"]["completion_tokens"].as_u64().unwrap(), text.len() as u64 + 1);
    (text.to_owned(), response["usage"]["total_tokens"].as_u64().unwrap())
}

#[test]
fn an_answer_in_tokens_that_the_tokenizer_would_not_choose_is_found_again() {
    let settings =
        ApiSettings { keeps_answers: false, keepalive: None, workers: 1, ..ApiSettings::default() };
    let forgetful = Setup { cache: true, settings, ..Setup::default() }.sim();
    let server = server();
    let asked = json!({"role": "user", "content": long("go")});
    let (text, known) = odd_answer(&server, json!([asked]));
    assert_eq!(odd_answer(&forgetful, json!([asked])), (text.clone(), known));
    let mut turn = vec![
        asked,
        json!({"role": "assistant", "content": text}),
        json!({"role": "user", "content": "And?"}),
    ];
    let answered = |server: &Server, turn: &[Value]| tokens(&chat(server, json!(turn), json!({})));
    let (prompt, cached) = answered(&server, &turn);
    assert!(cached + 17 >= known, "all but the new tokens: {cached} of {known} and {prompt}");
    let (usual, found) = answered(&forgetful, &turn);
    assert!(usual < prompt && found + 39 <= known, "else this test says nothing: {found} of {known}");
    // A second odd answer stands on the first.
    turn.pop();
    turn.push(json!({"role": "user", "content": "More."}));
    let (text, known) = odd_answer(&server, json!(turn));
    turn.push(json!({"role": "assistant", "content": text}));
    turn.push(json!({"role": "user", "content": "And?"}));
    let (_, cached) = answered(&server, &turn);
    assert!(cached + 17 >= known, "{cached} of {known}");
    // What the client changed is not what was answered.
    turn[1]["content"] = json!(format!("{}x", turn[1]["content"].as_str().unwrap()));
    let changed = answered(&server, &turn);
    assert_eq!(changed.0, answered(&forgetful, &turn).0);
}

#[test]
fn an_image_in_an_older_message_is_named_with_a_warning_and_a_new_one_is_refused() {
    let server = Setup::default().echo();
    let part = |kind: &str| match kind {
        "image" => {
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}})
        }
        "input_image" => json!({"type": "input_image", "image_url": "data:image/png;base64,x"}),
        _ => json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}),
    };
    let ok = "<script>ok<go>";
    for (path, kind, text, list) in [
        ("/v1/chat/completions", "image_url", "text", "messages"),
        ("/v1/messages", "image", "text", "messages"),
        ("/v1/responses", "input_image", "input_text", "input"),
    ] {
        let seen = json!({"role": "user", "content": [{"type": text, "text": "Look."}, part(kind)]});
        let answer = json!({"role": "assistant", "content": "Yes."});
        let ask = |turns: Value| {
            post(
                server.address,
                path,
                &json!({list: turns, "max_tokens": if list == "input" { Value::Null } else { 9.into() }}),
            )
        };
        let older = ask(json!([seen, answer, {"role": "user", "content": ok}]));
        assert_eq!(older.status, 200, "{path}: {}", older.text());
        assert!(older.header("x-prefixd-warning").unwrap().contains("[image]"), "{path}");
        let named = ask(
            json!([{"role": "user", "content": [{"type": text, "text": "Look."}, {"type": text, "text": "[image]"}]}, answer, {"role": "user", "content": ok}]),
        );
        let tokens =
            |body: &Value| body["usage"]["prompt_tokens"].as_u64().or(body["usage"]["input_tokens"].as_u64());
        assert_eq!(tokens(&older.json()), tokens(&named.json()), "{path}");
        assert_eq!(named.header("x-prefixd-warning"), None);
        assert_eq!(ask(json!([seen])).status, 400, "{path}: a new image is refused");
    }
}
