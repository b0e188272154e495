//! What clients write that other servers take: it has an effect here, or it is refused by name, on every endpoint.

use serde_json::{Value, json};

use super::client::{Response, chat, post, receive, send};
use super::server::{Server, Setup};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const ALL: [&str; 4] = [CHAT, COMPLETIONS, RESPONSES, MESSAGES];

fn ask(server: &Server, path: &str, field: &str, value: &Value) -> Response {
    let said = "<script>ok<go>";
    let mut body = match path {
        COMPLETIONS => json!({"prompt": said, "max_tokens": 8}),
        RESPONSES => json!({"input": said, "max_output_tokens": 8}),
        _ => json!({"messages": [{"role": "user", "content": said}], "max_tokens": 8}),
    };
    body[field] = value.clone();
    post(server.address, path, &body)
}

fn is_refused(server: &Server, path: &str, field: &str, value: &Value) {
    let response = ask(server, path, field, value);
    let message = response.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(
        response.status == 400 && message.contains(field),
        "{path} {field} = {value}: {}",
        response.text()
    );
}

#[test]
fn fields_of_other_servers_are_refused_by_name_on_every_endpoint() {
    let server = Setup::default().echo();
    let schema = json!({"type": "object"});
    let fields = [
        ("n_predict", json!(5)),
        ("num_predict", json!(5)),
        ("max_new_tokens", json!(5)),
        ("repeat_penalty", json!(1.1)),
        ("mirostat", json!(2)),
        ("typical_p", json!(0.5)),
        ("tfs_z", json!(0.5)),
        ("top_a", json!(0.1)),
        ("dry_multiplier", json!(0.8)),
        ("xtc_probability", json!(0.5)),
        ("samplers", json!(["top_k"])),
        ("bad_words", json!(["no"])),
        ("allowed_token_ids", json!([1])),
        ("include_stop_str_in_output", json!(true)),
        ("skip_special_tokens", json!(false)),
        ("truncate_prompt_tokens", json!(3)),
        ("use_beam_search", json!(true)),
        ("length_penalty", json!(2.0)),
        ("chat_template", json!("{{ messages }}")),
        ("documents", json!([{"text": "x"}])),
        ("format", schema.clone()),
        ("format", json!("json")),
        ("options", json!({"temperature": 0})),
        ("json_schema", schema.clone()),
        ("guided_json", schema.clone()),
        ("guided_regex", json!("a+")),
        ("structured_outputs", json!({"regex": "a+"})),
        ("grammar", json!("root ::= \"a\"")),
        ("regex", json!("a+")),
        ("ebnf", json!("root ::= \"a\"")),
        ("raw", json!(true)),
        ("images", json!(["AAAA"])),
        ("functions", json!([{"name": "f"}])),
    ];
    for path in ALL {
        for (field, value) in &fields {
            is_refused(&server, path, field, value);
        }
    }
}

#[test]
fn names_of_other_endpoints_are_refused_with_the_name_that_is_right() {
    let server = Setup::default().echo();
    for (path, field, value, right) in [
        (CHAT, "max_output_tokens", json!(5), "max_completion_tokens"),
        (CHAT, "stop_sequences", json!(["x"]), "stop"),
        (CHAT, "system", json!("Be brief."), "role system"),
        (CHAT, "input", json!("x"), "messages"),
        (COMPLETIONS, "messages", json!([{"role": "user", "content": "x"}]), "prompt"),
        (COMPLETIONS, "tools", json!([{"type": "function"}]), "/v1/chat/completions"),
        (COMPLETIONS, "max_output_tokens", json!(5), "max_tokens"),
        (RESPONSES, "max_tokens", json!(5), "max_output_tokens"),
        (RESPONSES, "response_format", json!({"type": "json_object"}), "text.format"),
        (RESPONSES, "reasoning_effort", json!("low"), "reasoning.effort"),
        (MESSAGES, "stop", json!(["x"]), "stop_sequences"),
        (MESSAGES, "response_format", json!({"type": "json_object"}), "output_config.format"),
        (MESSAGES, "top_logprobs", json!(3), "top_logprobs"),
    ] {
        is_refused(&server, path, field, &value);
        let text = ask(&server, path, field, &value).text().to_owned();
        assert!(text.contains(right), "{path} {field}: {text}");
    }
}

#[test]
fn temperatures_are_those_of_the_dialect() {
    let server = Setup::default().echo();
    for path in ALL {
        let most = if path == MESSAGES { 1.0 } else { 2.0 };
        for fine in [0.0, 0.7, most] {
            let response = ask(&server, path, "temperature", &json!(fine));
            assert_eq!(response.status, 200, "{path} {fine}: {}", response.text());
        }
        for wrong in [-0.1, most + 0.1, 100.0] {
            is_refused(&server, path, "temperature", &json!(wrong));
        }
    }
}

#[test]
fn what_asks_for_nothing_is_fine() {
    let server = Setup::default().echo();
    for path in ALL {
        for (field, value) in [
            ("n_predict", json!(-1)),
            ("repeat_penalty", json!(1.0)),
            ("mirostat", json!(0)),
            ("skip_special_tokens", json!(true)),
            ("include_stop_str_in_output", json!(false)),
            ("options", json!({})),
            ("grammar", json!("")),
            ("keep_alive", json!("5m")),
            ("user", json!("somebody")),
            ("chat_template", json!(null)),
        ] {
            let response = ask(&server, path, field, &value);
            assert_eq!(response.status, 200, "{path} {field} = {value}: {}", response.text());
        }
    }
}

#[test]
fn a_schema_beside_json_object_is_enforced() {
    let server = Setup::default().echo();
    let schema = json!({"type": "object", "properties": {"kind": {"enum": ["cat"]}}, "required": ["kind"], "additionalProperties": false});
    for format in [
        json!({"type": "json_object", "schema": schema}),
        json!({"type": "json_object", "json_schema": {"schema": schema}}),
        json!({"type": "json_schema", "schema": schema}),
    ] {
        let more = json!({"response_format": format, "max_tokens": 40});
        let response = chat(server.address, "<script>{\"any\": 1}<go>", more);
        let text =
            response.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        let pet: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{format}: {error}: {text}"));
        assert_eq!(pet, json!({"kind": "cat"}), "{format}");
    }
    let wrong = json!({"response_format": {"type": "json_object", "schema": "pet"}});
    let refused = chat(server.address, "x", wrong);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("response_format.schema")));
}

#[test]
fn contexts_and_probes_refuse_what_they_would_drop() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let messages = json!([{"role": "user", "content": "x"}]);
    for (method, path, field, value) in [
        ("PUT", "/v1/contexts/rules", "chat_template_kwargs", json!({"a": 1})),
        ("PUT", "/v1/contexts/rules", "chat_template", json!("x")),
        ("PUT", "/v1/contexts/rules", "ttl", json!(5)),
        ("PUT", "/v1/contexts/rules", "input", json!("x")),
        ("POST", "/v1/cache/probe", "chat_template", json!("x")),
        ("POST", "/v1/messages/count_tokens", "chat_template", json!("x")),
        ("POST", "/v1/messages/count_tokens", "input", json!("x")),
    ] {
        let mut body = json!({"messages": messages});
        body[field] = value;
        let response = receive(send(server.address, method, path, &[], body.to_string().as_bytes()));
        assert!(
            response.status == 400 && response.text().contains(field),
            "{path} {field}: {}",
            response.text()
        );
    }
}
