//! Agents on a model with recurrent layers, over HTTP: random weights, the embedded model's tokenizer and template.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::support::{Server, cached_tokens, copy_model};

/// Tokens of the template's beginning of an answer, at most.
const OPENING_TOKENS: u64 = 8;

/// The golden Qwen3.5 with an embedding of the embedded model's vocabulary.
pub fn make_model(dir: &Path) {
    copy_model(dir);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/qwen3_5");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden.join("config.json")).unwrap()).unwrap();
    let vocab = 4_096;
    for (key, value) in [("vocab_size", json!(vocab)), ("max_position_embeddings", json!(8_192))] {
        config[key] = value.clone();
        config["text_config"][key] = value;
    }
    config["eos_token_id"] = json!(7);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(golden.join("model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let name = "model.language_model.embed_tokens.weight";
    let embedding = &weights.tensor(name).unwrap();
    let [rows, width] = embedding.shape()[..] else { panic!("{:?}", embedding.shape()) };
    // Each further row is one of the first with some signs turned.
    let wide: Vec<u8> = (0..vocab)
        .flat_map(|token| {
            let row = token % rows * width * 2;
            let turned = |at: usize| token / rows * (at / 2 + 7) % 5 == 4 && at % 2 == 1;
            let value = move |at: usize| embedding.data()[row + at] ^ if turned(at) { 0x80 } else { 0 };
            (0..width * 2).map(value).collect::<Vec<u8>>()
        })
        .collect();
    let others = weights.tensors().into_iter().filter(|(other, _)| other != name);
    let wide = TensorView::new(Dtype::BF16, vec![vocab, width], &wide).unwrap();
    let all = others.chain([(name.to_owned(), wide)]);
    safetensors::serialize_to_file(all, None, &dir.join("model.safetensors")).unwrap();
}

pub struct Agent {
    messages: Vec<Value>,
    /// Tokens of the last prompt.
    pub prompt_tokens: u64,
}

impl Agent {
    pub fn new(name: usize) -> Self {
        let rules: Vec<String> = (0..40).map(|at| format!("Rule {at}: look before you answer.")).collect();
        let task = format!("You are number {name}. Find the key of room {}.", 100 + name);
        let messages = vec![
            json!({"role": "system", "content": rules.join(" ")}),
            json!({"role": "user", "content": task}),
        ];
        Self { messages, prompt_tokens: 0 }
    }

    pub fn body(&self) -> Value {
        let tool = json!({"type": "function", "function": {"name": "look", "description": "Look into a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}});
        json!({"messages": self.messages, "tools": [tool], "temperature": 0, "max_tokens": 6,
            "tool_choice": "none", "prefixd_usage": true})
    }

    /// Asks, and goes on as an agent does: with a call and its result, at times with a word of the user.
    pub fn turn(&mut self, server: &Server, turn: usize) -> Value {
        let response = server.chat(&self.body());
        self.prompt_tokens = response["usage"]["prompt_tokens"].as_u64().unwrap();
        let id = format!("call{turn}");
        let arguments = json!({"place": format!("drawer {turn}")}).to_string();
        self.messages.extend([
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": id, "type": "function",
                "function": {"name": "look", "arguments": arguments}}]}),
            json!({"role": "tool", "tool_call_id": id, "content": format!("Drawer {turn} holds {} pens.", turn * 3)}),
        ]);
        if turn % 4 == 3 {
            self.messages.extend([
                json!({"role": "assistant", "content": "Nothing yet."}),
                json!({"role": "user", "content": format!("Go on behind drawer {turn}.")}),
            ]);
        }
        response
    }
}

/// What was known is at least the prompt of the turn before, but for the beginning of its answer.
fn check_known(response: &Value, before: u64, what: &str) {
    let known = cached_tokens(response);
    assert!(known + OPENING_TOKENS >= before, "{what}: {known} of {before} known: {}", response["usage"]);
}

#[test]
fn agents_compute_their_new_tokens_only_together_and_after_a_restart() {
    let (model, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_model(model.path());
    let flags = ["--model", model.path().to_str().unwrap()];
    let mut server = Server::start(cache.path(), &flags);
    let mut agents: Vec<Agent> = (0..3).map(Agent::new).collect();
    let mut told = Vec::new();
    let mut system_tokens = 0;
    for turn in 0..12 {
        if turn == 6 {
            server.stop();
            server = Server::start(cache.path(), &flags);
        }
        for (name, agent) in agents.iter_mut().enumerate() {
            let (before, body) = (agent.prompt_tokens, agent.body());
            let response = agent.turn(&server, turn);
            check_known(&response, before, &format!("agent {name}, turn {turn}"));
            match (turn, name) {
                (0, 0) => assert_eq!(cached_tokens(&response), 0),
                (0, 1) => system_tokens = cached_tokens(&response),
                (0, _) => {
                    assert_eq!(cached_tokens(&response), system_tokens, "tools and system text are shared");
                }
                (6, 0) => {
                    let usage = &response["usage"]["prefixd"];
                    assert!(usage["disk_tokens"].as_u64() > usage["resident_tokens"].as_u64(), "{usage}");
                }
                _ => {}
            }
            told.push((body, response));
        }
    }
    assert!(system_tokens > 400, "{system_tokens}");
    assert!(server.metric("prefixd_snapshots{tier=\"resident\"}") > 3.0);
    // The last word of the user is edited: all before it is known.
    let agent = &mut agents[0];
    let edited = agent.messages.iter().rposition(|message| message["role"] == "user").unwrap();
    let before = Agent { messages: agent.messages[..edited].to_vec(), prompt_tokens: 0 };
    let least = cached_tokens(&server.chat(&before.body())).saturating_sub(OPENING_TOKENS);
    agent.messages.truncate(edited);
    agent.messages.push(json!({"role": "user", "content": "Stop looking and say what you know."}));
    let response = server.chat(&agent.body());
    assert!(cached_tokens(&response) >= least, "{least}: {}", response["usage"]);
    server.stop();
    // What a server without a cache says, the same.
    let server = Server::start(cache.path(), &[&flags[..], &["--no-cache"]].concat());
    for (body, response) in told.iter().skip(2).step_by(5) {
        let cold = server.chat(body);
        assert_eq!(cold["choices"], response["choices"]);
        assert_eq!(cached_tokens(&cold), 0);
    }
}

#[test]
fn a_request_that_stores_nothing_reuses_what_is_known() {
    let (model, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_model(model.path());
    let server = Server::start(cache.path(), &["--model", model.path().to_str().unwrap()]);
    let mut agent = Agent::new(1);
    let mut title = agent.body();
    title["prefixd"] = json!({"store": false});
    for _ in 0..2 {
        assert_eq!(cached_tokens(&server.chat(&title)), 0);
    }
    let stats = || {
        // It is answered between two steps of the scheduler: what the last one did is counted.
        server.get("/v1/agents/list");
        server.get("/v1/cache/stats")
    };
    let kept = stats();
    assert_eq!((&kept["resident"]["blocks"], &kept["snapshots"]["taken"]), (&json!(0), &json!(0)));
    agent.turn(&server, 0);
    let before = stats()["snapshots"]["taken"].clone();
    let mut title = agent.body();
    title["prefixd"] = json!({"store": false});
    check_known(&server.chat(&title), agent.prompt_tokens, "a title");
    assert_eq!(stats()["snapshots"]["taken"], before);
}
