//! Named contexts: beginnings of prompts that were computed and pinned on purpose, for requests to refer to.
//!
//! 1. A tenant's contexts exist for that tenant alone, until their time is over. Each tenant may have so many, of so many
//!    tokens; one more is refused, because nobody asked for another one's end.
//! 2. What they hold of blocks no deletion of an agent frees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use prefixd_cache::{BlockKey, PrefixCache, Tenant};

/// Contexts of one tenant at most.
const MOST_OF_TENANT: usize = 256;
/// Their tokens together at most.
const MOST_TOKENS_OF_TENANT: usize = 2 << 20;
/// Contexts at most.
const MOST: usize = 4_096;

/// A context.
#[derive(Clone, Debug)]
pub struct Context {
    /// What it is made of, as whoever put it reads it.
    pub definition: Arc<str>,
    /// The beginning of every prompt that refers to it.
    pub tokens: Arc<[u32]>,
    /// Microseconds since 1970.
    pub created_us: u64,
    /// When it ends.
    pub until_us: u64,
}

/// All of them.
#[derive(Default)]
pub(in crate::scheduler) struct Contexts(HashMap<Tenant, BTreeMap<String, Context>>);

impl Contexts {
    /// False when there are too many.
    pub fn put(&mut self, tenant: Tenant, name: String, context: Context, now_us: u64) -> bool {
        for of in self.0.values_mut() {
            of.retain(|_, context| now_us < context.until_us);
        }
        self.0.retain(|_, of| !of.is_empty());
        let all: usize = self.0.values().map(BTreeMap::len).sum();
        let own = self.0.get(&tenant);
        let others = || own.into_iter().flatten().filter(|(other, _)| **other != name);
        let tokens: usize = others().map(|(_, context)| context.tokens.len()).sum();
        let full = all >= MOST
            || others().count() >= MOST_OF_TENANT
            || tokens + context.tokens.len() > MOST_TOKENS_OF_TENANT;
        if !full {
            self.0.entry(tenant).or_default().insert(name, context);
        }
        !full
    }

    pub fn get(&self, tenant: &Tenant, name: &str, now_us: u64) -> Option<&Context> {
        self.0.get(tenant)?.get(name).filter(|context| now_us < context.until_us)
    }

    pub fn of(&self, tenant: &Tenant, now_us: u64) -> Vec<(&str, &Context)> {
        let all = self.0.get(tenant).into_iter().flatten();
        all.filter(|(_, context)| now_us < context.until_us)
            .map(|(name, context)| (name.as_str(), context))
            .collect()
    }

    pub fn take(&mut self, tenant: &Tenant, name: &str) -> Option<Context> {
        self.0.get_mut(tenant)?.remove(name)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Blocks of a tenant's contexts.
    pub fn blocks_of(&self, cache: &PrefixCache, tenant: &Tenant, now_us: u64) -> HashSet<BlockKey> {
        let all = self.of(tenant, now_us).into_iter();
        all.flat_map(|(_, context)| cache.blocks_of(tenant, &context.tokens)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Tenant = Tenant::from_bytes([1; 32]);
    const BOB: Tenant = Tenant::from_bytes([2; 32]);

    fn context(tokens: usize, until_us: u64) -> Context {
        Context { definition: "{}".into(), tokens: vec![1; tokens].into(), created_us: 0, until_us }
    }

    #[test]
    fn each_tenant_has_a_bound_and_time_makes_room() {
        let mut contexts = Contexts::default();
        for at in 0..MOST_OF_TENANT {
            assert!(contexts.put(ALICE, at.to_string(), context(1, 10), 0));
        }
        assert!(!contexts.put(ALICE, "more".into(), context(1, 10), 0));
        assert!(contexts.put(ALICE, "0".into(), context(1, 10), 0), "one of them may be put anew");
        assert!(contexts.put(BOB, "more".into(), context(1, 10), 0));
        assert!(!contexts.put(BOB, "long".into(), context(MOST_TOKENS_OF_TENANT, 10), 0));
        assert!(contexts.get(&ALICE, "0", 9).is_some() && contexts.get(&ALICE, "0", 10).is_none());
        assert!(contexts.get(&BOB, "0", 9).is_none());
        assert!(contexts.put(ALICE, "more".into(), context(1, 20), 10));
        assert_eq!(contexts.of(&ALICE, 10).len(), 1);
    }
}
