//! The tokenizer: one that dropped the mark for a space was served, and every answer was one long word.
//!
//! Protection: the round trip at start-up ([`prefixd::prompt::Tokenizer::check`]). Shown by taking
//! `text.tokenizer.check()?` out of `app.rs`: the server then starts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::support::clerk;

#[test]
fn a_tokenizer_that_drops_spaces_is_refused_at_the_start_with_that_reason() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(clerk().join(name), dir.path().join(name)).unwrap();
    }
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(clerk().join("tokenizer.json")).unwrap()).unwrap();
    tokenizer["normalizer"] =
        serde_json::json!({"type": "Replace", "pattern": {"String": " "}, "content": ""});
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_prefixd"))
        .args(["serve", "--port", "0", "--cache-dir"])
        .arg(cache.path())
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(serve.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .any(|line| line.starts_with("prefixd is ready"));
    serve.kill().ok();
    let output = serve.wait_with_output().unwrap();
    assert!(!ready, "it must not serve");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("space"), "{said}");
    let doctor = Command::new(env!("CARGO_BIN_EXE_prefixd")).arg("doctor").arg(dir.path()).output().unwrap();
    assert_eq!(doctor.status.code(), Some(1), "{}", String::from_utf8_lossy(&doctor.stdout));
}
