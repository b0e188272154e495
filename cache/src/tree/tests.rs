//! What must hold of the tree whatever was done to it.

use std::collections::BTreeSet;

use proptest::{collection, option, prelude::*};

use super::*;
use crate::policy::{Lru, Usage};
use crate::testing::cases;

impl<P: Page> PrefixTree<P> {
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
            let children: Vec<&Node<P>> = node.children.values().map(|key| &self.nodes[key]).collect();
            let same =
                |child: &&Node<P>| (child.fingerprint, child.tenant) == (node.fingerprint, node.tenant);
            assert!(children.iter().all(same), "invariant 3");
            let on_disk = children.iter().filter(|child| child.disk != DiskCopy::None).count();
            assert_eq!(node.children_on_disk, on_disk);
            if let Some(page) = &node.resident {
                resident.blocks += 1;
                resident.tokens += node.tokens.len() as u64;
                resident.bytes += page.bytes();
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

impl Page for u32 {
    fn bytes(&self) -> u64 {
        u64::from(*self)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A chain of whole blocks of a fingerprint and a tenant, in RAM.
    Add(u8, u8, Vec<u32>),
    /// The n-th node gets another size in RAM, or leaves it.
    Page(usize, Option<u32>),
    /// The n-th node's copy on disk.
    Disk(usize, u8),
    Lease(usize),
    /// The lease that began first ends.
    Release,
    Retain(usize, u64),
    Touch(usize),
    Prefer(usize),
    EndPins,
    /// What would leave first leaves.
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0_usize..40;
    let step = prop_oneof![
        4 => (0_u8..3, 0_u8..2, collection::vec(0_u32..2, 1..7)).prop_map(|(by, whose, blocks)| Step::Add(by, whose, blocks)),
        2 => (at(), option::of(0_u32..9)).prop_map(|(at, page)| Step::Page(at, page)),
        3 => (at(), 0_u8..5).prop_map(|(at, copy)| Step::Disk(at, copy)),
        1 => at().prop_map(Step::Lease),
        1 => Just(Step::Release),
        1 => (at(), 0_u64..40).prop_map(|(at, until_us)| Step::Retain(at, until_us)),
        1 => at().prop_map(Step::Touch),
        1 => at().prop_map(Step::Prefer),
        1 => Just(Step::EndPins),
        2 => Just(Step::Evict),
    ];
    collection::vec(step, 1..60)
}

/// The tree alone, over pages that are numbers: no blocks, no tiers, no cache.
struct Trial {
    tree: PrefixTree<u32>,
    leases: Vec<BlockKey>,
    now_us: u64,
}

impl Trial {
    fn nth(&self, at: usize) -> Option<BlockKey> {
        let mut keys: Vec<BlockKey> = self.tree.keys().copied().collect();
        keys.sort_unstable();
        keys.get(at % keys.len().max(1)).copied()
    }

    fn add(&mut self, by: u8, whose: u8, blocks: &[u32]) {
        let (fingerprint, tenant) = (Fingerprint::from_bytes([by; 32]), Tenant::from_bytes([whose; 32]));
        let mut parent = None;
        for (at, token) in blocks.iter().enumerate() {
            let tokens = [*token, 0];
            let key = BlockKey::derive(&fingerprint, &tenant, parent.as_ref(), &tokens);
            let usage = Usage { last_use_us: self.now_us, ..Usage::default() };
            let (keep, tokens, start) = (Keep::default(), Arc::from(tokens), 2 * at);
            let facts = NodeFacts { fingerprint, parent, tenant, start, tokens, bytes: 8, usage, keep };
            self.tree.add(key, facts);
            self.tree.set_resident(&key, Some(8));
            parent = Some(key);
        }
    }

    fn take(&mut self, step: Step) {
        self.now_us += 1;
        match step {
            Step::Add(by, whose, blocks) => self.add(by, whose, &blocks),
            Step::Release if !self.leases.is_empty() => self.tree.unpin(&self.leases.remove(0)),
            Step::Release => {}
            Step::EndPins => self.tree.end_pins(self.now_us),
            Step::Evict => self.evict(),
            Step::Page(at, _)
            | Step::Disk(at, _)
            | Step::Lease(at)
            | Step::Retain(at, _)
            | Step::Touch(at)
            | Step::Prefer(at) => {
                if let Some(key) = self.nth(at) {
                    self.change(&key, &step);
                }
            }
        }
        self.tree.assert_invariants();
    }

    fn change(&mut self, key: &BlockKey, step: &Step) {
        match step {
            Step::Page(_, page) => self.tree.set_resident(key, *page),
            Step::Disk(_, copy) => {
                let window = [DiskWindow::Inseparable, DiskWindow::Apart { bytes: 3 }, DiskWindow::Dropped];
                let copy = match copy {
                    0 => DiskCopy::None,
                    1 => DiskCopy::Queued { copy: 1 },
                    other => DiskCopy::Stored { copy: 1, bytes: 10, window: window[usize::from(*other) - 2] },
                };
                self.tree.set_disk(key, copy);
            }
            Step::Lease(_) => {
                self.leases.extend(self.tree.pin(key).then_some(*key));
            }
            Step::Retain(_, until_us) => {
                self.tree.retain(key, Keep { pinned_until_us: *until_us, ..Keep::default() });
            }
            Step::Touch(_) => self.tree.touch(key, self.now_us),
            Step::Prefer(_) => self.tree.prefer(key, self.now_us.is_multiple_of(2)),
            Step::Add(..) | Step::Release | Step::EndPins | Step::Evict => {}
        }
        self.tree.prune(key);
    }

    fn evict(&mut self) {
        if let Some(key) = self.tree.coldest_resident() {
            self.tree.set_resident(&key, None);
            self.tree.prune(&key);
        }
        if let Some((key, _)) = self.tree.coldest_disk() {
            assert!(self.tree.get(&key).is_some_and(Node::is_free), "what a pin keeps stays");
            self.tree.set_disk(&key, DiskCopy::None);
            self.tree.prune(&key);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_orders_of_eviction_are_those_of_the_nodes_after_any_history(steps in steps()) {
        let ours = Fingerprint::from_bytes([0; 32]);
        let tree = PrefixTree::new(ours, Box::new(Lru), Some(3), 2);
        let mut trial = Trial { tree, leases: Vec::new(), now_us: 1 };
        for step in steps {
            trial.take(step);
        }
        for key in std::mem::take(&mut trial.leases) {
            trial.tree.unpin(&key);
        }
        trial.tree.end_pins(u64::MAX);
        for key in trial.tree.keys().copied().collect::<Vec<_>>() {
            trial.tree.set_resident(&key, None);
            trial.tree.set_disk(&key, DiskCopy::None);
            trial.tree.prune(&key);
        }
        trial.tree.assert_invariants();
        assert_eq!(trial.tree.keys().count(), 0, "nothing stays that nothing holds");
    }
}
