//! What tests share: payloads that say which prefix they belong to, and a sequence that computes, inserts and reuses.

use std::path::Path;
use std::sync::mpsc;

use proptest::test_runner::Config;
use tempfile::TempDir;

use crate::{
    Block, CacheOptions, Dtype, Fingerprint, Lease, Lookup, Part, Payload, PrefixCache, Restored,
    SnapshotKind, Tenant, TensorBytes,
};

pub(crate) const BLOCK_TOKENS: usize = 4;

pub(crate) fn options(resident_bytes: u64) -> CacheOptions {
    CacheOptions {
        fingerprint: Fingerprint::from_bytes([7; 32]),
        block_tokens: BLOCK_TOKENS,
        resident_bytes,
        disk: None,
    }
}

/// The bytes an engine would compute for the tokens of `prefix` from `start` on: a digest of every token up to each.
pub(crate) fn payload(prefix: &[u32], start: usize) -> Payload {
    let rows: Vec<u8> = (start + 1..=prefix.len())
        .flat_map(|end| {
            let mut hasher = blake3::Hasher::new();
            prefix[..end].iter().for_each(|token| {
                hasher.update(&token.to_le_bytes());
            });
            *hasher.finalize().as_bytes()
        })
        .collect();
    let tokens = prefix.len() - start;
    let tensor = |name: &str, part, dtype, shape: Vec<usize>, data: &[u8]| TensorBytes {
        name: name.into(),
        part,
        dtype,
        shape,
        data: data.to_vec().into(),
    };
    Payload {
        tensors: vec![
            tensor("0.window", Part::Window, Dtype::U8, vec![tokens, 32], &rows),
            tensor("1.k", Part::Full, Dtype::U32, vec![1, tokens, 8], &rows),
            tensor("1.k_scales", Part::Full, Dtype::BF16, vec![tokens, 1], &rows[..2 * tokens]),
        ],
    }
}

/// What a recurrent layer would hold after `prefix`.
pub(crate) fn state(prefix: &[u32]) -> Payload {
    let mut hasher = blake3::Hasher::new();
    for token in prefix {
        hasher.update(&token.to_le_bytes());
    }
    let digest = *hasher.finalize().as_bytes();
    let tensor = |name: &str, dtype, shape: Vec<usize>, data: &[u8]| TensorBytes {
        name: name.into(),
        part: Part::State,
        dtype,
        shape,
        data: data.to_vec().into(),
    };
    Payload {
        tensors: vec![
            tensor("2.conv", Dtype::U8, vec![3, 4], &digest[..12]),
            tensor("2.state", Dtype::U32, vec![2, 4], &digest),
        ],
    }
}

/// [`run`] for a model that keeps a state: snapshots are taken where `points` says.
pub(crate) fn run_with_state(
    cache: &mut PrefixCache,
    tenant: &Tenant,
    prompt: &[u32],
    points: &[(usize, SnapshotKind)],
) -> (Lookup, Lease) {
    let lookup = cache.lookup(tenant, prompt, prompt.len().saturating_sub(1));
    let mut lease = cache.lease(tenant, &lookup);
    loop {
        let start = lease.tokens();
        let end = prompt.len().min(start + BLOCK_TOKENS);
        // A place at the end of a whole block is at the beginning of the next one.
        let here = |at: usize| at >= start && (at < end || at == prompt.len()) && at < start + BLOCK_TOKENS;
        for (at, kind) in points.iter().filter(|(at, _)| *at > 0 && here(*at)) {
            let behind = &prompt[start..*at];
            if !cache.has_snapshot(&lease, behind, *kind) {
                cache.insert_snapshot(&lease, behind, state(&prompt[..*at]), *kind);
            }
        }
        if start == end {
            break;
        }
        if !cache.advance(&mut lease, &prompt[start..end]) {
            cache.insert(&mut lease, &prompt[start..end], payload(&prompt[..end], start));
        }
        if end - start < BLOCK_TOKENS {
            break;
        }
    }
    (lookup, lease)
}

/// Computes what the cache does not know of `prompt` and inserts it, the tail included. The lease is the caller's.
pub(crate) fn run(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]) -> (Lookup, Lease) {
    let lookup = cache.lookup(tenant, prompt, prompt.len().saturating_sub(1));
    let mut lease = cache.lease(tenant, &lookup);
    loop {
        let start = lease.tokens();
        let end = prompt.len().min(start + BLOCK_TOKENS);
        if start == end {
            break;
        }
        if !cache.advance(&mut lease, &prompt[start..end]) {
            cache.insert(&mut lease, &prompt[start..end], payload(&prompt[..end], start));
        }
        if end - start < BLOCK_TOKENS {
            break;
        }
    }
    (lookup, lease)
}

/// [`run`], and the sequence ends.
pub(crate) fn serve(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]) -> Lookup {
    let (lookup, lease) = run(cache, tenant, prompt);
    drop(lease);
    cache.evict_resident();
    lookup
}

/// Restores a lookup, waits for it and lets the cache absorb it.
pub(crate) fn restore(cache: &mut PrefixCache, lookup: &Lookup, window_from: usize) -> Restored {
    let (send, receive) = mpsc::channel();
    cache.restore(lookup, window_from, Box::new(move |restored| send.send(restored).unwrap()));
    let restored = receive.recv().unwrap();
    cache.absorb(&restored);
    restored
}

/// Checks that a block is exactly the one that computing `prompt` gives at its place.
pub(crate) fn assert_sound(block: &Block, prompt: &[u32], used: usize, whole: bool) {
    assert_eq!(block.tokens[..used], prompt[block.start..block.start + used]);
    let mut prefix = prompt[..block.start].to_vec();
    prefix.extend(&block.tokens);
    let mut expected = payload(&prefix, block.start);
    if !whole {
        expected.tensors.retain(|tensor| tensor.part == Part::Full);
    }
    assert_eq!(block.payload, expected);
}

/// Bytes that an empty store takes: its index takes its size when it is opened for the second time.
pub(crate) fn settled_bytes(options: &CacheOptions) -> u64 {
    drop(PrefixCache::open(options.clone()).unwrap());
    PrefixCache::open(options.clone()).unwrap().stats().disk.unwrap().other_bytes
}

/// Settings of a property test: `count` cases, or `PROPTEST_CASES`.
pub(crate) fn cases(count: u32) -> Config {
    let default = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { Config { cases: count, ..default } }
}

/// A directory whose syncs cost nothing, where there is one: what property tests check does not hang on the device.
pub(crate) fn memory_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
