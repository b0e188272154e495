//! Real clients, installed by name and version into the target directory, against the real server.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Server;
use serde_json::{Value, json};

/// Installs a pinned Python package once and returns the folder to import it from.
fn python_package(requirement: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(requirement);
    let done = dir.join(".installed");
    if !done.exists() {
        let status = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-warn-conflicts",
                "--root-user-action=ignore",
                "--upgrade",
                "--target",
            ])
            .arg(&dir)
            .arg(requirement)
            .status()
            .expect("python3 with pip is needed (see README)");
        assert!(status.success(), "pip could not install {requirement}");
        std::fs::write(done, "").unwrap();
    }
    dir
}

/// What a script of `tests/clients` prints for the demo conversation, line by line.
fn lines(requirement: &str, script: &str) -> Vec<Value> {
    let packages = python_package(requirement);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3")
        .arg(root.join("tests/clients").join(script))
        .arg(&server.url)
        .arg(root.join("models/clerk/demo.json"))
        .env("PYTHONPATH", &packages)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every turn says what it should and finds the whole blocks that the turn before it left.
fn check_turns(turns: &[Value], end: &str) {
    assert!(turns.len() >= 3, "the conversation has {} turns", turns.len());
    let mut known = 0;
    for turn in turns {
        assert_eq!(turn["text"], turn["expected"], "{turn}");
        assert_eq!(turn["finish_reason"], end, "{turn}");
        let number = |field: &str| turn[field].as_u64().unwrap();
        assert!(
            number("cached_tokens") >= known,
            "{turn}: the turn before left {known} tokens in whole blocks"
        );
        known = (number("prompt_tokens") + number("completion_tokens") - 1) / 256 * 256;
    }
    assert!(known > 3000);
}

#[test]
fn the_openai_client_streams_a_chat_whose_turns_find_the_blocks_of_the_last() {
    check_turns(&lines("openai==3.52.0", "openai_chat.py"), "stop");
}

/// The example fails by itself if a turn computes more than what is new in it.
#[test]
fn agents_with_contexts_of_their_own_pay_for_their_new_tokens_alone() {
    let packages = python_package("openai==3.52.0");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents.py");
    let output =
        Command::new("python3").arg(example).arg(&server.url).env("PYTHONPATH", &packages).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 review"));
}

#[test]
fn the_anthropic_client_streams_the_same_chat_counts_its_tokens_and_gets_its_call() {
    let lines = lines("anthropic==2.11.0", "anthropic_chat.py");
    let (call, turns) = lines.split_last().unwrap();
    check_turns(turns, "end_turn");
    for turn in turns {
        assert_eq!(turn["counted_tokens"], turn["prompt_tokens"], "{turn}");
    }
    assert_eq!((&call["tool"], &call["finish_reason"]), (&json!("find_code"), &json!("tool_use")), "{call}");
    assert!(call["input"]["door"] == "north" || call["input"]["door"] == "south", "{call}");
    assert_eq!(call["after"], "end_turn", "{call}");
}
