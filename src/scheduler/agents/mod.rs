//! Agents: names that clients give to conversations, and the chain of blocks behind each.
//!
//! 1. A tenant's agents exist for that tenant alone: no name leads to another's.
//! 2. Memory is bounded, in agents and in tokens. For a newcomer the agent that was used longest ago leaves: of its own
//!    tenant, where that has too many, else of the tenant that has most.
//! 3. While an agent lives, its blocks leave after those of nobody, up to a share of the RAM budget; of the agents beyond it
//!    those used longest ago lose that first. An agent that was not used for the time to live is forgotten; its blocks stay
//!    as long as anybody's.
//! 4. What an agent's name decides is how long blocks stay, never what an answer says.
//!
//! Owned by the scheduler thread. Names and tokens are not kept over a restart; blocks on disk are, and are found again
//! by their tokens.

mod answer;
mod contexts;
mod registry;

pub(super) use answer::{AgentMessage, Eviction};
pub use answer::{AgentState, ContextState, EvictError, Evicted};
pub use contexts::Context;
pub(super) use contexts::Contexts;
pub(super) use registry::Agents;
