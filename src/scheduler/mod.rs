//! The batch scheduler: one thread that owns the engine, the gate, the batch and the prefix cache's tree.
//!
//! A sequence passes through parts that own their state: it waits in the `queue`, its known prefix is read and imported in
//! `restores`, it becomes a row of the `batch`, `prefills` says when which chunk of its prompt is computed, it decodes, and
//! `persist` keeps what it leaves. [`Scheduler::step`] calls them in that order, once; the thread repeats it.
//!
//! 1. Rows join and leave at every step; a prompt that is computed beside them slows them down by a set factor at most.
//! 2. A stream ends by [`Event::Finished`] or [`Event::Failed`], and the batch never waits for its reader.
//! 3. A sequence's blocks are visible to the next lookup as soon as they are computed.
//! 4. What the cache cannot do makes a request slower, never wrong and never failed.
//! 5. Every row, lease and queue place is given back, however its sequence ends.
//!
//! The thread does no file I/O (the eviction service does) and never waits for a client.

mod admission;
mod agents;
mod batch;
mod batch_sizes;
mod compute;
mod engine_health;
mod handle;
mod message;
mod options;
mod pace;
mod persist;
mod prefills;
mod queue;
mod restores;
mod sequence;
mod snapshots;
mod step;
#[cfg(test)]
mod tests;
mod thread;

pub use agents::{AgentState, Context, ContextState, EvictError, Evicted};
pub use batch_sizes::BatchSizes;
pub use handle::{Condition, Handle, Status};
pub use message::{
    Event, Failure, Finish, FinishReason, Hold, PrefixPin, PromptUsage, Request, RestoreParts, SnapshotPoint,
    Stream, SubmitError,
};
pub use options::{Clock, SchedulerOptions};
pub use step::{Scheduler, StepOutcome};
pub use thread::{SchedulerThread, StartError};
