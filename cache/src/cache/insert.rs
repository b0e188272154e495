//! Taking new blocks in.

use std::sync::Arc;

use crate::block::Block;
use crate::cache::{Lease, PrefixCache};
use crate::key::BlockKey;
use crate::payload::Payload;
use crate::policy::Usage;
use crate::tree::{Node, NodeFacts};

impl PrefixCache {
    /// Whether the block that follows the lease's chain and holds `tokens` is known already, in any tier; then nothing
    /// needs exporting. A whole block moves the chain on; a tail counts as known when a longer block starts with it.
    pub fn advance(&mut self, lease: &mut Lease, tokens: &[u32]) -> bool {
        if tokens.is_empty() {
            return true;
        }
        let Some(key) = self.tree.covering(lease.end().as_ref(), &lease.tenant(), tokens) else {
            return false;
        };
        if !self.tree.get(&key).is_some_and(Node::has_window) {
            return false;
        }
        self.used(&key);
        self.persist(&key);
        if tokens.len() == self.options.block_tokens {
            self.extend(lease, key);
        }
        true
    }

    /// Adds the block that follows the lease's chain and returns it (or the one that was there). The next lookup finds
    /// it; it is queued for disk. `block_tokens` tokens move the chain on. Fewer are a tail: a leaf, removed when a
    /// longer block with the same tokens comes, and not kept when there is one.
    ///
    /// No tokens, or more than `block_tokens`, make no block of this cache: it is returned and not kept.
    pub fn insert(&mut self, lease: &mut Lease, tokens: &[u32], payload: Payload) -> Arc<Block> {
        let (parent, tenant) = (lease.end(), lease.tenant());
        let key = BlockKey::derive(&self.options.fingerprint, &tenant, parent.as_ref(), tokens);
        let block =
            Arc::new(Block { key, parent, tenant, start: lease.tokens(), tokens: tokens.to_vec(), payload });
        let whole = tokens.len() == self.options.block_tokens;
        if tokens.is_empty() || tokens.len() > self.options.block_tokens {
            return block;
        }
        let covered = self.tree.covering(parent.as_ref(), &tenant, tokens);
        let complete = |other: &BlockKey| self.tree.get(other).is_some_and(Node::has_window);
        if covered.is_some_and(|other| other != key && complete(&other)) {
            return block;
        }
        if let Some(known) = self.tree.get(&key).and_then(|node| node.resident.clone()) {
            self.used(&key);
            self.persist(&key);
            if whole {
                self.extend(lease, key);
            }
            return known;
        }
        let added = self.tree.add(
            key,
            NodeFacts {
                fingerprint: self.options.fingerprint,
                parent,
                tenant,
                start: block.start,
                tokens: Arc::from(tokens),
                bytes: block.bytes(),
                usage: Usage::default(),
                keep: lease.keep(),
            },
        );
        self.tree.set_resident(&key, Some(Arc::clone(&block)));
        self.used(&key);
        if whole {
            self.extend(lease, key);
        }
        for shorter in self.tree.superseded(parent.as_ref(), &tenant, tokens) {
            self.inherit_pin(&shorter, &key);
            self.discard(&shorter);
        }
        if added && whole {
            self.reunite(key);
        }
        self.take_events();
        self.persist(&key);
        self.mend(&key);
        self.evict_resident();
        block
    }

    /// One more use of a block, now.
    pub(super) fn used(&mut self, key: &BlockKey) {
        let now_us = self.clock.tick();
        self.tree.touch(key, now_us);
        self.note_use(key);
    }
}
