//! A process that is killed while it writes: what it was told is durable is there, and nothing wrong is.

// Everything here is a test or its helper.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prefixd_cache::{
    CacheOptions, DiskOptions, Dtype, Fingerprint, FlushOutcome, Part, Payload, PrefixCache, Restored,
    Tenant, TensorBytes,
};

const BLOCK_TOKENS: usize = 8;
const PROMPT_TOKENS: usize = 29;
/// Kills. A few seconds of processor time; what takes long is waiting for the disk's syncs.
const ROUNDS: u32 = 120;
const DIR: &str = "PREFIXD_CRASH_TEST_DIR";
const FIRST: &str = "PREFIXD_CRASH_TEST_FIRST";

fn open(dir: &Path) -> PrefixCache {
    PrefixCache::open(CacheOptions {
        fingerprint: Fingerprint::from_bytes([3; 32]),
        block_tokens: BLOCK_TOKENS,
        resident_bytes: 64 << 10,
        disk: Some(DiskOptions {
            dir: dir.to_owned(),
            budget_bytes: 1 << 30,
            free_floor_bytes: 0,
            write_queue_bytes: 1 << 20,
            readers: 2,
        }),
    })
    .unwrap()
}

fn prompt(number: u32) -> Vec<u32> {
    // Four in a row share their first half.
    (0..PROMPT_TOKENS as u32)
        .map(|at| if at < 16 { number / 4 * 1_000 + at } else { number * 1_000 + at })
        .collect()
}

/// A few pages of bytes that only these tokens give.
fn payload(prefix: &[u32], start: usize) -> Payload {
    let mut hasher = blake3::Hasher::new();
    for token in prefix {
        hasher.update(&token.to_le_bytes());
    }
    let mut data = vec![0; (prefix.len() - start) * 1_024];
    hasher.finalize_xof().fill(&mut data);
    let shape = vec![prefix.len() - start, 1_024];
    let tensor = |name: &str, part| TensorBytes {
        name: name.into(),
        part,
        dtype: Dtype::U8,
        shape: shape.clone(),
        data: data.clone().into(),
    };
    Payload { tensors: vec![tensor("k", Part::Full), tensor("w", Part::Window)] }
}

fn compute(cache: &mut PrefixCache, prompt: &[u32]) {
    let lookup = cache.lookup(&Tenant::PUBLIC, prompt, prompt.len());
    let mut lease = cache.lease(&Tenant::PUBLIC, &lookup);
    for tokens in prompt[lease.tokens()..].chunks(BLOCK_TOKENS) {
        let start = lease.tokens();
        if !cache.advance(&mut lease, tokens) {
            cache.insert(&mut lease, tokens, payload(&prompt[..start + tokens.len()], start));
        }
    }
    drop(lease);
}

/// Restores what is known of a prompt and checks its bytes.
fn found(cache: &mut PrefixCache, prompt: &[u32]) -> usize {
    let lookup = cache.lookup(&Tenant::PUBLIC, prompt, prompt.len());
    let (send, receive) = mpsc::channel::<Restored>();
    cache.restore(&lookup, 0, Box::new(move |restored| send.send(restored).unwrap()));
    let restored = receive.recv().unwrap();
    cache.absorb(&restored);
    assert_eq!(restored.failure, None, "the index names only complete blocks");
    for brought in &restored.blocks {
        let block = &brought.block;
        let prefix = [&prompt[..block.start], &block.tokens[..]].concat();
        assert_eq!(block.payload, payload(&prefix, block.start));
    }
    restored.tokens
}

/// The process that is killed; run by the test below, and nothing on its own.
#[test]
fn writer() {
    let (Some(dir), Ok(first)) = (std::env::var_os(DIR), std::env::var(FIRST)) else { return };
    let mut cache = open(Path::new(&dir));
    for number in first.parse().unwrap().. {
        compute(&mut cache, &prompt(number));
        cache.poll();
        // Some are acknowledged at once, some together with later ones.
        if number % 3 == 0 {
            let outcome = cache.flush(Instant::now() + Duration::from_secs(20));
            assert_eq!(outcome, FlushOutcome::Durable);
            println!("durable {number}");
        }
    }
}

fn spawn(dir: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut durable = 0;
    for round in 0..ROUNDS {
        let mut child = spawn(dir.path(), durable);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged =
            || lines.by_ref().find_map(|line| line.unwrap().strip_prefix("durable ")?.parse::<u32>().ok());
        for _ in 0..=round % 4 {
            durable = acknowledged().expect("the writer acknowledges") + 1;
        }
        // Killed between two acknowledgements, at a time that differs from round to round.
        let until = Instant::now() + Duration::from_micros(u64::from(round) * 1_700);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(number) = acknowledged() {
            durable = number + 1;
        }
        let mut cache = open(dir.path());
        // All of the last rounds, and a sample of those before, another one in each round.
        let recent = durable.saturating_sub(64);
        for number in (0..durable).filter(|number| *number >= recent || number % 16 == round % 16) {
            assert_eq!(found(&mut cache, &prompt(number)), PROMPT_TOKENS, "prompt {number}, round {round}");
        }
        for number in durable..durable + 8 {
            found(&mut cache, &prompt(number));
        }
        assert_eq!(cache.stats().disk.unwrap().quarantined, 0);
    }
}
