//! What every tier below RAM owes its owner, as properties over random commands: see the module's documentation.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::disk::testing::disk_options;
use crate::disk::{DiskTier, FileSystem, OsFileSystem};
use crate::error::ReadError;
use crate::key::{Fingerprint, Tenant};
use crate::lookup::{Hit, Tier};
use crate::payload::{Part, Payload};
use crate::restored::Restored;
use crate::testing::{cases, memory_dir, payload, state};
use crate::tuning::Tuning;

const OURS: Fingerprint = Fingerprint::from_bytes([7; 32]);
const ALICE: Tenant = Tenant::from_bytes([1; 32]);

/// One kind of tier.
struct Implementation {
    open: fn(&Path) -> (Box<dyn LowerTier>, Found),
    /// Whether what is put is there afterwards.
    keeps: bool,
}

const DISK: Implementation = Implementation {
    open: |dir| {
        let files: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
        let options = disk_options(dir).disk.unwrap();
        let (tier, found) = DiskTier::open(&options, OURS, &Tuning::default(), &files).unwrap();
        (Box::new(tier), found)
    },
    keeps: true,
};

const NOOP: Implementation =
    Implementation { open: |_| (Box::new(Noop::default()), Found::default()), keeps: false };

#[derive(Clone, Debug)]
enum Step {
    /// The n-th block or snapshot is put.
    Put(u8),
    Remove(Vec<u8>),
    DropWindows(Vec<u8>),
    /// These are noted as used; they need not be there.
    Touch(Vec<u8>),
    /// These are asked for, with window parts or without.
    Load(Vec<u8>, bool),
    Clear,
    Barrier,
    /// The tier ends, and another one begins in its place.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0_u8..8, 1..5);
    let step = prop_oneof![
        6 => (0_u8..8).prop_map(Step::Put),
        2 => some().prop_map(Step::Remove),
        1 => some().prop_map(Step::DropWindows),
        1 => some().prop_map(Step::Touch),
        5 => (some(), any::<bool>()).prop_map(|(which, window)| Step::Load(which, window)),
        1 => Just(Step::Clear),
        2 => Just(Step::Barrier),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The n-th of what is put: two in three are blocks, the others snapshots.
fn block(number: u8) -> Arc<Block> {
    let tokens = vec![u32::from(number), 1, 2, 3];
    let is_snapshot = number % 3 == 2;
    let (key, payload) = if is_snapshot {
        (BlockKey::snapshot(&OURS, &ALICE, None, 0, &tokens), state(&tokens))
    } else {
        (BlockKey::derive(&OURS, &ALICE, None, &tokens), payload(&tokens, 0))
    };
    Arc::new(Block { key, parent: None, tenant: ALICE, start: 0, tokens, payload })
}

fn item(number: u8, copy: u64, with_window: bool) -> Item {
    let block = block(number);
    let kind = if block.is_snapshot() { Kind::Snapshot } else { Kind::Block };
    let used_tokens = block.tokens.len();
    let hit = Hit { key: block.key, start: 0, block_tokens: used_tokens, used_tokens, tier: Tier::Disk };
    let expected = Expected {
        key: block.key,
        fingerprint: OURS,
        tenant: ALICE,
        parent: None,
        start: 0,
        tokens: Arc::from(&block.tokens[..]),
    };
    Item { hit, kind, source: Source::Below { expected: Box::new(expected), copy, with_window } }
}

/// A tier under test, and what it should hold.
struct Trial<'a> {
    implementation: &'a Implementation,
    dir: &'a Path,
    tier: Box<dyn LowerTier>,
    /// What is kept: whether with its window part.
    kept: HashMap<u8, bool>,
    copies: u64,
    /// Copies that no event has told of yet.
    unanswered: Vec<(BlockKey, u64)>,
}

impl Trial<'_> {
    fn take(&mut self, step: Step) {
        let keys = |which: &[u8]| which.iter().map(|number| block(*number).key).collect::<Vec<_>>();
        match step {
            Step::Put(number) => self.put(number),
            Step::Remove(which) => {
                self.tier.remove(keys(&which));
                self.kept.retain(|number, _| !which.contains(number));
            }
            Step::DropWindows(which) => {
                let blocks: Vec<u8> =
                    which.into_iter().filter(|number| self.kept.contains_key(number)).collect();
                self.tier.drop_windows(keys(&blocks));
                for number in blocks.into_iter().filter(|number| block(*number).has_window_part()) {
                    self.kept.insert(number, false);
                }
            }
            Step::Touch(which) => {
                let uses = keys(&which).into_iter().map(|key| (key, Usage::default(), Keep::default()));
                self.tier.touch(uses.collect());
            }
            Step::Load(which, with_window) => self.load(&which, with_window),
            Step::Clear => {
                self.tier.clear();
                self.kept.clear();
            }
            Step::Barrier => self.barrier(),
            Step::Reopen => self.reopen(),
        }
    }

    fn put(&mut self, number: u8) {
        self.copies += 1;
        let (block, copy) = (block(number), self.copies);
        self.unanswered.push((block.key, copy));
        let (usage, keep, written) = (Usage::default(), Keep::default(), Written::default());
        self.tier.put(Put { block, copy, usage, keep, written });
        if self.implementation.keeps {
            self.kept.insert(number, true);
        }
    }

    /// Laws 2 and 5.
    fn barrier(&mut self) {
        self.tier.barrier().recv_timeout(Duration::from_secs(20)).expect("a barrier is reached");
        while let Some(event) = self.tier.event() {
            let (answered, kept) = match event {
                Event::Written { key, copy, .. } => ((key, copy), true),
                Event::Failed { key, copy, .. } => ((key, copy), false),
                Event::Stuck { reason, .. } => panic!("{reason}"),
                Event::Quarantined { key, .. } => panic!("{key} is sound"),
                Event::Index { .. } | Event::Cleared { .. } => continue,
            };
            assert_eq!(kept, self.implementation.keeps);
            let at = self.unanswered.iter().position(|put| *put == answered);
            self.unanswered.remove(at.expect("one event for each put"));
        }
        assert_eq!(self.unanswered, [], "a put without an event");
    }

    /// Laws 3 and 4. What was asked for comes up to the first that is not there.
    fn load(&mut self, which: &[u8], with_window: bool) {
        self.barrier();
        for number in which {
            let restored = self.restore(vec![item(*number, self.copies, with_window)]);
            let whole = self.kept.get(number).copied();
            // A block without the window part that it should come with is not there.
            let comes = whole.is_some_and(|whole| whole || !with_window || block(*number).is_snapshot());
            let failure = restored.failure.clone().map(|(_, error)| error);
            if !comes {
                assert!(restored.blocks.is_empty() && restored.snapshot.is_none());
                assert_eq!(failure, Some(ReadError::Gone));
                continue;
            }
            assert_eq!(failure, None);
            let wanted = block(*number);
            let brought =
                restored.snapshot.or_else(|| restored.blocks.first().map(|first| first.block.clone()));
            let brought = brought.unwrap();
            let with = |part| wanted.is_snapshot() || part != Part::Window || with_window;
            let tensors = wanted.payload.tensors.iter().filter(|tensor| with(tensor.part)).cloned().collect();
            assert_eq!(*brought, Block { payload: Payload { tensors }, ..(*wanted).clone() });
        }
        let restored = self.restore(which.iter().map(|number| item(*number, self.copies, false)).collect());
        let missing = which.iter().position(|number| !self.kept.contains_key(number));
        assert_eq!(restored.failure.is_some(), missing.is_some());
        let snapshots = |number: &&u8| block(**number).is_snapshot();
        let come = &which[..missing.unwrap_or(which.len())];
        assert_eq!(restored.blocks.len(), come.len() - come.iter().filter(snapshots).count());
    }

    /// Asks for items; the one answer.
    fn restore(&self, items: Vec<Item>) -> Restored {
        let (send, receive) = mpsc::channel();
        self.tier.load(items, Instant::now(), Box::new(move |restored| send.send(restored).unwrap()));
        let restored = receive.recv_timeout(Duration::from_secs(20)).expect("a load is answered");
        assert!(receive.recv().is_err(), "and answered once");
        restored
    }

    /// Dropping a tier finishes what was asked for; what was kept is found by the next one.
    fn reopen(&mut self) {
        self.tier = Box::new(Noop::default());
        let (tier, found) = (self.implementation.open)(self.dir);
        (self.tier, self.unanswered) = (tier, Vec::new());
        let found: HashMap<BlockKey, bool> = found
            .blocks
            .iter()
            .map(|(key, row)| (*key, DiskWindow::from(row.window) != DiskWindow::Dropped))
            .chain(found.snapshots.iter().map(|(key, _)| (*key, true)))
            .collect();
        let kept: HashMap<BlockKey, bool> =
            self.kept.iter().map(|(number, whole)| (block(*number).key, *whole)).collect();
        assert_eq!(found, kept);
    }
}

fn keep_the_laws(implementation: &Implementation, steps: Vec<Step>) {
    let dir = memory_dir();
    let (tier, _) = (implementation.open)(dir.path());
    let (kept, unanswered) = (HashMap::new(), Vec::new());
    let mut trial = Trial { implementation, dir: dir.path(), tier, kept, copies: 0, unanswered };
    for step in steps {
        trial.take(step);
    }
    trial.barrier();
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_disk_keeps_the_laws(steps in steps()) {
        keep_the_laws(&DISK, steps);
    }

    #[test]
    fn a_tier_that_keeps_nothing_keeps_them_too(steps in steps()) {
        keep_the_laws(&NOOP, steps);
    }
}

/// The part of law 3 that needs no reading: RAM is answered where it was asked.
#[test]
fn what_is_in_ram_or_nowhere_is_answered_before_the_call_returns() {
    for implementation in [DISK, NOOP] {
        let dir = memory_dir();
        let (tier, _) = (implementation.open)(dir.path());
        for (source, tokens) in [(Source::Resident(block(0)), 4), (Source::Nowhere, 0)] {
            let (send, receive) = mpsc::channel();
            let items = vec![Item { source, ..item(0, 0, true) }];
            tier.load(items, Instant::now(), Box::new(move |restored| send.send(restored).unwrap()));
            let restored = receive.try_recv().expect("answered inline");
            assert_eq!((restored.tokens, restored.failure.is_none()), (tokens, tokens > 0));
        }
        assert!(!tier.is_stuck());
    }
}
