//! The prefix tree: every known block, under its parent, whatever tier it is in.
//!
//! It never looks into what a block holds: [`Page`] is all it knows of that.
//!
//! 1. A node's parent is in the tree: a node leaves only without children and pins.
//! 2. Siblings are sorted by their tokens, so the closest sibling of a prompt is a neighbour; a match compares tokens.
//! 3. Every fingerprint has roots of its own, and in it every tenant; no walk leaves either. Lookups walk those of one
//!    fingerprint, ours. All others have their place in every order that something leaves in.
//! 4. A node without a copy in any tier is *hollow*: it stays while something stands on it, no lookup uses it, and
//!    writing it again brings everything below it back.
//! 5. The rank sets hold exactly what may be dropped: see [`Node::places`].
//! 6. A window part is interior when its block's chain goes on, without parting, for the window and a block more: then
//!    restoring anywhere in the last block of the chain does not need it. Where chains part, and at their ends, it stays.
//!    How far the windows of other fingerprints reach is not known: their window parts leave with their blocks.
//!
//! One thread owns it; no I/O happens here.

mod matching;
mod node;
mod pins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub(crate) use matching::Closest;
pub(crate) use node::{DiskCopy, DiskWindow, Node, NodeFacts, Page};
use node::{Places, Rank, Siblings};
pub(crate) use pins::{Pinned, Pins, Room};

use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::policy::{EvictionPolicy, Worth};
use crate::retention::Keep;
use crate::stats::TierStats;

pub(crate) struct PrefixTree<P> {
    nodes: HashMap<BlockKey, Node<P>>,
    /// What lookups find blocks of.
    ours: Fingerprint,
    roots: HashMap<Fingerprint, HashMap<Tenant, Siblings>>,
    /// Copies in RAM that may be dropped, coldest first.
    resident_ranks: BTreeSet<Rank>,
    /// Copies on disk that may be dropped, coldest first.
    disk_ranks: BTreeSet<Rank>,
    /// Window parts on disk that may be dropped, coldest first.
    window_ranks: BTreeSet<Rank>,
    /// The pins of retentions.
    pins: Pins,
    resident: TierStats,
    /// Of our fingerprint.
    disk: TierStats,
    /// Of all others.
    others: TierStats,
    pinned: u64,
    policy: Box<dyn EvictionPolicy>,
    /// The widest sliding window, when window parts may leave on their own.
    window_tokens: Option<usize>,
    block_tokens: usize,
}

impl<P: Page> PrefixTree<P> {
    pub fn new(
        ours: Fingerprint,
        policy: Box<dyn EvictionPolicy>,
        window_tokens: Option<usize>,
        block_tokens: usize,
    ) -> Self {
        Self {
            nodes: HashMap::new(),
            ours,
            roots: HashMap::new(),
            resident_ranks: BTreeSet::new(),
            disk_ranks: BTreeSet::new(),
            window_ranks: BTreeSet::new(),
            pins: Pins::default(),
            resident: TierStats::default(),
            disk: TierStats::default(),
            others: TierStats::default(),
            pinned: 0,
            policy,
            window_tokens,
            block_tokens,
        }
    }

    pub fn get(&self, key: &BlockKey) -> Option<&Node<P>> {
        self.nodes.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &BlockKey> {
        self.nodes.keys()
    }

    pub fn resident_stats(&self) -> TierStats {
        self.resident
    }

    /// Blocks of our fingerprint on disk.
    pub fn disk_stats(&self) -> TierStats {
        self.disk
    }

    /// Blocks of other fingerprints on disk.
    pub fn other_stats(&self) -> TierStats {
        self.others
    }

    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// The nodes that retentions pin.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What a block that is not in the tree is worth.
    pub fn worth(&self, facts: &crate::policy::BlockFacts, keep: &Keep) -> Worth {
        Worth { priority: keep.priority, score: self.policy.score(facts) }
    }

    /// Adds a hollow node. False, and nothing happens, when it is there already or its parent, of the same fingerprint and
    /// tenant, is not.
    pub fn add(&mut self, key: BlockKey, facts: NodeFacts) -> bool {
        if self.nodes.contains_key(&key) {
            return false;
        }
        let (parent, fingerprint, tenant) = (facts.parent, facts.fingerprint, facts.tenant);
        let Some(siblings) = self.siblings_mut(parent.as_ref(), fingerprint, tenant) else { return false };
        siblings.insert(Arc::clone(&facts.tokens), key);
        let keep = facts.keep;
        self.nodes.insert(key, Node::new(facts));
        self.rescore(&key);
        if keep.pinned_until_us > 0 {
            self.retain(&key, keep);
        }
        parent.inspect(|parent| self.refresh(parent));
        self.recheck_interior(parent);
        true
    }

    /// Gives a node a retention. A pin that lies in the past ends with the next [`end_pins`](Self::end_pins).
    pub fn retain(&mut self, key: &BlockKey, keep: Keep) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        if let Some(pin) = node.pinned(*key) {
            self.pins.remove(&pin);
        }
        node.keep = keep;
        node.retained = keep.pinned_until_us > 0;
        if let Some(pin) = node.pinned(*key) {
            self.pins.insert(&pin);
        }
        self.refresh(key);
    }

    /// Ends the pins whose time has come.
    pub fn end_pins(&mut self, now_us: u64) {
        while let Some((until_us, key)) = self.pins.first() {
            if until_us > now_us {
                return;
            }
            self.end_pin(&key);
        }
    }

    /// Ends the pin of a node.
    pub fn end_pin(&mut self, key: &BlockKey) {
        if let Some(node) = self.nodes.get(key) {
            let keep = Keep { pinned_until_us: 0, ..node.keep };
            self.retain(key, keep);
        }
    }

    /// Puts a copy in RAM, or takes it away.
    pub fn set_resident(&mut self, key: &BlockKey, page: Option<P>) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        let tokens = node.tokens.len() as u64;
        if let Some(old) = node.resident.take() {
            self.resident.blocks -= 1;
            self.resident.tokens -= tokens;
            self.resident.bytes -= old.bytes();
        }
        if let Some(new) = &page {
            self.resident.blocks += 1;
            self.resident.tokens += tokens;
            self.resident.bytes += new.bytes();
        }
        node.resident = page;
        self.refresh(key);
    }

    /// Says what is on disk.
    pub fn set_disk(&mut self, key: &BlockKey, copy: DiskCopy) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        let (old, parent, tokens) = (node.disk, node.parent, node.tokens.len() as u64);
        let stats = if node.fingerprint == self.ours { &mut self.disk } else { &mut self.others };
        node.disk = copy;
        if let DiskCopy::Stored { bytes, .. } = old {
            stats.blocks -= 1;
            stats.tokens -= tokens;
            stats.bytes -= bytes;
        }
        if let DiskCopy::Stored { bytes, .. } = copy {
            stats.blocks += 1;
            stats.tokens += tokens;
            stats.bytes += bytes;
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

    /// One more, or one fewer, names the node as part of its living prefix.
    pub fn prefer(&mut self, key: &BlockKey, more: bool) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        node.preferring =
            if more { node.preferring.saturating_add(1) } else { node.preferring.saturating_sub(1) };
        self.refresh(key);
    }

    /// Blocks whose lifetime is over at `now_us`, deepest first. `cache_ttl_us` is for those without one of their own.
    pub fn outlived(&self, now_us: u64, cache_ttl_us: u64) -> Vec<BlockKey> {
        let dead = |node: &Node<P>| {
            let dies_us = node.keep.dies_us(node.usage.last_use_us, cache_ttl_us);
            node.tier().is_some() && dies_us.is_some_and(|dies_us| dies_us <= now_us)
        };
        let mut keys: Vec<(usize, BlockKey)> =
            self.nodes.iter().filter(|(_, node)| dead(node)).map(|(key, node)| (node.start, *key)).collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.into_iter().map(|(_, key)| key).collect()
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

    /// The copy on disk to drop next, with its worth, if any may be dropped.
    pub fn coldest_disk(&self) -> Option<(BlockKey, Worth)> {
        self.disk_ranks.first().map(|rank| (rank.key, rank.worth))
    }

    /// The window part on disk to drop next, if any may be dropped.
    pub fn coldest_window(&self) -> Option<BlockKey> {
        self.window_ranks.first().map(|rank| rank.key)
    }

    /// Removes a node that holds nothing and carries nothing, and so upwards.
    pub fn prune(&mut self, key: &BlockKey) {
        let mut next = Some(*key);
        while let Some(key) = next {
            if !self.nodes.get(&key).is_some_and(Node::is_bare) {
                return;
            }
            let Some(node) = self.nodes.remove(&key) else { return };
            for (set, rank) in [
                (&mut self.resident_ranks, node.resident_rank),
                (&mut self.disk_ranks, node.disk_rank),
                (&mut self.window_ranks, node.window_rank),
            ] {
                rank.inspect(|rank| {
                    set.remove(rank);
                });
            }
            if let Some(pin) = node.pinned(key) {
                self.pins.remove(&pin);
            }
            let (parent, fingerprint) = (node.parent.as_ref(), node.fingerprint);
            if let Some(siblings) = self.siblings_mut(parent, fingerprint, node.tenant) {
                siblings.remove(&*node.tokens);
            }
            match parent {
                Some(parent) => self.refresh(parent),
                None => self.drop_empty_roots(&fingerprint, &node.tenant),
            }
            self.recheck_interior(node.parent);
            next = node.parent;
        }
    }

    /// A fingerprint, or a tenant, without blocks leaves no trace.
    fn drop_empty_roots(&mut self, fingerprint: &Fingerprint, tenant: &Tenant) {
        let Some(tenants) = self.roots.get_mut(fingerprint) else { return };
        if tenants.get(tenant).is_some_and(Siblings::is_empty) {
            tenants.remove(tenant);
        }
        if tenants.is_empty() {
            self.roots.remove(fingerprint);
        }
    }

    /// A node under `from` came or went: looks again at every node whose window part that may concern.
    fn recheck_interior(&mut self, from: Option<BlockKey>) {
        let Some(window_tokens) = self.window_tokens else { return };
        let mut next = from;
        for _ in 0..window_tokens.div_ceil(self.block_tokens) + 2 {
            let Some(key) = next else { return };
            let interior = self.is_interior(&key, window_tokens);
            let Some(node) = self.nodes.get_mut(&key) else { return };
            next = node.parent;
            if node.interior != interior {
                node.interior = interior;
                self.refresh(&key);
            }
        }
    }

    /// Invariant 6.
    fn is_interior(&self, key: &BlockKey, window_tokens: usize) -> bool {
        let Some(node) = self.nodes.get(key).filter(|node| node.fingerprint == self.ours) else {
            return false;
        };
        let (end, mut below) = (node.start + node.tokens.len(), node);
        loop {
            if below.children.len() != 1 {
                return false;
            }
            let Some(child) = below.children.values().next().and_then(|key| self.nodes.get(key)) else {
                return false;
            };
            if child.start + 1 >= end + window_tokens {
                return true;
            }
            below = child;
        }
    }

    fn siblings_mut(
        &mut self,
        parent: Option<&BlockKey>,
        fingerprint: Fingerprint,
        tenant: Tenant,
    ) -> Option<&mut Siblings> {
        match parent {
            Some(parent) => {
                let node = self.nodes.get_mut(parent)?;
                let same = node.fingerprint == fingerprint && node.tenant == tenant;
                same.then_some(&mut node.children)
            }
            None => Some(self.roots.entry(fingerprint).or_default().entry(tenant).or_default()),
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
        let Places { resident, disk, window } = node.places(*key);
        move_rank(&mut self.resident_ranks, &mut node.resident_rank, resident);
        move_rank(&mut self.disk_ranks, &mut node.disk_rank, disk);
        move_rank(&mut self.window_ranks, &mut node.window_rank, window);
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
