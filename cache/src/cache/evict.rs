//! Keeping the tiers within their budgets.

use crate::cache::PrefixCache;
use crate::ghosts::Left;
use crate::key::BlockKey;

impl PrefixCache {
    /// Drops copies from RAM until the budget holds or nothing more may go.
    pub(super) fn evict_resident(&mut self) {
        while self.tree.resident_stats().bytes > self.options.resident_bytes {
            let Some(key) = self.tree.coldest_resident() else { return };
            self.tree.set_resident(&key, None);
            self.forget_if_bare(&key, Left::Evicted);
        }
    }

    /// Removes all copies of a leaf that nothing needs any more.
    pub(super) fn discard(&mut self, key: &BlockKey) {
        self.tree.set_resident(key, None);
        self.tree.prune(key);
    }

    /// Remembers why a node without copies left, and takes it out of the tree if nothing stands on it.
    fn forget_if_bare(&mut self, key: &BlockKey, why: Left) {
        if self.tree.get(key).is_some_and(|node| node.tier().is_none()) {
            self.counters.evicted_blocks += 1;
            self.ghosts.remember(*key, why);
            self.tree.prune(key);
        }
    }
}
