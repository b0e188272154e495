//! A living sequence's hold on the chain of blocks it was built from.

use crossbeam_channel::Sender;

use crate::cache::PrefixCache;
use crate::key::{BlockKey, Tenant};
use crate::lookup::Lookup;
use crate::retention::Keep;

/// Keeps a chain of whole blocks from losing its last copy, and knows where the chain ends. Dropping it gives the blocks
/// back: the cache takes them at its next call.
#[derive(Debug)]
#[must_use = "blocks are kept while the lease lives"]
pub struct Lease {
    tenant: Tenant,
    chain: Vec<BlockKey>,
    tokens: usize,
    keep: Keep,
    given_back: Sender<Vec<BlockKey>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A cache that is gone keeps nothing.
        self.given_back.send(std::mem::take(&mut self.chain)).ok();
    }
}

impl Lease {
    /// Tokens in the chain: where the next block starts.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The last block of the chain.
    pub fn end(&self) -> Option<BlockKey> {
        self.chain.last().copied()
    }

    /// What blocks that this lease adds are given.
    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    /// Whole blocks of the chain, in order.
    pub(super) fn chain(&self) -> &[BlockKey] {
        &self.chain
    }

    pub(super) fn set_keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Whose prefix it is.
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }
}

impl PrefixCache {
    /// Keeps the whole blocks of `lookup` while the sequence lives. A last block that is used in part, or is a tail, is
    /// not kept: nothing can follow it.
    pub fn lease(&mut self, tenant: &Tenant, lookup: &Lookup) -> Lease {
        let mut lease = Lease {
            tenant: *tenant,
            chain: Vec::new(),
            tokens: 0,
            keep: Keep::default(),
            given_back: self.given_back.0.clone(),
        };
        for hit in &lookup.hits {
            let whole = hit.used_tokens == self.options.block_tokens;
            let follows = self
                .tree
                .get(&hit.key)
                .is_some_and(|node| node.parent == lease.end() && node.tenant == *tenant);
            if !whole || !follows {
                break;
            }
            self.extend(&mut lease, hit.key);
        }
        lease
    }

    /// Ends the holds of leases that were dropped.
    pub(super) fn take_leases(&mut self) {
        while let Ok(chain) = self.given_back.1.try_recv() {
            for key in chain.into_iter().rev() {
                self.tree.unpin(&key);
            }
        }
    }

    /// Moves a lease past a whole block.
    pub(super) fn extend(&mut self, lease: &mut Lease, key: BlockKey) {
        if self.tree.pin(&key) {
            lease.chain.push(key);
            lease.tokens += self.options.block_tokens;
        }
    }
}
