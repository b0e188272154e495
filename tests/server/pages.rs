//! Rows that share a prefix hold it once: memory of keys and values while four requests run, against one.

use serde_json::{Value, json};

use crate::support::{Server, cached_tokens};

/// About 16,000 tokens.
fn long_prompt() -> String {
    let demo: Value = serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap();
    let handbook = demo["messages"][0]["content"].as_str().unwrap();
    (0..).map(|edition| format!("Edition {edition}.\n{handbook}\n")).take(4).collect()
}

fn body(prompt: &str, number: usize) -> Value {
    json!({
        "messages": [
            {"role": "system", "content": prompt},
            {"role": "user", "content": format!("Question {number}: who signs the parcels?")},
        ],
        "temperature": 0,
        "max_tokens": 64,
        "ignore_eos": true,
    })
}

/// Runs the requests together. Memory of keys and values while all of them decode, at most, and the responses.
fn run(server: &Server, bodies: &[Value]) -> (u64, Vec<Value>) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(move || server.chat(body))).collect();
        let mut most = 0;
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let memory = server.get("/debug/memory");
            if memory["sequences"]["decoding"].as_u64() == Some(bodies.len() as u64) {
                most = most.max(memory["kv_bytes"].as_u64().unwrap());
            }
        }
        (most, threads.into_iter().map(|thread| thread.join().unwrap()).collect())
    })
}

#[test]
fn four_rows_that_share_a_long_prefix_take_little_more_memory_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-batch", "4"]);
    let prompt = long_prompt();
    server.chat(&body(&prompt, 0));
    let (one, responses) = run(&server, &[body(&prompt, 0)]);
    let tokens = responses[0]["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens >= 15_000, "{tokens}");
    let bodies: Vec<Value> = (1..5).map(|number| body(&prompt, number)).collect();
    let (four, responses) = run(&server, &bodies);
    for response in &responses {
        assert!(cached_tokens(response) + 256 >= tokens, "{}", response["usage"]);
    }
    let ratio = four as f64 / one as f64;
    println!("{tokens} tokens: {one} bytes with one row, {four} with four that share them: {ratio:.2} times");
    assert!(one > 0 && four > 0, "{one} {four}: the rows were never seen together");
    assert!(ratio <= 1.2, "{one} bytes with one row, {four} with four: {ratio:.2} times");
}
