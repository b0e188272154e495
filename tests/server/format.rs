//! Enforced formats on the embedded model.

use serde_json::{Value, json};

use crate::support::{Server, cached_tokens, copy_model, greedy, text};

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

/// Shows calls as Gemma's templates do, in the embedded model's turns.
const GEMMA: &str = "\
{{ bos_token }}<|system|># Tools{% for tool in tools %}\n{{ tool.function | tojson }}{% endfor %}<|end|>\n
{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}
{%- for call in message.tool_calls %}<|tool_call>call:{{ call.function.name }}{
{%- for key, value in call.function.arguments | dictsort %}{{ ',' if not loop.first }}{{ key }}:{% if value is string %}<|\"|>{{ value }}<|\"|>{% elif value is sequence %}[<|\"|>{{ value | join('<|\"|>,<|\"|>') }}<|\"|>]{% else %}{{ value }}{% endif %}{% endfor %}
{{- '}' }}<tool_call|>{% endfor %}<|end|>
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}";

#[test]
fn the_model_calls_in_the_syntax_of_its_template_and_goes_on_from_its_call() {
    let (model, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_model(model.path());
    std::fs::write(model.path().join("chat_template.jinja"), GEMMA).unwrap();
    let server = Server::start(dir.path(), &[model.path().to_str().unwrap()]);
    let parameters = json!({"type": "object", "properties": {"place": {"type": "string", "maxLength": 300},
        "Code": {"type": "integer", "minimum": 1000, "maximum": 9999}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 2}},
        "required": ["place", "Code", "tags"], "additionalProperties": false});
    let tools = json!([{"type": "function", "function": {"name": "look_up", "parameters": parameters}}]);
    for seed in 0..4 {
        let ask = |messages: Value| {
            let mut body = json!({"messages": messages, "tools": tools, "max_tokens": 600, "temperature": 1.5, "seed": seed});
            if messages.as_array().unwrap().len() == 1 {
                body["tool_choice"] = "required".into();
                body["parallel_tool_calls"] = false.into();
            }
            server.chat(&body)
        };
        let question = json!({"role": "user", "content": format!("{} What is the code of depot {seed}?", "Well. ".repeat(400))});
        let response = ask(json!([question]));
        let message = &response["choices"][0]["message"];
        assert_eq!(response["choices"][0]["finish_reason"], "tool_calls", "{response}");
        let call = &message["tool_calls"][0]["function"];
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert!(call["name"] == "look_up" && arguments["place"].is_string(), "{call}");
        assert!((1000..=9999).contains(&arguments["Code"].as_i64().unwrap()), "{call}");
        assert!(arguments["tags"].as_array().unwrap().iter().all(|tag| tag == "a" || tag == "b"), "{call}");
        // The next turn finds the call in the cache, token by token as it was generated.
        let next = ask(json!([question, message, {"role": "user", "content": "Thanks."}]));
        let told = |usage: &str| response["usage"][usage].as_u64().unwrap();
        let (asked, cached) = (told("prompt_tokens") + told("completion_tokens"), cached_tokens(&next));
        assert!(cached <= asked && cached + 64 > asked, "{cached} of {asked} tokens");
    }
}
