//! Real processes where the system gives little: each serves, from memory where it must and saying so, or refuses at once.

use std::io::Read;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Server, greedy, text};

/// Longer than a start takes on a busy machine; a hang is longer than any.
const PATIENCE: Duration = Duration::from_mins(4);

/// `prefixd serve` on a free port, in a shell that set limits first.
fn shell(limits: &str, home: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{limits} exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_prefixd"))
        .args(["serve", "--port", "0", "--log-level", "warn"])
        .args(flags)
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a process that must end says.
fn refusal(mut command: Command) -> String {
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// A server that must come up.
struct Started {
    server: Server,
    log: ChildStderr,
}

impl Started {
    fn new(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = child.stderr.take().unwrap();
        Self { server: Server::of(child), log }
    }

    fn answers(&self) {
        let user = serde_json::json!({"role": "user", "content": "The code of the depot is 4417. What is the code of the depot?"});
        let response = self.server.chat(&greedy(&[user], 8));
        assert!(!text(&response).is_empty());
    }

    fn degraded(&self) -> String {
        let health: Value = self.server.get("/health");
        assert_eq!(health["status"], "ready");
        health["cache"]["degraded"].as_str().unwrap_or_default().to_owned()
    }

    /// Ends it; everything it said.
    fn stop(mut self) -> String {
        self.server.stop();
        let mut said = String::new();
        self.log.read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{said}");
        said
    }
}

#[test]
fn too_little_of_what_a_process_may_have_is_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let unlimited = Command::new("sh").args(["-c", "ulimit -Hv"]).output().unwrap();
    assert_eq!(unlimited.stdout, b"unlimited\n", "this test needs to be without limits itself");
    for (limits, words) in [("ulimit -v 300000;", "ulimit -v"), ("ulimit -n 20;", "ulimit -n")] {
        let said = refusal(shell(limits, home.path(), &[]));
        assert!(said.contains(words) && said.contains("expected at least"), "{said}");
    }
}

#[test]
fn a_soft_limit_of_open_files_is_raised() {
    let home = tempfile::tempdir().unwrap();
    let started = Started::new(shell("ulimit -S -n 20;", home.path(), &[]));
    started.answers();
    assert_eq!(started.degraded(), "");
    started.stop();
}

#[test]
fn files_that_may_not_grow_keep_blocks_in_memory_and_never_end_the_process() {
    let home = tempfile::tempdir().unwrap();
    let model = tempfile::tempdir().unwrap();
    crate::support::copy_model(model.path());
    let flags = [model.path().to_str().unwrap()];
    let started = Started::new(shell("ulimit -f 64;", home.path(), &flags));
    for _ in 0..3 {
        started.answers();
    }
    started.stop();
    // The embedded model cannot be written anywhere then.
    let said = refusal(shell("ulimit -f 64;", home.path(), &[]));
    assert!(said.contains("unpacked"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_used_leaves_a_server_in_memory_that_says_so() {
    let home = tempfile::tempdir().unwrap();
    // Not writable for anyone, root included, and on a file system that has no size.
    for dir in ["/proc/prefixd", "/sys/prefixd"] {
        let started = Started::new(shell("", home.path(), &["--cache-dir", dir]));
        started.answers();
        let degraded = started.degraded();
        assert!(degraded.contains(dir), "{degraded}");
        let said = started.stop();
        assert!(said.contains("in memory only") && said.contains(dir), "{said}");
        // With a size of its own, the file system's answer is told.
        let started = Started::new(shell("", home.path(), &["--cache-dir", dir, "--disk-budget", "1GB"]));
        assert!(started.degraded().contains("creating"), "{}", started.degraded());
        started.stop();
    }
    // A home that nothing can be written to.
    let started = Started::new(shell("", Path::new("/proc"), &[]));
    started.answers();
    assert!(!started.degraded().is_empty());
    started.stop();
}

#[test]
fn a_directory_that_vanishes_is_told_in_the_log() {
    let (home, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = dir.path().join("cache");
    let started = Started::new(shell("", home.path(), &["--cache-dir", cache.to_str().unwrap()]));
    started.answers();
    std::fs::remove_dir_all(&cache).unwrap();
    let begun = Instant::now();
    while started.degraded().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        // Tokens of their own, so that there is a block to write.
        let words = format!("{} ", begun.elapsed().as_nanos()).repeat(60);
        started.server.chat(&greedy(&[serde_json::json!({"role": "user", "content": words})], 1));
    }
    // The watch looks once a second.
    std::thread::sleep(Duration::from_millis(2500));
    let said = started.stop();
    assert!(said.contains("disk tier fails"), "{said}");
}

#[test]
fn a_directory_in_use_and_a_file_in_its_place_are_refused_before_the_model_is_loaded() {
    let (home, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path(), &[]);
    // A model that does not load: the directory is looked at first.
    let model = tempfile::tempdir().unwrap();
    std::fs::write(model.path().join("config.json"), "{}").unwrap();
    let flags = |cache: &Path| [model.path().to_owned(), "--cache-dir".into(), cache.to_owned()];
    let run = |cache: &Path| {
        let flags = flags(cache);
        let flags: Vec<&str> = flags.iter().map(|flag| flag.to_str().unwrap()).collect();
        refusal(shell("", home.path(), &flags))
    };
    assert!(run(dir.path()).contains("in use by another process"));
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(run(&file).contains("expected a directory"));
    server.stop();
    assert!(!run(dir.path()).contains("in use"));
}
