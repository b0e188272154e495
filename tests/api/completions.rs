//! `POST /v1/completions`.

use serde_json::{Value, json};

use super::client::{Response, post};
use super::server::{Server, Setup};

fn complete(server: &Server, body: Value) -> Response {
    post(server.address, "/v1/completions", &body)
}

#[test]
fn a_text_is_continued_and_keeps_its_leading_space() {
    let server = Setup::default().echo();
    let body = complete(&server, json!({"prompt": "<script> then<go>", "temperature": 0})).json();
    assert_eq!(body["object"], "text_completion");
    assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "text": " then", "logprobs": null, "finish_reason": "stop"}])
    );
    // bos is added once, whether the text brings it or not.
    assert_eq!(body["usage"]["prompt_tokens"], 1 + 1 + 5 + 1);
    let with_bos = complete(&server, json!({"prompt": "<s><script> then<go>", "temperature": 0})).json();
    assert_eq!(with_bos["usage"], body["usage"]);
}

#[test]
fn prompts_may_be_texts_or_tokens_and_several() {
    let server = Setup::default().echo();
    let texts = |body: &Value| -> Vec<String> {
        body["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let many =
        complete(&server, json!({"prompt": ["<script>a<go>", "<script>bb<go>"], "n": 2, "temperature": 0}))
            .json();
    assert_eq!(texts(&many), ["a", "a", "bb", "bb"]);
    assert_eq!(many["usage"]["prompt_tokens"], 4 + 5);
    assert_eq!(texts(&complete(&server, json!({"prompt": [261, 97, 262], "temperature": 0})).json()), ["a"]);
    let lists = json!({"prompt": [[261, 97, 262], [261, 98, 262]], "temperature": 0});
    assert_eq!(texts(&complete(&server, lists).json()), ["a", "b"]);
}

#[test]
fn a_stream_says_the_same_as_the_whole() {
    let server = Setup::default().echo();
    let ask = |stream: bool| {
        complete(
            &server,
            json!({"prompt": ["<script>x 🦀<go>", "<script>é<go>"], "temperature": 0, "stream": stream,
        "logprobs": 1, "stream_options": {"include_usage": true}}),
        )
    };
    let (whole, chunks) = (ask(false).json(), ask(true).chunks());
    for index in 0..2 {
        let of = |field: &str| {
            chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap().clone())
                .filter(|choice| choice["index"] == index)
                .map(|choice| choice[field].clone())
                .collect::<Vec<Value>>()
        };
        let text: String = of("text").iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        assert_eq!(text, whole["choices"][index]["text"].as_str().unwrap());
        let tokens: Vec<Value> = of("logprobs")
            .iter()
            .flat_map(|logprobs| logprobs["tokens"].as_array().cloned().unwrap_or_default())
            .collect();
        assert_eq!(json!(tokens), whole["choices"][index]["logprobs"]["tokens"]);
    }
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
}

#[test]
fn log_probabilities_have_offsets_and_rivals() {
    let server = Setup::default().echo();
    let body = complete(&server, json!({"prompt": "<script>éa<go>", "logprobs": 2, "temperature": 0})).json();
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["text_offset"], json!([0, 0, 1]));
    assert_eq!(logprobs["tokens"][2], "a");
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 3);
    assert!(logprobs["top_logprobs"][2]["a"].is_number());
}

#[test]
fn a_model_without_a_template_still_completes() {
    let server = Setup { template: None, ..Setup::default() }.echo();
    assert_eq!(complete(&server, json!({"prompt": "<script>a<go>"})).status, 200);
    let chat = post(
        server.address,
        "/v1/chat/completions",
        &json!({"messages": [{"role": "user", "content": "x"}]}),
    );
    assert_eq!(chat.status, 400);
    assert!(chat.json()["error"]["message"].as_str().unwrap().contains("/v1/completions"));
}
