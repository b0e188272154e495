//! Blocks of every family on disk: they come back byte for byte in another process's cache, and a row goes on from them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/cases.rs"]
mod cases;

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cases::{cases, golden};
use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd_cache::{
    CacheOptions, DiskOptions, Fingerprint, FlushOutcome, PrefixCache, Restored, Tenant, Tier,
};
use prefixd_engine::{Engine, Gate, GateError, ImportBlock, Steps};

const BLOCK: usize = 16;

fn open(dir: &Path, fingerprint: Fingerprint) -> PrefixCache {
    let disk = DiskOptions {
        dir: dir.to_owned(),
        budget_bytes: 1 << 30,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 30,
        readers: 2,
    };
    let options =
        CacheOptions { fingerprint, block_tokens: BLOCK, resident_bytes: 1 << 30, disk: Some(disk) };
    PrefixCache::open(options).unwrap()
}

fn restore(cache: &mut PrefixCache, tokens: &[u32]) -> Restored {
    let lookup = cache.lookup(&Tenant::PUBLIC, tokens, tokens.len());
    let (send, receive) = mpsc::channel();
    cache.restore(&lookup, 0, Box::new(move |restored| send.send(restored).unwrap()));
    receive.recv().unwrap()
}

#[test]
fn blocks_of_every_family_come_back_from_disk_as_they_were() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    for case in cases() {
        for kv in ["16", "k8v4"] {
            let options =
                LoadOptions { kv: kv.parse().unwrap(), block_tokens: BLOCK, ..LoadOptions::default() };
            // Heads of fewer than 64 cannot be quantized.
            let Ok(mut engine) = MlxEngine::load(owner.thread(), &golden(&case), options, &mut |_| ()) else {
                assert_eq!(kv, "k8v4", "{case}");
                continue;
            };
            let what = format!("{case}, KV {kv}");
            let vocab = engine.info().vocab as u32;
            let tokens: Vec<u32> = (0..100).map(|i| (i * 7919 + i / 7 * 131 + 13) % vocab).collect();
            let (known, rest) = tokens.split_at(96);
            let dir = tempfile::tempdir().unwrap();
            let (mut row, mut payloads) = (engine.start().unwrap(), Vec::new());
            {
                let mut cache = open(dir.path(), engine.info().fingerprint);
                let lookup = cache.lookup(&Tenant::PUBLIC, known, known.len());
                let mut lease = cache.lease(&Tenant::PUBLIC, &lookup);
                for (i, block) in known.chunks(BLOCK).enumerate() {
                    engine.prefill(&mut row, block).unwrap();
                    let payload = engine.export(&row, 0, i * BLOCK..(i + 1) * BLOCK).unwrap();
                    payloads.push(payload.clone());
                    cache.insert(&mut lease, block, payload);
                }
                let flushed = cache.flush(Instant::now() + Duration::from_secs(20));
                assert!(matches!(flushed, FlushOutcome::Durable), "{what}: {flushed:?}");
            }
            let restored = restore(&mut open(dir.path(), engine.info().fingerprint), known);
            assert_eq!((restored.tokens, restored.failure), (known.len(), None), "{what}");
            for (block, payload) in restored.blocks.iter().zip(&payloads) {
                assert_eq!(block.tier, Tier::Disk, "{what}");
                assert!(block.block.payload == *payload, "{what}: a block from disk");
            }
            let blocks = restored.blocks.iter().map(|restored| ImportBlock {
                payload: &restored.block.payload,
                block_tokens: BLOCK,
                used_tokens: restored.used_tokens,
            });
            let mut warm = engine.import(&blocks.collect::<Vec<_>>()).unwrap();
            if engine.info().state.has_snapshots() {
                let snapshot = engine.snapshot(&row, 0).unwrap();
                engine.resume(&mut warm, 0, &snapshot).unwrap();
            }
            let expected = engine.prefill(&mut row, rest).unwrap();
            let found = engine.prefill(&mut warm, rest).unwrap();
            let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            assert!(bits(&found) == bits(&expected), "{what}: after a restore");
        }
    }
}
