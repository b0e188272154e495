//! `prefixd cache` over the store of a real server, while it runs and after.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::recurrent::{Agent, make_model};
use crate::support::{Server, cached_tokens, greedy};
use serde_json::{Value, json};

fn cache(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prefixd"))
        .args(["cache", "--cache-dir"])
        .arg(dir)
        .args(arguments)
        .env_remove("PREFIXD_CONFIG")
        .output()
        .unwrap()
}

/// Runs a command that must work and returns what it says in JSON.
fn said(dir: &Path, arguments: &[&str]) -> Value {
    let output = cache(dir, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A prompt of about 4,000 tokens.
fn body() -> Value {
    let conversation: Value = serde_json::from_str(include_str!("../../models/clerk/demo.json")).unwrap();
    let mut messages = conversation["messages"].as_array().unwrap().clone();
    messages.push(json!({"role": "user", "content": conversation["turns"][0]["user"]}));
    greedy(&messages, 16)
}

#[test]
fn a_store_is_read_beside_its_server_and_changed_only_without_it() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, copy) = (dir.path().join("store"), copies.path().join("copy"));
    let server = Server::start(&store, &[]);
    server.chat(&body());
    let queued = |server: &Server| {
        let writes = server.get("/v1/cache/stats")["disk"]["writes"].clone();
        writes["written_blocks"] == 0 || writes["queued_blocks"] != 0
    };
    while queued(&server) {
        std::thread::yield_now();
    }
    // Beside the server: what reads works, what changes is refused with a reason.
    let summary = said(&store, &["stat"]);
    let blocks = summary["blocks"].as_u64().unwrap();
    assert!(blocks >= 8 && summary["used_by"].as_str().unwrap().starts_with("process "), "{summary}");
    // The answer's own end may be written in between.
    let report = said(&store, &["verify"]);
    assert!(report["sound"].as_u64().unwrap() >= blocks && report["damaged"] == json!([]), "{report}");
    for refused in [&["clear"][..], &["gc"], &["rebuild"], &["unpin", "00"]] {
        let output = cache(&store, refused);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains("in use by another process"),
            "{refused:?}: {error}"
        );
    }
    server.stop();

    // Without it: pin one chain's end, drop all the rest, check, copy.
    let listed = said(&store, &["ls"]);
    let listed = listed["blocks"].as_array().unwrap();
    let deepest = listed.iter().max_by_key(|block| block["start"].as_u64()).unwrap();
    let key = deepest["key"].as_str().unwrap();
    assert_eq!(said(&store, &["pin", &key[..16]])["pinned"], true);
    assert_eq!(
        said(&store, &["gc", "--budget", "0"])["removed"]["blocks"],
        0,
        "one chain, pinned at its end"
    );
    assert_eq!(said(&store, &["show", key])["start"], deepest["start"]);
    assert_eq!(said(&store, &["export", copy.to_str().unwrap()])["blocks"], listed.len());
    assert_eq!(said(&store, &["rebuild"])["blocks"], listed.len());
    let table = String::from_utf8(cache(&store, &["ls"]).stdout).unwrap();
    assert!(table.contains(&key[..12]) && table.lines().count() > listed.len(), "{table}");
    assert_eq!(said(&store, &["clear"])["blocks"], listed.len());
    assert_eq!(said(&store, &["import", copy.to_str().unwrap()])["blocks"], listed.len());

    // Both are stores to serve from.
    for dir in [&store, &copy] {
        let server = Server::start(dir, &[]);
        assert!(cached_tokens(&server.chat(&body())) > 2_000);
        server.stop();
    }
}

#[test]
fn the_snapshots_of_a_recurrent_model_are_looked_after_with_its_blocks() {
    let (model, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_model(model.path());
    let flags = ["--model", model.path().to_str().unwrap()];
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let (server, mut agent) = (Server::start(&store, &flags), Agent::new(1));
    agent.turn(&server, 0);
    agent.turn(&server, 1);
    let known = cached_tokens(&server.chat(&agent.body()));
    server.stop();
    let summary = said(&store, &["stat"]);
    let count = &summary["snapshots"];
    assert!(count.as_u64() >= Some(2) && summary["snapshot_bytes"].as_u64() > Some(0), "{summary}");
    assert_eq!(&summary["fingerprints"][0]["snapshots"], count);
    let report = said(&store, &["verify"]);
    assert_eq!((&report["sound_snapshots"], &report["damaged"]), (count, &json!([])));
    let key = said(&store, &["ls"])["snapshots"][0]["key"].clone();
    let shown = said(&store, &["show", &key.as_str().unwrap()[..16]]);
    assert_eq!((&shown["kind"], &shown["key"]), (&json!("snapshot"), &key));
    for command in
        [&["ls"][..], &["stat"], &["show", key.as_str().unwrap()], &["gc", "--dry-run"], &["verify"]]
    {
        let table = String::from_utf8(cache(&store, command).stdout).unwrap();
        assert!(table.contains("snapshot"), "{command:?}: {table}");
    }
    assert_eq!(&said(&store, &["export", copy.to_str().unwrap()])["snapshots"], count);
    assert_eq!(&said(&store, &["gc", "--budget", "0"])["over_budget_snapshots"], count);
    assert_eq!(said(&store, &["stat"])["snapshots"], 0);
    assert_eq!(&said(&store, &["import", copy.to_str().unwrap()])["snapshots"], count);
    for dir in [&store, &copy] {
        let server = Server::start(dir, &flags);
        assert!(cached_tokens(&server.chat(&agent.body())) >= known, "{known}");
        server.stop();
    }
}

#[test]
fn a_directory_without_a_store_and_a_key_without_a_block_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let error = String::from_utf8(cache(&absent, &["ls"]).stderr).unwrap();
    assert!(error.contains("absent") && !absent.exists(), "{error}");
    std::fs::create_dir_all(dir.path().join("blocks")).unwrap();
    let error = String::from_utf8(cache(dir.path(), &["show", "abc"]).stderr).unwrap();
    assert!(error.contains("no block's key starts with abc"), "{error}");
}

/// Puts 10,000 small blocks of another model into the store.
fn crowd(dir: &Path) {
    use prefixd_cache::{
        CacheOptions, DiskOptions, Dtype, Fingerprint, FlushOutcome, Part, Payload, PrefixCache, Tenant,
        TensorBytes,
    };
    let disk = DiskOptions {
        dir: dir.to_owned(),
        budget_bytes: 1 << 40,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 30,
        readers: 1,
    };
    let fingerprint = Fingerprint::from_bytes([9; 32]);
    let options = CacheOptions { fingerprint, block_tokens: 256, resident_bytes: 0, disk: Some(disk) };
    let mut cache = PrefixCache::open(options).unwrap();
    for chain in 0..100_u32 {
        let nothing = cache.lookup(&Tenant::PUBLIC, &[], 0);
        let mut lease = cache.lease(&Tenant::PUBLIC, &nothing);
        for block in 0..100_u32 {
            let tokens: Vec<u32> = (0..256).map(|at| chain * 1_000_000 + block * 256 + at).collect();
            let data = vec![block as u8; 1_024].into();
            let name = "0.k".to_owned();
            let tensor = TensorBytes { name, part: Part::Full, dtype: Dtype::U8, shape: vec![1_024], data };
            cache.insert(&mut lease, &tokens, Payload { tensors: vec![tensor] });
        }
    }
    assert_eq!(cache.flush(Instant::now() + Duration::from_mins(2)), FlushOutcome::Durable);
}

#[test]
fn over_ten_thousand_blocks_a_killed_server_is_back_at_once_with_its_blocks() {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    crowd(dir.path());
    let empty = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let server = Server::start(empty.path(), &[]);
    let alone = began.elapsed();
    server.kill();
    let server = Server::start(dir.path(), &[]);
    server.chat(&body());
    while server.get("/v1/cache/stats")["disk"]["writes"]["written_blocks"].as_u64().unwrap() < 8 {
        std::thread::yield_now();
    }
    // Killed while it serves.
    let url = server.url.clone();
    let request = std::thread::spawn(move || {
        // The answer never comes: the server is killed under it.
        ureq::post(format!("{url}/v1/chat/completions")).send(body().to_string()).ok();
    });
    server.kill();
    request.join().unwrap();
    let began = Instant::now();
    let server = Server::start(dir.path(), &[]);
    let ready = began.elapsed();
    println!("ready after {ready:?} over 10,000 blocks; without blocks {alone:?}");
    assert!(ready < alone + Duration::from_secs(2), "{ready:?}, without blocks {alone:?}");
    assert!(cached_tokens(&server.chat(&body())) >= 256);
    server.stop();
    let report = said(dir.path(), &["verify"]);
    assert!(report["sound"].as_u64().unwrap() > 10_000 && report["damaged"] == json!([]), "{report}");
}
