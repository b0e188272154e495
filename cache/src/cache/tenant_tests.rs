//! Tenants: whatever one does, nothing that another sees of the cache depends on it.

use proptest::prelude::*;

use super::*;
use crate::disk::testing::disk_options;
use crate::lookup::{Lookup, Reuse};
use crate::testing::{assert_sound, cases, memory_dir, restore, serve};

const ALICE: Tenant = Tenant::from_bytes([1; 32]);
const BOB: Tenant = Tenant::from_bytes([2; 32]);

/// What a tenant can see of one lookup. Keys are its own and say nothing about others.
fn seen(lookup: &Lookup) -> (usize, Reuse, Vec<crate::lookup::Hit>) {
    (lookup.tokens, lookup.reuse(), lookup.hits.clone())
}

#[derive(Clone, Debug)]
enum Step {
    Serve(Vec<u32>),
    Ask(Vec<u32>),
    Restart,
}

/// Few tokens, so that the two ask for the same prompts all the time.
fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let prompt = || proptest::collection::vec(0_u32..2, 1..13);
    let step = prop_oneof![
        4 => prompt().prop_map(Step::Serve),
        4 => prompt().prop_map(Step::Ask),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..most)
}

/// A cache on disk with a tenant's view of everything that happened in it.
struct Trial {
    dir: tempfile::TempDir,
    cache: Option<PrefixCache>,
}

impl Trial {
    fn new() -> Self {
        let dir = memory_dir();
        let cache = PrefixCache::open(disk_options(dir.path())).ok();
        Self { dir, cache }
    }

    fn take(&mut self, tenant: &Tenant, step: &Step) -> Option<(usize, Reuse, Vec<crate::lookup::Hit>)> {
        let cache = self.cache.as_mut()?;
        match step {
            Step::Serve(prompt) => Some(seen(&serve(cache, tenant, prompt))),
            Step::Ask(prompt) => {
                let lookup = cache.lookup(tenant, prompt, prompt.len());
                let restored = restore(cache, &lookup, 0);
                assert_eq!(restored.tokens, lookup.tokens);
                for brought in &restored.blocks {
                    assert_eq!(brought.block.tenant, *tenant);
                    assert_sound(&brought.block, prompt, brought.used_tokens, true);
                }
                Some(seen(&lookup))
            }
            Step::Restart => {
                self.cache = None;
                self.cache = PrefixCache::open(disk_options(self.dir.path())).ok();
                None
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn what_a_tenant_sees_is_the_same_whoever_else_is_there(
        mine in steps(16),
        others in steps(16),
        order in proptest::collection::vec(any::<bool>(), 32),
    ) {
        let (mut alone, mut together) = (Trial::new(), Trial::new());
        let mut others = others.iter().filter(|step| !matches!(step, Step::Restart));
        let mut order = order.into_iter().cycle();
        for step in &mine {
            while order.next() == Some(true) {
                let Some(step) = others.next() else { break };
                together.take(&BOB, step);
            }
            prop_assert_eq!(alone.take(&ALICE, step), together.take(&ALICE, step), "{:?}", step);
        }
        let numbers = |trial: &Trial| trial.cache.as_ref().map(|cache| cache.tenant_stats(&ALICE));
        prop_assert_eq!(numbers(&alone), numbers(&together));
    }
}

#[test]
fn the_same_prompt_under_two_tenants_is_two_chains_of_blocks() {
    let mut cache =
        PrefixCache::open(CacheOptions { disk: None, ..crate::testing::options(1 << 20) }).unwrap();
    let prompt: Vec<u32> = (0..12).collect();
    let (first, second) = (Tenant::derive(b"key one"), Tenant::derive(b"key two"));
    assert_eq!(serve(&mut cache, &first, &prompt).tokens, 0);
    assert_eq!(serve(&mut cache, &second, &prompt).tokens, 0);
    assert_eq!(cache.stats().resident.blocks, 6);
    let keys = |cache: &mut PrefixCache, tenant: &Tenant| {
        cache.lookup(tenant, &prompt, 12).hits.iter().map(|hit| hit.key).collect::<Vec<_>>()
    };
    let (ours, theirs) = (keys(&mut cache, &first), keys(&mut cache, &second));
    assert!(ours.len() == 3 && theirs.iter().all(|key| !ours.contains(key)));
    // A key that leaked is of no use either: a lease checks whose block it is.
    let lookup = cache.lookup(&first, &prompt, 12);
    assert_eq!(cache.lease(&second, &lookup).tokens(), 0);
}
