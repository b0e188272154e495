//! Finding blocks by tokens: the sibling that shares the longest run with a prompt.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::PrefixTree;
use super::node::{Node, Page, Siblings};
use crate::key::{BlockKey, Tenant};

/// Siblings looked at on each side, so that a lookup among many that share as much stays short.
const NEIGHBOURS: usize = 64;

/// The answer of [`PrefixTree::closest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closest {
    /// The usable sibling that shares most, and how many tokens; at least one.
    pub found: Option<(BlockKey, usize)>,
    /// Tokens shared with a sibling that would share more, had it not lost its last copy.
    pub hollow: Option<usize>,
}

impl<P: Page> PrefixTree<P> {
    /// The child of `parent` (or the tenant's root block) that shares the longest run of tokens with the start of
    /// `wanted`. Of equals, one in RAM.
    pub fn closest(&self, parent: Option<&BlockKey>, tenant: &Tenant, wanted: &[u32]) -> Closest {
        let Some(siblings) = self.siblings(parent, tenant) else { return Closest::default() };
        // In token order the shared run only shrinks with the distance, on both sides.
        let below = siblings.range::<[u32], _>((Unbounded, Included(wanted))).rev();
        let above = siblings.range::<[u32], _>((Excluded(wanted), Unbounded));
        let mut closest = Closest::default();
        for (tokens, key) in below.take(NEIGHBOURS) {
            if !self.consider(&mut closest, key, shared(tokens, wanted)) {
                break;
            }
        }
        for (tokens, key) in above.take(NEIGHBOURS) {
            if !self.consider(&mut closest, key, shared(tokens, wanted)) {
                break;
            }
        }
        closest.hollow = closest.hollow.filter(|hollow| closest.found.is_none_or(|(_, run)| run < *hollow));
        closest
    }

    /// Takes a candidate when it beats what there is; false when no farther one can.
    fn consider(&self, closest: &mut Closest, key: &BlockKey, run: usize) -> bool {
        let best = closest.found.map_or(0, |(_, run)| run);
        if run == 0 || run < best {
            return false;
        }
        let Some(node) = self.get(key) else { return true };
        if node.tier().is_none() {
            closest.hollow = closest.hollow.max(Some(run));
            return true;
        }
        let held = closest.found.and_then(|(key, _)| self.get(&key));
        if run > best || (node.resident.is_some() && held.is_some_and(|held| held.resident.is_none())) {
            closest.found = Some((*key, run));
        }
        // Neighbours that share as much are looked at only while they could be nearer in tier.
        node.resident.is_none()
    }

    /// A usable child of `parent` whose tokens start with `tokens`.
    pub fn covering(&self, parent: Option<&BlockKey>, tenant: &Tenant, tokens: &[u32]) -> Option<BlockKey> {
        self.siblings(parent, tenant)?
            .range::<[u32], _>((Included(tokens), Unbounded))
            .take_while(|(longer, _)| longer.starts_with(tokens))
            .map(|(_, key)| *key)
            .find(|key| self.get(key).is_some_and(|node| node.tier().is_some()))
    }

    /// Leaves under `parent` whose tokens are a shorter start of `tokens`: what a longer sibling supersedes.
    pub fn superseded(&self, parent: Option<&BlockKey>, tenant: &Tenant, tokens: &[u32]) -> Vec<BlockKey> {
        let Some(siblings) = self.siblings(parent, tenant) else { return Vec::new() };
        (1..tokens.len())
            .filter_map(|len| siblings.get(&tokens[..len]).copied())
            .filter(|key| self.get(key).is_some_and(|node| node.is_leaf() && node.pins == 0))
            .collect()
    }

    /// Whether anything stands under `parent`.
    pub fn has_children(&self, parent: Option<&BlockKey>, tenant: &Tenant) -> bool {
        self.siblings(parent, tenant).is_some_and(|siblings| !siblings.is_empty())
    }

    /// Whether the first block of a prompt is known under another fingerprint.
    pub fn is_known_to_others(&self, tenant: &Tenant, tokens: &[u32]) -> bool {
        let others = self.roots.iter().filter(|(fingerprint, _)| **fingerprint != self.ours);
        others.filter_map(|(_, tenants)| tenants.get(tenant)).any(|roots| roots.contains_key(tokens))
    }

    fn siblings(&self, parent: Option<&BlockKey>, tenant: &Tenant) -> Option<&Siblings> {
        match parent {
            Some(parent) => {
                let ours = |node: &&Node<P>| node.fingerprint == self.ours && node.tenant == *tenant;
                self.get(parent).filter(ours).map(|node| &node.children)
            }
            None => self.roots.get(&self.ours)?.get(tenant),
        }
    }
}

/// Length of the common start.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
