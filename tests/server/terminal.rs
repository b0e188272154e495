//! What people see: the log, refusals of flags, tables, and programs that end with those that started them.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, greedy};

fn prefixd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prefixd")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// No line is longer than a terminal, nothing is coloured, and no name of a type is told.
fn is_plain(text: &str) {
    for word in ["\u{1b}", "Some(", "None)", "usize", "u64", "anyhow", "::"] {
        assert!(!text.contains(word), "{word:?} is in {text}");
    }
}

#[test]
fn the_log_has_a_line_for_each_request_and_nothing_of_frameworks() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prefixd"))
        .args(["serve", "--port", "0", "--cache-dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log_file = child.stderr.take().unwrap();
    let server = Server::of(child);
    for _ in 0..2 {
        server.chat(&greedy(&[json!({"role": "user", "content": "Hello"})], 2));
    }
    server.get("/v1/models");
    server.stop();
    let mut log = String::new();
    log_file.read_to_string(&mut log).unwrap();
    is_plain(&log.replace("::1", ""));
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("/v1/chat/completions")).count(), 2, "{log}");
    assert!(lines.len() <= 5, "three requests and the end: {log}");
    assert!(!log.contains("worker"), "{log}");
}

#[test]
fn flags_that_cannot_be_meant_are_refused_by_name() {
    for (arguments, words) in [
        (&["serve", "--ram-budget", "10"][..], &["cache.ram_budget", "`10` has no unit", "10GB"][..]),
        (&["serve", "--disk-budget", "5000"], &["cache.disk_budget", "has no unit"]),
        (&["serve", "--log-level", "verbose"], &["log.level", "`verbose`", "debug"]),
        (&["serve", "--log-level", "info,prefixd"], &["log.level", "`prefixd`"]),
        (&["serve", "--port", "70000"], &["70000", "--port"]),
        (&["cache", "gc", "--budget", "10"], &["10", "--budget", "no unit"]),
    ] {
        let output = prefixd(arguments);
        let text = shown(&output);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
        is_plain(&text);
    }
}

#[test]
fn help_has_groups_and_defaults() {
    let text = shown(&prefixd(&["serve", "--help"]));
    for word in ["Server:", "Cache:", "Computing:", "[default: 8000]", "[default: 20%]", "[default: k8v4]"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    is_plain(&text);
}

#[test]
fn tables_fit_a_terminal_and_a_store_is_not_exported_into_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let words = "The code of the depot is 4417. ".repeat(60);
    server.chat(&greedy(&[json!({"role": "user", "content": words})], 2));
    server.stop();
    let store = ["--cache-dir", dir.path().to_str().unwrap()];
    for command in ["ls", "stat", "verify"] {
        let output = prefixd(&[&["cache", command][..], &store].concat());
        let text = shown(&output);
        assert!(output.status.success(), "{text}");
        is_plain(&text);
        for line in text.lines().filter(|line| !line.contains(store[1])) {
            assert!(line.chars().count() <= 80, "{line:?} in {text}");
        }
        assert!(text.lines().filter(|line| line.contains('─')).count() <= 2, "{text}");
    }
    let output = prefixd(&[&["cache", "export", store[1]][..], &store].concat());
    assert!(!output.status.success());
    assert!(shown(&output).contains("is the directory of the store that is exported"), "{}", shown(&output));
}

#[test]
fn a_bench_says_how_many_requests_failed_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let output = prefixd(&[
        "bench",
        "chat",
        "--url",
        &server.url,
        "--context",
        "200000",
        "--repeats",
        "1",
        "--turns",
        "2",
        "--tokens-per-word",
        "1.3",
    ]);
    let text = shown(&output);
    assert!(!output.status.success());
    let told: Vec<&str> = text.lines().filter(|line| line.contains("requests failed")).collect();
    assert_eq!(told.len(), 2, "{text}");
    assert!(
        told.iter()
            .any(|line| line
                .contains("1 of 2 requests failed (server, status 400): the server answered 400: ")),
        "{told:?}"
    );
    assert!(told.iter().all(|line| !line.contains('{')), "{told:?}");
    for line in text.lines().filter(|line| !line.contains("requests failed")) {
        assert!(line.chars().count() <= 80, "{line:?} in {text}");
    }
    server.stop();
}

#[test]
fn a_server_that_a_command_started_ends_with_it() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let mut eval = Command::new(env!("CARGO_BIN_EXE_prefixd"))
            .arg("eval")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", eval.id());
        let begun = Instant::now();
        let server = loop {
            let found = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(child) = found.split_whitespace().next() {
                break format!("/proc/{child}/cmdline");
            }
            assert!(begun.elapsed() < Duration::from_mins(2), "it starts no server");
            std::thread::sleep(Duration::from_millis(20));
        };
        // In the midst of loading, or of answers.
        std::thread::sleep(Duration::from_millis(700));
        rustix::process::kill_process(rustix::process::Pid::from_child(&eval), signal).unwrap();
        eval.wait().unwrap();
        let begun = Instant::now();
        // A process that has ended and waits to be reaped has no command line.
        while std::fs::read_to_string(&server).is_ok_and(|line| line.contains("prefixd")) {
            assert!(begun.elapsed() < Duration::from_mins(2), "the server goes on");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
