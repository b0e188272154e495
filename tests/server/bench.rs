//! `prefixd bench` as a user runs it: the real program against real servers on the embedded model.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::Server;

/// Runs the bench with small lengths and writes its files into `dir`.
fn bench(dir: &Path, arguments: &[&str]) -> (Output, Value, String) {
    let (json, svg) = (dir.join("run.json"), dir.join("run.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_prefixd"))
        .arg("bench")
        .args(arguments)
        .args(["--max-tokens", "6", "--timeout", "120"])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let shown = || String::from_utf8_lossy(&output.stderr).into_owned();
    let report = std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    let svg = std::fs::read_to_string(&svg).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    (output, serde_json::from_str(&report).unwrap(), svg)
}

fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|node| Some(node.text()?.trim().to_owned())).collect()
}

fn row<'a>(report: &'a Value, scenario: &str, name: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    let found = rows.iter().find(|row| row["scenario"] == scenario && row["row"] == name);
    found.unwrap_or_else(|| panic!("no {scenario} {name} in {rows:?}"))
}

/// The server's template begins every prompt alike: so few tokens may be warm in a prompt that is new.
const TEMPLATE: u64 = 8;

#[test]
fn a_run_on_a_server_of_its_own_shows_what_the_cache_did() {
    let dir = tempfile::tempdir().unwrap();
    let flags =
        ["sweep", "phases", "--contexts", "300", "--context", "300", "--repeats", "1", "--agents", "2"];
    let (output, report, svg) = bench(dir.path(), &[&flags[..], &["--turns", "2"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or_else(|| panic!("no {name} in {row}"));
    let [cold, warm, restored] =
        ["cold 300", "warm 300", "restored 300"].map(|name| row(&report, "sweep", name));
    let prompt = number(cold, "prompt_tokens");
    assert!((250..350).contains(&prompt), "asked for 300 tokens, got {prompt}");
    assert!(number(cold, "cached_tokens") <= TEMPLATE, "{cold}");
    assert_eq!(number(warm, "cached_tokens"), prompt - 1);
    // The last, partial block is not on disk.
    assert!(number(restored, "cached_tokens") >= 256, "{restored}");
    assert!(warm["digest"] == cold["digest"] && restored["digest"] == cold["digest"], "{report}");

    let [first, second] = ["phase 1", "phase 2"].map(|name| row(&report, "phases", name));
    assert!(number(first, "cached_tokens") <= 2 * TEMPLATE, "{first}");
    let known = number(first, "prompt_tokens") + number(first, "output_tokens");
    assert!(
        number(second, "cached_tokens") >= 2 * 256 && number(second, "cached_tokens") <= known,
        "{second}"
    );

    for row in [cold, warm, restored, first, second] {
        assert_eq!((number(row, "requests"), number(row, "empty")), (number(row, "answered"), 0), "{row}");
        assert!(
            row["ttft_ms"]["p50"].as_f64() > Some(0.0) && row["output_tokens_per_s"].as_f64() > Some(0.0)
        );
    }
    assert_eq!(report["requests"].as_array().unwrap().len(), 3 + 4);
    let texts = texts(&svg);
    for text in ["sweep", "phases", "cold", "warm", "restored", "context, tokens", "time to first token, ms"]
    {
        assert!(texts.iter().any(|found| found == text), "{text} is not among {texts:?}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    for text in ["restored 300", "phase 2", "TTFT ms"] {
        assert!(table.contains(text), "{text} is not in {table}");
    }
}

#[test]
fn two_servers_are_compared_request_by_request() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = [&caches[0], &caches[1]].map(|cache| Server::start(cache.path(), &[]));
    let flags = ["chat", "--compare", &a.url, &b.url, "--context", "280", "--repeats", "2", "--turns", "2"];
    let (output, report, svg) = bench(dir.path(), &flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let servers: Vec<u64> = report["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["server"].as_u64().unwrap())
        .collect();
    assert_eq!(servers, [0, 1, 1, 0, 0, 1, 1, 0], "in turns, the other one first each time");
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    for pair in pairs {
        assert_eq!((&pair["both_answered"], &pair["same_answers"]), (&2.into(), &2.into()), "{pair}");
        assert!(pair["ttft_ms"]["ratio"].as_f64() > Some(0.0), "{pair}");
    }
    let texts = texts(&svg);
    assert!(["A: all", "B: all"].iter().all(|name| texts.iter().any(|text| text == name)), "{texts:?}");
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is_asked() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_prefixd")).arg("bench").args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let refused = [
        (&["--url", "localhost:8000"][..], "expected http://host:port"),
        (&["trace"], "needs --trace FILE"),
        (&["chat", "--trace", "x.jsonl"], "not among those named"),
        (&["trace", "--trace", "nowhere.jsonl"], "nowhere.jsonl could not be read"),
        (&["--compare", "http://a", "http://b", "--url", "http://c"], "cannot be used with"),
        (&["--compare", "http://a"], "2 values required"),
        (&["--repeats", "0"], "0 is not in 1.."),
        (&["sideways"], "invalid value 'sideways'"),
    ];
    for (arguments, expected) in refused {
        let error = run(arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}
