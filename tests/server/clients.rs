//! Real clients, installed by name and version into the target directory, against the real server.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Server;
use serde_json::Value;

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

#[test]
fn the_openai_client_streams_a_chat_whose_turns_find_the_blocks_of_the_last() {
    let packages = python_package("openai==3.52.0");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3")
        .arg(root.join("tests/clients/openai_chat.py"))
        .arg(&server.url)
        .arg(root.join("models/clerk/demo.json"))
        .env("PYTHONPATH", &packages)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let turns: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(turns.len() >= 3, "the conversation has {} turns", turns.len());
    let mut known = 0;
    for turn in &turns {
        assert_eq!(turn["text"], turn["expected"], "{turn}");
        assert_eq!(turn["finish_reason"], "stop", "{turn}");
        let number = |field: &str| turn[field].as_u64().unwrap();
        assert!(
            number("cached_tokens") >= known,
            "{turn}: the turn before left {known} tokens in whole blocks"
        );
        known = (number("prompt_tokens") + number("completion_tokens") - 1) / 256 * 256;
    }
    assert!(known > 3000);
}
