//! Requests that share a long prefix, sent together and staggered, answer as they do alone.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Server, cached_tokens, greedy, text};
use serde_json::{Value, json};

/// Rounds of each arrangement; every round has a prompt of its own.
const ROUNDS: usize = 13;

/// How two or more requests meet.
#[derive(Clone, Copy, Debug)]
struct Arrangement {
    rows: usize,
    stagger: Duration,
}

const ARRANGEMENTS: [Arrangement; 4] = [
    Arrangement { rows: 2, stagger: Duration::ZERO },
    Arrangement { rows: 2, stagger: Duration::from_millis(100) },
    Arrangement { rows: 4, stagger: Duration::ZERO },
    Arrangement { rows: 4, stagger: Duration::from_millis(100) },
];

fn demo() -> Value {
    serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap()
}

/// Bodies whose prompts share about 2,000 tokens that no other edition has.
fn bodies(demo: &Value, edition: usize, rows: usize) -> Vec<Value> {
    let handbook = demo["messages"][0]["content"].as_str().unwrap();
    let half = handbook.char_indices().map(|(at, _)| at).nth(handbook.chars().count() / 2).unwrap();
    let system = format!("Edition {edition}.\n{}", &handbook[..half]);
    let turns = demo["turns"].as_array().unwrap();
    (0..rows)
        .map(|row| {
            let question = &turns[row % turns.len()]["user"];
            greedy(
                &[json!({"role": "system", "content": system}), json!({"role": "user", "content": question})],
                32,
            )
        })
        .collect()
}

/// Sends all bodies, each `stagger` after the one before, and returns the responses in order.
fn send(server: &Server, bodies: &[Value], stagger: Duration) -> Vec<Value> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = bodies
            .iter()
            .map(|body| {
                let thread = scope.spawn(move || server.chat(body));
                if !stagger.is_zero() {
                    // The stagger is the condition under test, not a wait for a result.
                    let (_never, timer) = mpsc::channel::<()>();
                    timer.recv_timeout(stagger).ok();
                }
                thread
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn shared_prefixes_answer_together_as_they_do_alone() {
    let demo = demo();
    let (alone_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = Server::start(alone_dir.path(), &["--max-batch", "1"]);
    let together = Server::start(dir.path(), &["--max-batch", "4"]);
    for round in 0..ROUNDS {
        for (number, arrangement) in ARRANGEMENTS.iter().enumerate() {
            let edition = round * ARRANGEMENTS.len() + number;
            let bodies = bodies(&demo, edition, arrangement.rows);
            let expected: Vec<Value> = bodies.iter().map(|body| alone.chat(body)).collect();
            for temperature in ["cold", "warm"] {
                let found = send(&together, &bodies, arrangement.stagger);
                for (expected, found) in expected.iter().zip(&found) {
                    let context = format!("edition {edition}, {arrangement:?}, {temperature}");
                    assert!(!text(found).is_empty(), "{context}");
                    assert_eq!(text(found), text(expected), "{context}");
                    assert_eq!(
                        found["choices"][0]["finish_reason"], expected["choices"][0]["finish_reason"],
                        "{context}"
                    );
                    if temperature == "warm" {
                        assert!(cached_tokens(found) >= 1024, "{context}: {}", found["usage"]);
                    }
                }
            }
        }
    }
}
