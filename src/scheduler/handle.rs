//! The scheduler as the rest of the process sees it: submit, watch, drain.
//!
//! Handles are cheap to clone and usable from any thread. All of them talk to one bounded inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use prefixd_cache::{CacheStats, Lookup, Tenant, TenantStats, WallClock};
use prefixd_engine::{EngineInfo, Gate, Job, MemoryUse};
use tokio::sync::mpsc;

use super::agents::AgentMessage;
use super::batch_sizes::BatchSizes;
use super::message::{Event, Request, Stream, SubmitError};
use super::options::Clock;

/// What the inbox carries.
pub(super) enum Message {
    /// A sequence to compute.
    Submit(Submission),
    /// Work for the gate.
    Job(Job),
    /// Forget every cached block, agent and context.
    Clear(Sender<()>),
    /// Say what the cache knows of a prompt.
    Probe { tenant: Tenant, prompt: Vec<u32>, reply: Sender<Option<Lookup>> },
    /// What a tenant's lookups found.
    TenantStats { tenant: Tenant, reply: Sender<Option<TenantStats>> },
    /// About agents.
    Agents(AgentMessage),
    /// Take no more; finish what runs until the deadline; write what is queued; stop.
    Drain(Instant),
}

/// A request with its way back.
pub(super) struct Submission {
    pub request: Request,
    pub events: mpsc::Sender<Event>,
    pub submitted: Instant,
    pub place: Place,
}

/// A place in the queue. Whoever drops it gives it back.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// One more place, and how many were taken before.
    pub fn take(taken: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        (Self(taken.clone()), before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the scheduler is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Loading the model or opening the cache; nothing is served yet.
    Starting,
    /// Serving.
    Ready,
    /// The engine fails, step after step, and is tried again; requests are refused meanwhile. Says why.
    Failing(String),
    /// Finishing; takes no more requests.
    Draining,
    /// Stopped in order.
    Stopped,
    /// Died; nothing is served until the process restarts.
    Failed(String),
}

/// A snapshot of the scheduler, renewed at every step.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// How it is.
    pub condition: Condition,
    /// Requests that wait for a row.
    pub waiting: usize,
    /// Sequences whose prefix is being read or whose prompt is being computed.
    pub prefilling: usize,
    /// Sequences in the decode batch.
    pub decoding: usize,
    /// Steps since the start.
    pub steps: u64,
    /// Sequences that ended well.
    pub finished: u64,
    /// Sequences whose client left.
    pub cancelled: u64,
    /// Sequences that failed.
    pub failed: u64,
    /// Prompt tokens seen.
    pub prompt_tokens: u64,
    /// Of these, tokens not computed again.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Decode steps by their number of rows.
    pub batch_sizes: BatchSizes,
    /// Memory of the device that computes.
    #[serde(skip)]
    pub memory: MemoryUse,
    /// The prefix cache.
    pub cache: CacheStats,
}

/// What handles and the scheduler thread share.
pub(super) struct Shared {
    pub status: Mutex<Status>,
    /// Requests accepted and not yet given a row.
    pub waiting: Arc<AtomicUsize>,
}

impl Shared {
    /// Before the first step.
    pub fn new() -> Self {
        let status = Status {
            condition: Condition::Starting,
            waiting: 0,
            prefilling: 0,
            decoding: 0,
            steps: 0,
            finished: 0,
            cancelled: 0,
            failed: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            batch_sizes: BatchSizes::default(),
            memory: MemoryUse::default(),
            cache: CacheStats::default(),
        };
        Self { status: Mutex::new(status), waiting: Arc::default() }
    }
}

/// Talks to the scheduler thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) inbox: Sender<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) info: Arc<EngineInfo>,
    pub(super) gate: Gate,
    pub(super) queue_limit: usize,
    pub(super) clock: Clock,
    pub(super) time_of_day: WallClock,
}

impl Handle {
    /// What is loaded.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The way to the engine's thread.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The time of day, in microseconds since 1970.
    pub fn now_us(&self) -> u64 {
        (self.time_of_day)()
    }

    /// How the scheduler is and what it did so far.
    pub fn status(&self) -> Status {
        let mut status = self.shared.status.lock().clone();
        status.waiting = self.shared.waiting.load(Ordering::Relaxed);
        status
    }

    /// Hands in a request. Never waits.
    pub fn submit(&self, mut request: Request) -> Result<Stream, SubmitError> {
        self.check(&request)?;
        request.max_tokens = request.max_tokens.clamp(1, self.info.context_tokens - request.prompt.len());
        let (place, waiting) = Place::take(&self.shared.waiting);
        let busy = SubmitError::Busy { waiting, limit: self.queue_limit };
        if waiting >= self.queue_limit {
            return Err(busy);
        }
        let (events, stream) = Stream::channel(request.max_tokens);
        let submission = Submission { request, events, submitted: (self.clock)(), place };
        match self.inbox.try_send(Message::Submit(submission)) {
            Ok(()) => Ok(stream),
            Err(TrySendError::Full(_)) => Err(busy),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Closed),
        }
    }

    /// Forgets every cached block, in RAM and on disk, every agent and every context. Returns when it is done.
    pub fn clear_cache(&self) -> Result<(), SubmitError> {
        self.ask(Message::Clear)
    }

    /// What the cache knows of `prompt`, but for its last token, which is always computed. `None` without a cache.
    /// Returns between two steps.
    pub fn probe(&self, tenant: Tenant, prompt: Vec<u32>) -> Result<Option<Lookup>, SubmitError> {
        if prompt.is_empty() {
            return Err(SubmitError::Empty);
        }
        self.ask(|reply| Message::Probe { tenant, prompt, reply })
    }

    /// What the lookups of one tenant found; `None` without a cache. Returns between two steps.
    pub fn tenant_stats(&self, tenant: Tenant) -> Result<Option<TenantStats>, SubmitError> {
        self.ask(|reply| Message::TenantStats { tenant, reply })
    }

    /// Sends a question and waits for the answer, which comes between two steps.
    pub(super) fn ask<T>(&self, message: impl FnOnce(Sender<T>) -> Message) -> Result<T, SubmitError> {
        let (reply, wait) = crossbeam_channel::bounded(1);
        self.inbox.send(message(reply)).map_err(|_| SubmitError::Closed)?;
        wait.recv().map_err(|_| SubmitError::Closed)
    }

    /// Starts the drain: what runs may finish within `grace`. Returns at once; the thread's end says that it is done.
    pub fn drain(&self, grace: Duration) {
        // A scheduler that is gone already has nothing left to drain.
        self.inbox.send(Message::Drain((self.clock)() + grace)).ok();
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let (prompt, info) = (&request.prompt, &self.info);
        match &self.shared.status.lock().condition {
            Condition::Ready => {}
            Condition::Failing(reason) => return Err(SubmitError::Failing { reason: reason.clone() }),
            _ => return Err(SubmitError::Closed),
        }
        if prompt.is_empty() {
            return Err(SubmitError::Empty);
        }
        if prompt.len() >= info.context_tokens {
            return Err(SubmitError::TooLong {
                prompt_tokens: prompt.len(),
                context_tokens: info.context_tokens,
            });
        }
        if let Some(at) = prompt.iter().position(|token| *token as usize >= info.vocab) {
            return Err(SubmitError::Vocabulary { token: prompt[at], at, vocab: info.vocab });
        }
        Ok(())
    }
}
