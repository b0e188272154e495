//! Who is known, and with which blocks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prefixd_cache::{BlockKey, PrefixCache, Tenant};

/// Agents of one tenant at most.
const MOST_AGENTS_OF_TENANT: usize = 1_024;
/// Agents at most.
const MOST_AGENTS: usize = 8_192;
/// Tokens of all agents together at most: 64 MB.
const MOST_TOKENS: usize = 16 << 20;
/// Blocks of an agent's former chains that are remembered, to be freed with it.
const MOST_EARLIER_BLOCKS: usize = 4_096;
/// Between two looks for agents whose time is over.
const SWEEP_EVERY_US: u64 = 1_000_000;

/// See the module's documentation.
pub(in crate::scheduler) struct Agents {
    by_tenant: HashMap<Tenant, HashMap<String, Agent>>,
    ttl_us: u64,
    sweep_at_us: u64,
    /// KV bytes of agents whose blocks are preferred, and how many they may be.
    preferred_bytes: u64,
    limit_bytes: u64,
    kv_bytes_per_token: u64,
}

/// One agent.
#[derive(Default)]
pub(in crate::scheduler) struct Agent {
    /// Prompt and answer of its last turn.
    pub tokens: Arc<[u32]>,
    /// The blocks that hold them.
    pub chain: Vec<BlockKey>,
    /// Blocks that held turns which the last one does not go on from.
    pub earlier: Vec<BlockKey>,
    pub preferred: bool,
    pub created_us: u64,
    pub last_use_us: u64,
    pub turns: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
}

/// A turn that ended.
pub(in crate::scheduler) struct Turn<'a> {
    /// What the next turn goes on from.
    pub tokens: &'a [u32],
    /// What was computed: that, but for the last token, or more of an answer that was cut off.
    pub computed: &'a [u32],
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
}

impl Agents {
    /// Nobody yet. `limit_bytes` of KV may be preferred.
    pub fn new(ttl: Duration, limit_bytes: u64, kv_bytes_per_token: u64) -> Self {
        Self {
            by_tenant: HashMap::new(),
            ttl_us: u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX),
            sweep_at_us: 0,
            preferred_bytes: 0,
            limit_bytes,
            kv_bytes_per_token,
        }
    }

    /// An agent that lives.
    pub fn get(&self, tenant: &Tenant, id: &str, now_us: u64) -> Option<&Agent> {
        self.by_tenant.get(tenant)?.get(id).filter(|agent| now_us < self.ends_us(agent))
    }

    /// A tenant's living agents, by name.
    pub fn of(&self, tenant: &Tenant, now_us: u64) -> Vec<(&str, &Agent)> {
        let all = self.by_tenant.get(tenant).into_iter().flatten();
        let mut living: Vec<_> = all
            .filter(|(_, agent)| now_us < self.ends_us(agent))
            .map(|(id, agent)| (id.as_str(), agent))
            .collect();
        living.sort_unstable_by_key(|(id, _)| *id);
        living
    }

    /// When an agent that is not used again is forgotten.
    pub fn ends_us(&self, agent: &Agent) -> u64 {
        agent.last_use_us.saturating_add(self.ttl_us)
    }

    /// Everybody's agents and tokens.
    pub fn sums(&self) -> (usize, usize) {
        let all = || self.by_tenant.values().flat_map(HashMap::values);
        (all().count(), all().map(|agent| agent.tokens.len()).sum())
    }

    /// Notes a turn of an agent, known or new.
    pub fn note(
        &mut self,
        cache: &mut Option<PrefixCache>,
        tenant: Tenant,
        id: &str,
        turn: &Turn<'_>,
        now_us: u64,
    ) {
        let mut agent = match self.take(cache, &tenant, id) {
            Some(agent) => agent,
            None => Agent { created_us: now_us, ..Agent::default() },
        };
        self.make_room(cache, &tenant, turn.tokens.len());
        let chain = cache.as_ref().map(|cache| cache.blocks_of(&tenant, turn.computed)).unwrap_or_default();
        let held: HashSet<BlockKey> = chain.iter().copied().collect();
        agent.earlier.append(&mut agent.chain);
        agent.earlier.retain(|key| !held.contains(key));
        agent.earlier.drain(..agent.earlier.len().saturating_sub(MOST_EARLIER_BLOCKS));
        agent.chain = chain;
        agent.tokens = Arc::from(turn.tokens);
        agent.last_use_us = now_us;
        agent.turns += 1;
        agent.prompt_tokens += turn.prompt_tokens as u64;
        agent.cached_tokens += turn.cached_tokens as u64;
        agent.completion_tokens += turn.completion_tokens as u64;
        agent.preferred = true;
        self.preferred_bytes += self.bytes(&agent);
        if let Some(cache) = cache {
            cache.prefer(&agent.chain);
        }
        self.by_tenant.entry(tenant).or_default().insert(id.to_owned(), agent);
        self.keep_to_limit(cache);
    }

    /// Takes an agent out; its blocks are preferred no more.
    pub fn take(&mut self, cache: &mut Option<PrefixCache>, tenant: &Tenant, id: &str) -> Option<Agent> {
        let agents = self.by_tenant.get_mut(tenant)?;
        let mut agent = agents.remove(id)?;
        if agents.is_empty() {
            self.by_tenant.remove(tenant);
        }
        if std::mem::take(&mut agent.preferred) {
            self.preferred_bytes -= self.bytes(&agent);
            if let Some(cache) = cache {
                cache.unprefer(&agent.chain);
            }
        }
        Some(agent)
    }

    /// Blocks of a tenant's agents.
    pub fn blocks_of(&self, tenant: &Tenant) -> HashSet<BlockKey> {
        let agents = self.by_tenant.get(tenant).into_iter().flat_map(HashMap::values);
        agents.flat_map(|agent| agent.chain.iter().copied()).collect()
    }

    /// Forgets agents whose time is over. Cheap when called often.
    pub fn sweep(&mut self, cache: &mut Option<PrefixCache>, now_us: u64) {
        if now_us < self.sweep_at_us {
            return;
        }
        self.sweep_at_us = now_us.saturating_add(SWEEP_EVERY_US);
        let over: Vec<(Tenant, String)> = self
            .all()
            .filter(|(.., agent)| now_us >= self.ends_us(agent))
            .map(|(tenant, id, _)| (*tenant, id.to_owned()))
            .collect();
        for (tenant, id) in over {
            self.take(cache, &tenant, &id);
        }
    }

    /// Forgets everybody.
    pub fn clear(&mut self, cache: &mut Option<PrefixCache>) {
        let all: Vec<(Tenant, String)> = self.all().map(|(tenant, id, _)| (*tenant, id.to_owned())).collect();
        for (tenant, id) in all {
            self.take(cache, &tenant, &id);
        }
    }

    /// Invariant 2, before an agent with so many tokens comes in.
    fn make_room(&mut self, cache: &mut Option<PrefixCache>, tenant: &Tenant, tokens: usize) {
        let count = |agents: &HashMap<String, Agent>| agents.len();
        if self.by_tenant.get(tenant).map_or(0, count) >= MOST_AGENTS_OF_TENANT {
            self.drop_oldest(cache, *tenant);
        }
        loop {
            let (agents, held) = self.sums();
            if agents == 0 || (agents < MOST_AGENTS && held + tokens <= MOST_TOKENS) {
                return;
            }
            let size = |agents: &HashMap<String, Agent>| -> usize {
                // An agent counts as much as its share of the bound on agents.
                agents.values().map(|agent| agent.tokens.len() + MOST_TOKENS / MOST_AGENTS).sum()
            };
            let largest = self.by_tenant.iter().max_by_key(|(_, agents)| size(agents)).map(|(of, _)| *of);
            let Some(largest) = largest else { return };
            self.drop_oldest(cache, largest);
        }
    }

    fn drop_oldest(&mut self, cache: &mut Option<PrefixCache>, tenant: Tenant) {
        let agents = self.by_tenant.get(&tenant).into_iter().flatten();
        let oldest = agents.min_by_key(|(_, agent)| agent.last_use_us).map(|(id, _)| id.clone());
        if let Some(id) = oldest {
            self.take(cache, &tenant, &id);
        }
    }

    /// Invariant 3.
    fn keep_to_limit(&mut self, cache: &mut Option<PrefixCache>) {
        while self.preferred_bytes > self.limit_bytes {
            let agents = self.by_tenant.values_mut().flat_map(HashMap::values_mut);
            let oldest = agents.filter(|agent| agent.preferred).min_by_key(|agent| agent.last_use_us);
            let Some(agent) = oldest else { return };
            agent.preferred = false;
            self.preferred_bytes -= agent.tokens.len() as u64 * self.kv_bytes_per_token;
            if let Some(cache) = cache {
                cache.unprefer(&agent.chain);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Tenant, &str, &Agent)> {
        let agents = self.by_tenant.iter();
        agents.flat_map(|(tenant, agents)| agents.iter().map(move |(id, agent)| (tenant, id.as_str(), agent)))
    }

    fn bytes(&self, agent: &Agent) -> u64 {
        agent.tokens.len() as u64 * self.kv_bytes_per_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Tenant = Tenant::from_bytes([1; 32]);
    const BOB: Tenant = Tenant::from_bytes([2; 32]);
    const HOUR_US: u64 = 3_600_000_000;

    fn agents(limit_bytes: u64) -> Agents {
        Agents::new(Duration::from_hours(1), limit_bytes, 1)
    }

    fn note(agents: &mut Agents, tenant: Tenant, id: &str, tokens: usize, now_us: u64) {
        let tokens = vec![1; tokens];
        let turn = Turn {
            tokens: &tokens,
            computed: &tokens,
            prompt_tokens: tokens.len(),
            cached_tokens: 0,
            completion_tokens: 1,
        };
        agents.note(&mut None, tenant, id, &turn, now_us);
    }

    #[test]
    fn one_tenants_agents_are_bounded_and_push_nobody_elses_out() {
        let mut agents = agents(u64::MAX);
        note(&mut agents, BOB, "bob", 1, 0);
        for at in 0..MOST_AGENTS_OF_TENANT as u64 + 10 {
            note(&mut agents, ALICE, &at.to_string(), 1, at + 1);
        }
        assert_eq!(agents.of(&ALICE, 1).len(), MOST_AGENTS_OF_TENANT);
        assert!(agents.get(&ALICE, "9", 1).is_none() && agents.get(&ALICE, "10", 1).is_some());
        assert!(agents.get(&BOB, "bob", 1).is_some() && agents.get(&ALICE, "bob", 1).is_none());
    }

    #[test]
    fn tokens_are_bounded_and_the_tenant_that_has_most_gives_room() {
        let mut agents = agents(u64::MAX);
        note(&mut agents, BOB, "bob", 10, 0);
        for at in 0..20 {
            note(&mut agents, ALICE, &at.to_string(), MOST_TOKENS / 10, at + 1);
        }
        let (_, tokens) = agents.sums();
        assert!(tokens <= MOST_TOKENS, "{tokens}");
        assert!(agents.get(&BOB, "bob", 1).is_some());
        assert!(agents.get(&ALICE, "19", 1).is_some() && agents.get(&ALICE, "5", 1).is_none());
    }

    #[test]
    fn an_agent_ends_with_its_time_to_live_and_preference_with_its_share() {
        let mut agents = agents(100);
        note(&mut agents, ALICE, "a", 60, 0);
        note(&mut agents, ALICE, "b", 60, 1);
        assert!(
            !agents.get(&ALICE, "a", 1).unwrap().preferred && agents.get(&ALICE, "b", 1).unwrap().preferred
        );
        note(&mut agents, ALICE, "a", 60, 2);
        assert!(
            agents.get(&ALICE, "a", 2).unwrap().preferred && !agents.get(&ALICE, "b", 2).unwrap().preferred
        );
        assert_eq!(agents.preferred_bytes, 60);
        assert!(
            agents.get(&ALICE, "b", HOUR_US + 1).is_none() && agents.get(&ALICE, "a", HOUR_US + 1).is_some()
        );
        agents.sweep(&mut None, HOUR_US + 2);
        assert_eq!((agents.sums(), agents.preferred_bytes), ((0, 0), 0));
    }
}
