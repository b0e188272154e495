//! Walking the tree along a prompt.

use crate::cache::PrefixCache;
use crate::ghosts::Left;
use crate::key::{BlockKey, Tenant};
use crate::lookup::{Hit, Lookup, Miss};
use crate::tree::Closest;

impl PrefixCache {
    /// What of the first `limit_tokens` of `prompt` is known, to the token, and why not more. Counts as a use of every
    /// block it names, and of the snapshots along it. No I/O.
    pub fn lookup(&mut self, tenant: &Tenant, prompt: &[u32], limit_tokens: usize) -> Lookup {
        self.evict_resident();
        let asked = &prompt[..limit_tokens.min(prompt.len())];
        let found = self.find(tenant, asked);
        let lookup = if self.needs_snapshots {
            let (chain, lookup) = (self.whole_blocks(&found), self.cut_to_snapshot(tenant, asked, found));
            self.use_snapshots(tenant, asked, &chain, lookup.snapshot);
            lookup
        } else {
            found
        };
        let now_us = self.clock.tick();
        for hit in &lookup.hits {
            self.tree.touch(&hit.key, now_us);
            self.note_use(&hit.key);
        }
        self.tenants.count(tenant, &lookup);
        lookup
    }

    /// What [`lookup`](Self::lookup) would find. Counts as no use.
    pub fn peek(&self, tenant: &Tenant, prompt: &[u32], limit_tokens: usize) -> Lookup {
        let asked = &prompt[..limit_tokens.min(prompt.len())];
        let found = self.find(tenant, asked);
        if self.needs_snapshots { self.cut_to_snapshot(tenant, asked, found) } else { found }
    }

    /// What of the tokens `asked` is known in blocks.
    fn find(&self, tenant: &Tenant, asked: &[u32]) -> Lookup {
        let mut hits: Vec<Hit> = Vec::new();
        let mut tokens = 0;
        let miss = loop {
            let rest = &asked[tokens..];
            if rest.is_empty() {
                break Miss::Nothing;
            }
            let parent = hits.last().map(|hit| hit.key);
            let wanted = &rest[..rest.len().min(self.options.block_tokens)];
            let closest = self.tree.closest(parent.as_ref(), tenant, wanted);
            let Some(hit) = closest.found.and_then(|(key, run)| self.hit(key, tokens, run)) else {
                break self.why(tenant, parent.as_ref(), tokens, wanted, &closest);
            };
            hits.push(hit);
            tokens += hit.used_tokens;
            if hit.used_tokens < self.options.block_tokens {
                break if tokens == asked.len() {
                    Miss::Nothing
                } else {
                    self.why(tenant, parent.as_ref(), tokens, wanted, &closest)
                };
            }
        };
        let (tokens, miss) = self.cut_to_complete(&mut hits, tokens, miss);
        Lookup { asked_tokens: asked.len(), tokens, hits, snapshot: None, no_state_tokens: 0, miss }
    }

    /// Shortens a chain to the deepest point that can be restored: every block that the window before that point
    /// reaches has its window part.
    pub(super) fn cut_to_complete(&self, hits: &mut Vec<Hit>, tokens: usize, miss: Miss) -> (usize, Miss) {
        let incomplete: Vec<(usize, usize)> = hits
            .iter()
            .filter(|hit| self.tree.get(&hit.key).is_some_and(|node| !node.has_window()))
            .map(|hit| (hit.start, hit.start + hit.block_tokens))
            .collect();
        let mut end = tokens;
        // From the deepest: a shorter prefix needs no window part behind it.
        for (start, block_end) in incomplete.into_iter().rev() {
            // The next token sees `window` tokens, itself included.
            let window_from = self.window_tokens.map_or(0, |window| (end + 1).saturating_sub(window));
            if start < end && block_end > window_from {
                end = start;
            }
        }
        if end == tokens {
            return (tokens, miss);
        }
        hits.retain(|hit| hit.start < end);
        (end, Miss::Evicted { at: end })
    }

    fn hit(&self, key: BlockKey, start: usize, used_tokens: usize) -> Option<Hit> {
        let node = self.tree.get(&key)?;
        Some(Hit { key, start, block_tokens: node.tokens.len(), used_tokens, tier: node.tier()? })
    }

    /// Why what is under `parent` gives no more of the prompt than the tokens before `at`.
    fn why(
        &self,
        tenant: &Tenant,
        parent: Option<&BlockKey>,
        at: usize,
        wanted: &[u32],
        closest: &Closest,
    ) -> Miss {
        let used_up = closest
            .found
            .is_some_and(|(key, run)| self.tree.get(&key).is_some_and(|node| node.tokens.len() == run));
        match self.left(tenant, parent, wanted) {
            Some(Left::Quarantined) => Miss::Quarantined { at },
            Some(Left::Evicted) => Miss::Evicted { at },
            Some(Left::Expired) => Miss::Expired { at },
            None if self.is_aside(tenant, parent, wanted) => Miss::Unreadable { at },
            None if closest.hollow.is_some() => Miss::Evicted { at },
            None if parent.is_none() && self.tree.is_known_to_others(tenant, wanted) => {
                Miss::OtherFingerprint { at }
            }
            None if used_up || at == 0 => Miss::Absent,
            None if self.tree.has_children(parent, tenant) => Miss::Diverged { at },
            None => Miss::Absent,
        }
    }

    /// Whether the whole block that the prompt asks for was here, and why it left.
    fn left(&self, tenant: &Tenant, parent: Option<&BlockKey>, wanted: &[u32]) -> Option<Left> {
        if wanted.len() < self.options.block_tokens {
            return None;
        }
        self.ghosts.why(&BlockKey::derive(&self.options.fingerprint, tenant, parent, wanted))
    }

    /// Whether the whole block that the prompt asks for is on disk and could not be read.
    fn is_aside(&self, tenant: &Tenant, parent: Option<&BlockKey>, wanted: &[u32]) -> bool {
        let aside = &self.lower.aside;
        let key = || BlockKey::derive(&self.options.fingerprint, tenant, parent, wanted);
        !aside.is_empty() && aside.contains(&key())
    }
}
