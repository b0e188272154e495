//! Real clients against the real server: the fast selection of `tests/clients/run.py`, which installs them by name and
//! version, judges their answers and what they found in the cache, and ends whatever takes too long.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_openai_and_anthropic_clients_get_right_answers_and_pay_for_new_tokens_alone() {
    let output = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run.py"))
        .args(["--fast", "--server", env!("CARGO_BIN_EXE_prefixd")])
        .arg("--cache")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients"))
        .stdin(Stdio::null())
        .output()
        .expect("python3 with pip is needed (see README)");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("2 passed\n"), "{table}");
}
