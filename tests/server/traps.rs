//! Two ways to serve somebody else's KV, on the real model: weights that changed where they lie, and conversations that
//! share all but a secret.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Server, cached_tokens, copy_model, greedy, text};

fn demo() -> Value {
    serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap()
}

/// Flips the lowest bits of some weights, in place: same length, same time of change, same header.
fn touch_weights(dir: &Path) {
    let path = dir.join("model.safetensors");
    let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let middle = data + (bytes.len() - data) / 2;
    for at in (middle..middle + 4096).step_by(2) {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
}

#[test]
fn weights_that_changed_at_their_path_never_reuse_what_the_old_ones_computed() {
    let (model, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_model(model.path());
    let mut messages = demo()["messages"].as_array().unwrap().clone();
    messages.push(json!({"role": "user", "content": demo()["turns"][0]["user"]}));
    let (body, model_dir) = (greedy(&messages, 32), model.path().to_str().unwrap());
    let ask = || {
        let server = Server::start(dir.path(), &[model_dir]);
        let response = server.chat(&body);
        let stats = server.get("/v1/cache/stats");
        server.stop();
        (response, stats)
    };
    let (cold, _) = ask();
    let (warm, _) = ask();
    assert!(cached_tokens(&cold) == 0 && cached_tokens(&warm) > 3000, "{}", warm["usage"]);
    touch_weights(model.path());
    let (changed, stats) = ask();
    assert_eq!(cached_tokens(&changed), 0, "{}", changed["usage"]);
    assert_eq!(stats["misses"]["other_fingerprint"], 1, "{stats}");
    // What the changed weights compute is theirs, and equals what they compute without any cache.
    let server = Server::start(dir.path(), &[model_dir, "--no-cache"]);
    assert_eq!(text(&server.chat(&body)), text(&changed));
    server.stop();
    let (again, _) = ask();
    assert!(cached_tokens(&again) > 3000 && text(&again) == text(&changed), "{}", again["usage"]);
    assert_ne!(changed["system_fingerprint"], cold["system_fingerprint"]);
}

/// A conversation whose system text is the handbook and a code that nobody else has.
struct Secretive {
    code: String,
    messages: Vec<Value>,
}

impl Secretive {
    fn new(code: usize) -> Self {
        let code = format!("{code:04}");
        let handbook = demo()["messages"][0]["content"].as_str().unwrap().to_owned();
        let system = format!("{handbook}\nThe door code of the harbour office is {code}.");
        Self { code, messages: vec![json!({"role": "system", "content": system})] }
    }

    fn turn(&mut self, server: &Server, question: &str) -> Value {
        self.messages.push(json!({"role": "user", "content": question}));
        let mut body = greedy(&self.messages, 24);
        body["session_id"] = json!(self.code);
        let response = server.chat(&body);
        self.messages.push(response["choices"][0]["message"].clone());
        response
    }
}

#[test]
fn one_prefix_with_different_secrets_never_mixes_however_conversations_interleave() {
    const QUESTIONS: [&str; 3] = [
        "What is the door code of the harbour office?",
        "Say it again: what is the door code of the harbour office?",
        "What is the door code of the harbour office?",
    ];
    let codes = [4071, 4072, 9313, 5826];
    let (dir, plain_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain = Server::start(plain_dir.path(), &["--no-cache"]);
    let expected: Vec<Vec<String>> = codes
        .iter()
        .map(|code| {
            let mut alone = Secretive::new(*code);
            QUESTIONS.iter().map(|question| text(&alone.turn(&plain, question)).to_owned()).collect()
        })
        .collect();
    plain.stop();
    let server = Server::start(dir.path(), &["--max-batch", "4"]);
    let mut all: Vec<Secretive> = codes.iter().map(|code| Secretive::new(*code)).collect();
    for (round, question) in QUESTIONS.iter().enumerate() {
        let responses: Vec<Value> = std::thread::scope(|scope| {
            let turns: Vec<_> =
                all.iter_mut().map(|one| scope.spawn(|| one.turn(&server, question))).collect();
            turns.into_iter().map(|turn| turn.join().unwrap()).collect()
        });
        for (at, response) in responses.iter().enumerate() {
            assert_eq!(text(response), expected[at][round], "{} in round {round}", all[at].code);
            assert!(round == 0 || cached_tokens(response) > 3000, "{}", response["usage"]);
            for other in all.iter().filter(|other| other.code != all[at].code) {
                assert!(!text(response).contains(&other.code), "{} tells {}", all[at].code, other.code);
            }
        }
    }
    // The model does read its own secret: else the test would say nothing.
    let told = all.iter().enumerate().filter(|(at, one)| expected[*at][0].contains(&one.code)).count();
    assert!(told >= 3, "{expected:?}");
}
