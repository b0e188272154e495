//! Real clients against the real server: the fast selection of `tests/clients/run.py`, which installs them by name and
//! version, judges their answers and what they found in the cache, and ends whatever takes too long.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::support::Server;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the runner installs packages, a folder for each client.
fn packages() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients")
}

/// The fast selection, played once.
fn fast() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        Command::new("python3")
            .arg(root().join("tests/clients/run.py"))
            .args(["--fast", "--server", env!("CARGO_BIN_EXE_prefixd"), "--cache"])
            .arg(packages())
            .stdin(Stdio::null())
            .output()
            .expect("python3 with pip is needed (see README)")
    })
}

#[test]
fn the_openai_and_anthropic_clients_get_right_answers_and_pay_for_new_tokens_alone() {
    let output = fast();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("2 passed\n"), "{table}");
}

/// The example fails by itself if a turn computes more than what is new in it.
#[test]
fn agents_with_contexts_of_their_own_pay_for_their_new_tokens_alone() {
    fast();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let output = Command::new("python3")
        .arg(root().join("examples/agents.py"))
        .arg(&server.url)
        .env("PYTHONPATH", packages().join("openai"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 review"));
}
