//! What others ask of the registry, and its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use prefixd_cache::{BlockKey, Freed, Moved, PrefixCache, PrefixSize, Tenant};
use serde::Serialize;
use utoipa::ToSchema;

use super::contexts::Context;
use super::registry::{Agent, Turn};
use crate::scheduler::handle::Handle;
use crate::scheduler::message::SubmitError;
use crate::scheduler::persist::Persist;
use crate::scheduler::sequence::Sequence;

/// How long blocks may take to reach the disk before they leave RAM.
const EVICTION_LIMIT: Duration = Duration::from_secs(20);
const SECOND_US: u64 = 1_000_000;

/// An agent as its tenant may see it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AgentState {
    /// Its name.
    pub agent_id: String,
    /// Prompt and answer of the last turn: what the next one goes on from.
    pub tokens: usize,
    /// Blocks that hold them.
    pub blocks: usize,
    /// The last of those: it names the whole chain.
    #[schema(required)]
    pub last_block: Option<String>,
    /// Where they are.
    #[serde(flatten)]
    pub size: PrefixSize,
    /// Whether its blocks leave after others.
    pub preferred: bool,
    /// Turns so far.
    pub turns: u64,
    /// Prompt tokens of all turns.
    pub prompt_tokens: u64,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: u64,
    /// Tokens generated in all turns.
    pub completion_tokens: u64,
    /// Its first turn ended.
    pub created_at: u64,
    /// Its last turn ended.
    pub last_used_at: u64,
    /// When it is forgotten if it is not used again.
    pub expires_at: u64,
}

/// A context as its tenant may see it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ContextState {
    /// Its name.
    pub name: String,
    /// Tokens that every prompt that refers to it begins with.
    pub tokens: usize,
    /// Blocks that hold them.
    pub blocks: usize,
    /// Where they are, and how many are pinned.
    #[serde(flatten)]
    pub size: PrefixSize,
    /// When it was put.
    pub created_at: u64,
    /// When it ends.
    pub expires_at: u64,
}

/// What moving an agent to disk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Evicted {
    /// Blocks that left RAM and are on disk.
    pub moved_blocks: u64,
    /// RAM that they took.
    pub moved_bytes: u64,
    /// Blocks that stay in RAM: other agents name them, or the disk did not take them in time.
    pub kept_blocks: u64,
}

/// Why an agent was not moved to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictError {
    /// No such agent.
    Unknown,
    /// There is no disk tier.
    NoDisk,
}

/// A question or an order.
pub(in crate::scheduler) enum AgentMessage {
    List { tenant: Tenant, reply: Sender<Vec<AgentState>> },
    Get { tenant: Tenant, id: String, reply: Sender<Option<AgentState>> },
    Tokens { tenant: Tenant, id: String, reply: Sender<Option<Arc<[u32]>>> },
    Delete { tenant: Tenant, id: String, reply: Sender<Option<Freed>> },
    Evict { tenant: Tenant, id: String, reply: Sender<Result<Evicted, EvictError>> },
    PutContext { tenant: Tenant, name: String, context: Context, reply: Sender<bool> },
    Contexts { tenant: Tenant, reply: Sender<Vec<ContextState>> },
    Context { tenant: Tenant, name: String, reply: Sender<Option<(Context, ContextState)>> },
    DeleteContext { tenant: Tenant, name: String, reply: Sender<Option<Freed>> },
    Sums { reply: Sender<(usize, usize)> },
}

/// Blocks on their way out of RAM.
pub(in crate::scheduler) struct Eviction {
    keys: Vec<BlockKey>,
    so_far: Evicted,
    until: Instant,
    reply: Sender<Result<Evicted, EvictError>>,
}

// A caller that left needs no answer: what cannot be sent is dropped.
impl Persist {
    pub(in crate::scheduler) fn answer(&mut self, message: AgentMessage) {
        let now_us = (self.time_of_day)();
        match message {
            AgentMessage::List { tenant, reply } => {
                let agents = self.agents.of(&tenant, now_us);
                reply.send(agents.into_iter().map(|(id, agent)| self.describe(id, agent)).collect()).ok();
            }
            AgentMessage::Get { tenant, id, reply } => {
                let agent = self.agents.get(&tenant, &id, now_us);
                reply.send(agent.map(|agent| self.describe(&id, agent))).ok();
            }
            AgentMessage::Tokens { tenant, id, reply } => {
                let agent = self.agents.get(&tenant, &id, now_us);
                reply.send(agent.map(|agent| agent.tokens.clone())).ok();
            }
            AgentMessage::Delete { tenant, id, reply } => {
                reply.send(self.delete_agent(&tenant, &id, now_us)).ok();
            }
            AgentMessage::Evict { tenant, id, reply } => self.begin_eviction(&tenant, &id, now_us, reply),
            AgentMessage::PutContext { tenant, name, context, reply } => {
                reply.send(self.contexts.put(tenant, name, context, now_us)).ok();
            }
            AgentMessage::Contexts { tenant, reply } => {
                let all = self.contexts.of(&tenant, now_us);
                let states =
                    all.into_iter().map(|(name, context)| self.describe_context(&tenant, name, context));
                reply.send(states.collect()).ok();
            }
            AgentMessage::Context { tenant, name, reply } => {
                let context = self.contexts.get(&tenant, &name, now_us);
                let state = |context: &Context| self.describe_context(&tenant, &name, context);
                reply.send(context.map(|context| (context.clone(), state(context)))).ok();
            }
            AgentMessage::DeleteContext { tenant, name, reply } => {
                reply.send(self.delete_context(&tenant, &name, now_us)).ok();
            }
            AgentMessage::Sums { reply } => drop(reply.send(self.agents.sums())),
        }
    }

    fn describe(&self, id: &str, agent: &Agent) -> AgentState {
        AgentState {
            agent_id: id.to_owned(),
            tokens: agent.tokens.len(),
            blocks: agent.chain.len(),
            last_block: agent.chain.last().map(ToString::to_string),
            size: self.cache.as_ref().map(|cache| cache.size_of(&agent.chain)).unwrap_or_default(),
            preferred: agent.preferred,
            turns: agent.turns,
            prompt_tokens: agent.prompt_tokens,
            cached_tokens: agent.cached_tokens,
            completion_tokens: agent.completion_tokens,
            created_at: agent.created_us / SECOND_US,
            last_used_at: agent.last_use_us / SECOND_US,
            expires_at: self.agents.ends_us(agent) / SECOND_US,
        }
    }

    fn describe_context(&self, tenant: &Tenant, name: &str, context: &Context) -> ContextState {
        let blocks = |cache: &PrefixCache| cache.blocks_of(tenant, &context.tokens);
        let keys = self.cache.as_ref().map(blocks).unwrap_or_default();
        ContextState {
            name: name.to_owned(),
            tokens: context.tokens.len(),
            blocks: keys.len(),
            size: self.cache.as_ref().map(|cache| cache.size_of(&keys)).unwrap_or_default(),
            created_at: context.created_us / SECOND_US,
            expires_at: context.until_us / SECOND_US,
        }
    }

    /// Ends a context's pins and frees what nobody else needs of it.
    fn delete_context(&mut self, tenant: &Tenant, name: &str, now_us: u64) -> Option<Freed> {
        self.contexts.get(tenant, name, now_us)?;
        let context = self.contexts.take(tenant, name)?;
        let Some(cache) = &mut self.cache else { return Some(Freed::default()) };
        let mut shared = self.agents.blocks_of(tenant);
        let keys = cache.blocks_of(tenant, &context.tokens);
        let others = self.contexts.blocks_of(cache, tenant, now_us);
        // Agents keep blocks without a pin; other contexts keep theirs with it.
        let unpinned: Vec<BlockKey> = keys.iter().copied().filter(|key| !others.contains(key)).collect();
        cache.unpin(&unpinned);
        shared.extend(others);
        Some(cache.free(&keys, &shared))
    }

    /// Frees what the agent computed and nobody else needs.
    fn delete_agent(&mut self, tenant: &Tenant, id: &str, now_us: u64) -> Option<Freed> {
        self.agents.get(tenant, id, now_us)?;
        let agent = self.agents.take(&mut self.cache, tenant, id)?;
        let Some(cache) = &mut self.cache else { return Some(Freed::default()) };
        let keys = [agent.chain, agent.earlier].concat();
        let mut shared = self.agents.blocks_of(tenant);
        shared.extend(self.contexts.blocks_of(cache, tenant, now_us));
        Some(cache.free(&keys, &shared))
    }

    fn begin_eviction(
        &mut self,
        tenant: &Tenant,
        id: &str,
        now_us: u64,
        reply: Sender<Result<Evicted, EvictError>>,
    ) {
        let Some(agent) = self.agents.get(tenant, id, now_us) else {
            reply.send(Err(EvictError::Unknown)).ok();
            return;
        };
        if !self.cache.as_ref().is_some_and(PrefixCache::has_disk) {
            reply.send(Err(EvictError::NoDisk)).ok();
            return;
        }
        let others: std::collections::HashSet<BlockKey> = self
            .agents
            .of(tenant, now_us)
            .into_iter()
            .filter(|(other, _)| *other != id)
            .flat_map(|(_, other)| other.chain.iter().copied())
            .collect();
        let (shared, keys): (Vec<_>, Vec<_>) =
            agent.chain.iter().copied().partition(|key| others.contains(key));
        let so_far = Evicted { kept_blocks: shared.len() as u64, ..Evicted::default() };
        let until = (self.clock)() + EVICTION_LIMIT;
        self.evictions.push(Eviction { keys, so_far, until, reply });
    }

    /// Goes on with what is on its way to disk, and answers what has arrived or took too long.
    pub(in crate::scheduler) fn go_on_evicting(&mut self) {
        let now = (self.clock)();
        let Some(cache) = &mut self.cache else { return };
        self.evictions.retain_mut(|eviction| {
            let Moved { moved_blocks, moved_bytes, waiting_blocks, stuck_blocks } =
                cache.move_to_disk(&eviction.keys);
            eviction.so_far.moved_blocks += moved_blocks;
            eviction.so_far.moved_bytes += moved_bytes;
            if waiting_blocks > 0 && now < eviction.until {
                return true;
            }
            eviction.so_far.kept_blocks += waiting_blocks + stuck_blocks;
            eviction.reply.send(Ok(eviction.so_far)).ok();
            false
        });
    }

    /// Notes the turn of a sequence that has ended, for the agent that it names. `answered`: to its end, so that the next
    /// turn goes on from the answer.
    pub(in crate::scheduler) fn note_turn(&mut self, sequence: &Sequence, answered: bool) {
        let request = &sequence.request;
        let Some(id) = &request.hold.agent else { return };
        let computed = &sequence.tokens[..sequence.tokens.len() - 1];
        let turn = Turn {
            tokens: if answered { &sequence.tokens } else { &request.prompt },
            computed,
            prompt_tokens: sequence.prompt_tokens(),
            cached_tokens: sequence.usage.cached_tokens,
            completion_tokens: sequence.completion_tokens(),
        };
        let now_us = (self.time_of_day)();
        self.agents.note(&mut self.cache, request.tenant, id, &turn, now_us);
    }
}

/// Agents of a tenant. All of it returns between two steps.
impl Handle {
    /// Those that live, by name.
    pub fn agents(&self, tenant: Tenant) -> Result<Vec<AgentState>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::List { tenant, reply })
    }

    /// One of them.
    pub fn agent(&self, tenant: Tenant, id: String) -> Result<Option<AgentState>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Get { tenant, id, reply })
    }

    /// What its next turn goes on from.
    pub fn agent_tokens(&self, tenant: Tenant, id: String) -> Result<Option<Arc<[u32]>>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Tokens { tenant, id, reply })
    }

    /// Forgets it and frees its blocks, but for those that others need.
    pub fn delete_agent(&self, tenant: Tenant, id: String) -> Result<Option<Freed>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Delete { tenant, id, reply })
    }

    /// Moves its blocks out of RAM, to disk, and waits for that.
    pub fn evict_agent(
        &self,
        tenant: Tenant,
        id: String,
    ) -> Result<Result<Evicted, EvictError>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Evict { tenant, id, reply })
    }

    /// Takes a context in, in place of one of the same name. False when the tenant has too many.
    pub fn put_context(&self, tenant: Tenant, name: String, context: Context) -> Result<bool, SubmitError> {
        self.ask_agents(|reply| AgentMessage::PutContext { tenant, name, context, reply })
    }

    /// Contexts that live, by name.
    pub fn contexts(&self, tenant: Tenant) -> Result<Vec<ContextState>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Contexts { tenant, reply })
    }

    /// One of them.
    pub fn context(
        &self,
        tenant: Tenant,
        name: String,
    ) -> Result<Option<(Context, ContextState)>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::Context { tenant, name, reply })
    }

    /// Forgets it, ends its pins and frees its blocks, but for those that others need.
    pub fn delete_context(&self, tenant: Tenant, name: String) -> Result<Option<Freed>, SubmitError> {
        self.ask_agents(|reply| AgentMessage::DeleteContext { tenant, name, reply })
    }

    /// Agents and tokens of all tenants together.
    pub fn agent_sums(&self) -> Result<(usize, usize), SubmitError> {
        self.ask_agents(|reply| AgentMessage::Sums { reply })
    }

    fn ask_agents<T>(&self, message: impl FnOnce(Sender<T>) -> AgentMessage) -> Result<T, SubmitError> {
        self.ask(|reply| crate::scheduler::handle::Message::Agents(message(reply)))
    }
}
