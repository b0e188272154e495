//! `/metrics`: what a scrape says, and that it agrees with what was done.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use prefixd_engine::sim::SimEngine;
use serde_json::json;

use super::client::{Response, chat, chat_body, get, receive, send};
use super::model::VOCAB;
use super::server::{Server, Setup};

/// The values of a scrape, by name and labels.
fn scrape(response: &Response) -> HashMap<String, f64> {
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = response.text();
    assert!(text.ends_with("\n# EOF\n"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(value).collect()
}

#[test]
fn metrics_tell_what_the_statistics_tell_and_how_long_answers_took() {
    let server = Setup { cache: true, ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    for _ in 0..3 {
        chat(server.address, &long, json!({"max_tokens": 5, "ignore_eos": true}));
    }
    server.eventually("the end", || {}, |status| status.finished == 3 && status.decoding == 0);
    let values = scrape(&get(server.address, "/metrics"));
    let stats = get(server.address, "/v1/cache/stats").json();
    for (name, value) in [
        ("prefixd_time_to_first_token_seconds_count", 3.0),
        ("prefixd_inter_token_seconds_count", 12.0),
        ("prefixd_queue_seconds_count", 3.0),
        ("prefixd_restore_seconds_count", 2.0),
        ("prefixd_prefill_seconds_count", 3.0),
        ("prefixd_sequences{state=\"decoding\"}", 0.0),
        ("prefixd_ended_sequences_total{end=\"finished\"}", 3.0),
        ("prefixd_completion_tokens_total", 15.0),
        ("prefixd_cache_hit_tokens_total{tier=\"resident\"}", stats["resident_hit_tokens"].as_f64().unwrap()),
        ("prefixd_cache_asked_tokens_total", stats["asked_tokens"].as_f64().unwrap()),
        ("prefixd_cache_blocks{tier=\"resident\"}", stats["resident"]["blocks"].as_f64().unwrap()),
        ("prefixd_cache_bytes{tier=\"resident\"}", stats["resident"]["bytes"].as_f64().unwrap()),
        ("prefixd_cache_lookups_total{reason=\"absent\"}", stats["misses"]["absent"].as_f64().unwrap()),
        (
            "prefixd_cache_evicted_copies_total{tier=\"resident\"}",
            stats["resident"]["evicted_blocks"].as_f64().unwrap(),
        ),
    ] {
        let found = values.get(name).unwrap_or_else(|| panic!("{name} is missing: {values:?}"));
        assert!((found - value).abs() < 1e-9, "{name}: {found}, expected {value}");
    }
    let text = get(server.address, "/metrics");
    // Every reason that a lookup can end for has its count.
    let reasons = values.keys().filter(|name| name.starts_with("prefixd_cache_lookups_total")).count();
    assert_eq!(reasons, stats["misses"].as_object().unwrap().len());
    for family in text.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(text.text().contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
}

#[test]
fn every_name_that_the_readme_tells_is_in_a_scrape() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n### Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    // `name` or `name{label}`; the others are values of labels.
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names: Vec<&str> = quoted
        .map(|name| name.split_once('{').map_or(name, |(name, _)| name))
        .filter(|name| name.contains('_') && *name != "over_daily")
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let dir = tempfile::tempdir().unwrap();
    let server = Setup { cache: true, dir: Some(dir.path().to_owned()), ..Setup::default() }.sim();
    let told = get(server.address, "/metrics");
    for name in names {
        assert!(told.text().contains(&format!("\nprefixd_{name}")), "{name} is not there");
    }
}

const PARTS: [&str; 4] = ["lookup", "read", "verify", "import"];

/// Counts of a restore's parts in the order of [`PARTS`], and the seconds of all together.
fn parts(values: &HashMap<String, f64>) -> ([u64; 4], f64) {
    let of = |what: &str, part: &str| {
        let name = format!("prefixd_restore_part_seconds_{what}{{part=\"{part}\"}}");
        *values.get(&name).unwrap_or_else(|| panic!("{name} is missing"))
    };
    (PARTS.map(|part| of("count", part) as u64), PARTS.map(|part| of("sum", part)).iter().sum())
}

#[test]
fn a_restore_is_told_by_its_parts_and_they_are_no_more_than_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        |dir: Option<&Path>| Setup { cache: true, dir: dir.map(Path::to_owned), ..Setup::default() }.sim();
    let long = "a shared prompt ".repeat(20);
    let ask = |server: &Server| {
        let response = chat(server.address, &long, json!({"max_tokens": 1, "prefixd_usage": true})).json();
        response["usage"]["prefixd"].clone()
    };
    let cold = |server: Server| {
        assert_eq!(ask(&server)["resident_tokens"], 0);
        let values = scrape(&get(server.address, "/metrics"));
        assert_eq!(parts(&values), ([0; 4], 0.0), "nothing was restored");
        server
    };
    drop(cold(start(Some(dir.path()))));
    let restarted = start(Some(dir.path()));
    let resident = cold(start(None));
    let cases = [(restarted, "disk_tokens", [1; 4]), (resident, "resident_tokens", [1, 0, 0, 1])];
    for (server, tier, counts) in cases {
        let told = ask(&server);
        assert!(told[tier].as_u64().unwrap() > 300, "{told}");
        let values = scrape(&get(server.address, "/metrics"));
        let (found, seconds) = parts(&values);
        assert_eq!(found, counts, "{tier}");
        let whole = values["prefixd_restore_seconds_sum"];
        assert!((whole - told["restore_ms"].as_f64().unwrap() / 1e3).abs() < 1e-9, "{whole}: {told}");
        assert!(0.0 < seconds && seconds <= whole + 1e-9, "{seconds} of {whole}");
        for (part, _) in PARTS.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let sum = values[&format!("prefixd_restore_part_seconds_sum{{part=\"{part}\"}}")];
            assert!(sum > 0.0, "{part}");
        }
    }
}

#[test]
fn every_decode_step_counts_by_its_rows() {
    let (steps, rows) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, sum) = (steps.clone(), rows.clone());
    let (decodes, decoding) = mpsc::sync_channel(1);
    let (go, wait) = mpsc::sync_channel::<()>(0);
    let engine = SimEngine::new(VOCAB, 100_000, 64).with_hook(move |call| {
        let rows = call.decoding();
        if rows > 0 {
            // The first step waits until the test lets it go; then nobody listens any more.
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                decodes.send(()).ok();
                wait.recv().ok();
            }
            sum.fetch_add(rows as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    let server = Setup::default().start(engine);
    let ask = |text: &str| {
        let body = chat_body(text, json!({"max_tokens": 40, "ignore_eos": true})).to_string();
        send(server.address, "POST", "/v1/chat/completions", &[], body.as_bytes())
    };
    let first = ask("one");
    decoding.recv().unwrap();
    let second = ask("another");
    server.eventually("the second request", || {}, |status| status.waiting == 1);
    drop(go);
    for connection in [first, second] {
        assert_eq!(receive(connection).status, 200);
    }
    server.eventually("the end", || {}, |status| status.finished == 2 && status.decoding == 0);
    let values = scrape(&get(server.address, "/metrics"));
    let number = |name: &str| values[name] as u64;
    let up_to = |bound: &str| number(&format!("prefixd_decode_batch_rows_bucket{{le=\"{bound}\"}}"));
    let [steps, rows] = [steps, rows].map(|seen| seen.load(Ordering::Relaxed));
    assert_eq!((up_to("+Inf"), number("prefixd_decode_batch_rows_count")), (steps, steps));
    let (alone, together) = (up_to("1.0"), up_to("2.0") - up_to("1.0"));
    assert!(alone >= 1 && together >= 1, "{alone} steps of one row, {together} of both");
    assert_eq!((up_to("2.0"), number("prefixd_decode_batch_rows_sum")), (steps, rows));
    // Each answer's first token comes from its prompt.
    assert_eq!(number("prefixd_completion_tokens_total"), rows + 2);
}
