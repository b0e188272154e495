//! The prefix tree: every known block, under its parent, whatever tier it is in.
//!
//! 1. A node's parent is in the tree: a node leaves only without children and pins.
//! 2. Siblings are sorted by their tokens, so the closest sibling of a prompt is a neighbour; a match compares tokens.
//! 3. Tenants have roots of their own; no walk leaves a tenant.
//! 4. A node without a copy in any tier is *hollow*: it stays while something stands on it, no lookup uses it, and
//!    writing it again brings everything below it back.
//! 5. The rank sets hold exactly the copies that may be dropped: see [`Node::places`].
//!
//! One thread owns it; no I/O happens here.

mod matching;
mod node;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub(crate) use matching::Closest;
pub(crate) use node::{DiskCopy, Node, NodeFacts};
use node::{Rank, Siblings};

use crate::block::Block;
use crate::key::{BlockKey, Tenant};
use crate::policy::EvictionPolicy;
use crate::stats::TierStats;

pub(crate) struct PrefixTree {
    nodes: HashMap<BlockKey, Node>,
    roots: HashMap<Tenant, Siblings>,
    /// Copies in RAM that may be dropped, coldest first.
    resident_ranks: BTreeSet<Rank>,
    /// Copies on disk that may be dropped, coldest first.
    disk_ranks: BTreeSet<Rank>,
    resident: TierStats,
    disk: TierStats,
    pinned: u64,
    policy: Box<dyn EvictionPolicy>,
}

impl PrefixTree {
    pub fn new(policy: Box<dyn EvictionPolicy>) -> Self {
        Self {
            nodes: HashMap::new(),
            roots: HashMap::new(),
            resident_ranks: BTreeSet::new(),
            disk_ranks: BTreeSet::new(),
            resident: TierStats::default(),
            disk: TierStats::default(),
            pinned: 0,
            policy,
        }
    }

    pub fn get(&self, key: &BlockKey) -> Option<&Node> {
        self.nodes.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &BlockKey> {
        self.nodes.keys()
    }

    pub fn resident_stats(&self) -> TierStats {
        self.resident
    }

    pub fn disk_stats(&self) -> TierStats {
        self.disk
    }

    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// How the policy ranks a block that is not in the tree.
    pub fn score(&self, facts: &crate::policy::BlockFacts) -> u64 {
        self.policy.score(facts)
    }

    /// Adds a hollow node. False, and nothing happens, when it is there already or its parent is not.
    pub fn add(&mut self, key: BlockKey, facts: NodeFacts) -> bool {
        if self.nodes.contains_key(&key) {
            return false;
        }
        let Some(siblings) = self.siblings_mut(facts.parent.as_ref(), facts.tenant) else { return false };
        siblings.insert(Arc::clone(&facts.tokens), key);
        let parent = facts.parent;
        self.nodes.insert(key, Node::new(facts));
        self.rescore(&key);
        parent.inspect(|parent| self.refresh(parent));
        true
    }

    /// Puts a copy in RAM, or takes it away.
    pub fn set_resident(&mut self, key: &BlockKey, block: Option<Arc<Block>>) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        if let Some(old) = node.resident.take() {
            self.resident.blocks -= 1;
            self.resident.tokens -= old.tokens.len() as u64;
            self.resident.bytes -= old.bytes();
        }
        if let Some(new) = &block {
            self.resident.blocks += 1;
            self.resident.tokens += new.tokens.len() as u64;
            self.resident.bytes += new.bytes();
        }
        node.resident = block;
        self.refresh(key);
    }

    /// Says what is on disk.
    pub fn set_disk(&mut self, key: &BlockKey, copy: DiskCopy) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        let (old, parent, tokens) = (node.disk, node.parent, node.tokens.len() as u64);
        node.disk = copy;
        if let DiskCopy::Stored { bytes, .. } = old {
            self.disk.blocks -= 1;
            self.disk.tokens -= tokens;
            self.disk.bytes -= bytes;
        }
        if let DiskCopy::Stored { bytes, .. } = copy {
            self.disk.blocks += 1;
            self.disk.tokens += tokens;
            self.disk.bytes += bytes;
        }
        if let Some(parent_node) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent_node.children_on_disk += usize::from(copy != DiskCopy::None);
            parent_node.children_on_disk -= usize::from(old != DiskCopy::None);
        }
        self.refresh(key);
        parent.inspect(|parent| self.refresh(parent));
    }

    /// Keeps a node until the matching [`unpin`](Self::unpin). False when it is not there.
    pub fn pin(&mut self, key: &BlockKey) -> bool {
        let Some(node) = self.nodes.get_mut(key) else { return false };
        node.pins += 1;
        self.pinned += u64::from(node.pins == 1);
        self.refresh(key);
        true
    }

    pub fn unpin(&mut self, key: &BlockKey) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        self.pinned -= u64::from(node.pins == 1);
        node.pins = node.pins.saturating_sub(1);
        self.refresh(key);
        self.prune(key);
    }

    /// One more use of a node.
    pub fn touch(&mut self, key: &BlockKey, now_us: u64) {
        if let Some(node) = self.nodes.get_mut(key) {
            node.usage.touch(now_us);
            self.rescore(key);
        }
    }

    /// The copy in RAM to drop next, if any may be dropped.
    pub fn coldest_resident(&self) -> Option<BlockKey> {
        self.resident_ranks.first().map(|rank| rank.key)
    }

    /// The copy on disk to drop next, with its score, if any may be dropped.
    pub fn coldest_disk(&self) -> Option<(BlockKey, u64)> {
        self.disk_ranks.first().map(|rank| (rank.key, rank.score))
    }

    /// Removes a node that holds nothing and carries nothing, and so upwards.
    pub fn prune(&mut self, key: &BlockKey) {
        let mut next = Some(*key);
        while let Some(key) = next {
            if !self.nodes.get(&key).is_some_and(Node::is_bare) {
                return;
            }
            let Some(node) = self.nodes.remove(&key) else { return };
            for (set, rank) in
                [(&mut self.resident_ranks, node.resident_rank), (&mut self.disk_ranks, node.disk_rank)]
            {
                rank.inspect(|rank| {
                    set.remove(rank);
                });
            }
            if let Some(siblings) = self.siblings_mut(node.parent.as_ref(), node.tenant) {
                siblings.remove(&*node.tokens);
            }
            match &node.parent {
                Some(parent) => self.refresh(parent),
                None if self.roots.get(&node.tenant).is_some_and(Siblings::is_empty) => {
                    self.roots.remove(&node.tenant);
                }
                None => {}
            }
            next = node.parent;
        }
    }

    fn siblings_mut(&mut self, parent: Option<&BlockKey>, tenant: Tenant) -> Option<&mut Siblings> {
        match parent {
            Some(parent) => {
                let node = self.nodes.get_mut(parent)?;
                (node.tenant == tenant).then_some(&mut node.children)
            }
            None => Some(self.roots.entry(tenant).or_default()),
        }
    }

    fn rescore(&mut self, key: &BlockKey) {
        if let Some(node) = self.nodes.get_mut(key) {
            node.score = self.policy.score(&node.facts());
            self.refresh(key);
        }
    }

    /// Brings a node's places in the rank sets up to date: see [`Node::places`].
    fn refresh(&mut self, key: &BlockKey) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        let (resident, disk) = node.places(*key);
        move_rank(&mut self.resident_ranks, &mut node.resident_rank, resident);
        move_rank(&mut self.disk_ranks, &mut node.disk_rank, disk);
    }
}

fn move_rank(set: &mut BTreeSet<Rank>, held: &mut Option<Rank>, wanted: Option<Rank>) {
    if *held == wanted {
        return;
    }
    if let Some(old) = held.take() {
        set.remove(&old);
    }
    if let Some(new) = wanted {
        set.insert(new);
    }
    *held = wanted;
}
