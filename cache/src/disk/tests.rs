//! The cache over a real directory: restarts, budgets, faults, damage.

mod damage;
mod faults;
mod limits;
mod models;
mod reads;
mod restart;
mod snapshots;
mod windows;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::testing::{assert_sound, restore};
use crate::{FlushOutcome, PrefixCache, Tenant};

pub(super) const ALICE: Tenant = Tenant::from_bytes([1; 32]);
pub(super) const BOB: Tenant = Tenant::from_bytes([2; 32]);

pub(super) fn prompt(seed: u32, tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|position| seed * 1_000 + position).collect()
}

pub(super) fn flush(cache: &mut PrefixCache) -> FlushOutcome {
    cache.flush(Instant::now() + Duration::from_secs(20))
}

/// Looks a prompt up, restores what is known and checks every byte of it. Returns the tokens that came.
pub(super) fn check(cache: &mut PrefixCache, tenant: &Tenant, prompt: &[u32]) -> usize {
    let lookup = cache.lookup(tenant, prompt, prompt.len());
    let restored = restore(cache, &lookup, 0);
    for brought in &restored.blocks {
        assert!(brought.has_window);
        assert_sound(&brought.block, prompt, brought.used_tokens, true);
    }
    restored.tokens
}

/// The block files in a store without their window parts, in order of name.
pub(super) fn block_files(dir: &Path) -> Vec<PathBuf> {
    let other = |path: &PathBuf| {
        [".window.safetensors", ".state.safetensors"].iter().any(|end| path.to_str().unwrap().ends_with(end))
    };
    all_files(dir).into_iter().filter(|path| !other(path)).collect()
}

/// The files of all blocks in a store, window parts included, in order of name.
pub(super) fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir.join("blocks"))
        .unwrap()
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

/// A cache with nothing in RAM over the directory.
pub(super) fn cold(dir: &Path) -> PrefixCache {
    super::testing::open(dir)
}
