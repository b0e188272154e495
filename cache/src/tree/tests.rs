//! What must hold of the tree whatever was done to it.

use std::collections::BTreeSet;

use super::*;

impl PrefixTree {
    /// Compares everything the tree keeps with what its nodes say.
    pub fn assert_invariants(&self) {
        let (mut resident, mut disk, mut pinned) = (TierStats::default(), [TierStats::default(); 2], 0);
        let (mut resident_ranks, mut disk_ranks) = (BTreeSet::new(), BTreeSet::new());
        let (mut window_ranks, mut pins) = (BTreeSet::new(), Pins::default());
        for (key, node) in &self.nodes {
            assert!(!node.is_bare(), "{key:?} holds and carries nothing");
            let siblings = match &node.parent {
                Some(parent) => {
                    &self.nodes.get(parent).expect("invariant 1: a parent is in the tree").children
                }
                None => &self.roots[&node.fingerprint][&node.tenant],
            };
            assert_eq!(siblings.get(&*node.tokens), Some(key), "invariant 2");
            let children: Vec<&Node> = node.children.values().map(|key| &self.nodes[key]).collect();
            let same = |child: &&Node| (child.fingerprint, child.tenant) == (node.fingerprint, node.tenant);
            assert!(children.iter().all(same), "invariant 3");
            let on_disk = children.iter().filter(|child| child.disk != DiskCopy::None).count();
            assert_eq!(node.children_on_disk, on_disk);
            if let Some(block) = &node.resident {
                resident.blocks += 1;
                resident.tokens += block.tokens.len() as u64;
                resident.bytes += block.bytes();
            }
            if let DiskCopy::Stored { bytes, .. } = node.disk {
                let disk = &mut disk[usize::from(node.fingerprint != self.ours)];
                disk.blocks += 1;
                disk.tokens += node.tokens.len() as u64;
                disk.bytes += bytes;
            }
            pinned += u64::from(node.pins > 0);
            let only = usize::from(node.resident.is_some()) + usize::from(node.disk != DiskCopy::None) == 1;
            if node.pins > 0 && only {
                assert!(
                    node.resident_rank.is_none() && node.disk_rank.is_none(),
                    "a pinned last copy may go"
                );
            }
            let ranks =
                Places { resident: node.resident_rank, disk: node.disk_rank, window: node.window_rank };
            assert_eq!(ranks, node.places(*key), "invariant 5");
            resident_ranks.extend(node.resident_rank);
            disk_ranks.extend(node.disk_rank);
            window_ranks.extend(node.window_rank);
            assert_eq!(node.retained, node.keep.pinned_until_us > 0);
            if let Some(pin) = node.pinned(*key) {
                pins.insert(&pin);
            }
            let interior = self.window_tokens.is_some_and(|window| self.is_interior(key, window));
            assert_eq!(node.interior, interior, "invariant 6");
        }
        assert_eq!((self.resident, [self.disk, self.others], self.pinned), (resident, disk, pinned));
        assert_eq!((&self.resident_ranks, &self.disk_ranks), (&resident_ranks, &disk_ranks), "invariant 5");
        assert_eq!((&self.window_ranks, &self.pins), (&window_ranks, &pins), "invariant 5");
        assert!(
            self.roots.values().all(|tenants| !tenants.is_empty()),
            "nor does a fingerprint without blocks"
        );
        let mut roots = self.roots.values().flat_map(HashMap::values);
        assert!(roots.all(|root| !root.is_empty()), "a tenant without blocks leaves no trace");
    }
}
