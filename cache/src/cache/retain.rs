//! Pins, priorities and lifetimes that the owner gives to prefixes.

use crate::cache::{Lease, PrefixCache};
use crate::key::BlockKey;
use crate::retention::{Keep, Retention};

impl PrefixCache {
    /// Gives the blocks of a lease, and those it will add, a retention. It stays when the lease is dropped, and reaches
    /// the disk with the next recency.
    pub fn retain(&mut self, lease: &mut Lease, retention: &Retention) {
        let keep = Keep::at(retention, self.clock.now_us());
        lease.set_keep(keep);
        for key in lease.chain().to_vec() {
            self.keep(&key, keep);
        }
    }

    /// Gives one block that is known a retention.
    pub(super) fn keep(&mut self, key: &BlockKey, keep: Keep) {
        if self.tree.get(key).is_some() {
            self.tree.retain(key, keep);
            self.note_use(key);
        }
    }
}
