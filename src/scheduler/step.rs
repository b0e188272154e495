//! The step function and the state it works on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use prefixd_cache::{PrefixCache, Restored};
use prefixd_engine::{Engine, Owner};

use super::admission::Restoring;
use super::agents::{Agents, Contexts, Eviction};
use super::handle::{Condition, Message, Shared, Submission};
use super::message::{Event, Failure};
use super::options::SchedulerOptions;
use super::pace::Pace;
use super::sequence::{Row, Sequence};

/// How often an idle scheduler looks after its cache (reports of the eviction service, budgets).
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// What a step left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Work remains.
    Worked,
    /// Nothing to do until a message comes.
    Idle,
    /// Drained.
    Stopped,
}

/// What a restore brought, under its ticket.
pub(super) type Arrival = (u64, Restored);

/// Everything the scheduler thread owns.
pub struct Scheduler<E: Engine> {
    pub(super) engine: E,
    /// `None` when the server runs without a cache.
    pub(super) cache: Option<PrefixCache>,
    pub(super) options: SchedulerOptions,
    pub(super) owner: Owner,
    pub(super) inbox: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    /// Restores that came back, by ticket. Unbounded, since the bound is elsewhere: one message a restore, and a row
    /// restores once; a bound here could block a reader behind sequences that were abandoned meanwhile.
    pub(super) restored: (Sender<Arrival>, Receiver<Arrival>),
    pub(super) tickets: u64,
    pub(super) waiting: VecDeque<Submission>,
    pub(super) restoring: Vec<Restoring>,
    /// The batch; row `i` belongs to `rows[i]`.
    pub(super) batch: E::Kv,
    pub(super) rows: Vec<Row>,
    /// Chunks of prompts computed so far: whose prompt waited longest is next.
    pub(super) turns: u64,
    pub(super) pace: Pace,
    pub(super) draining: Option<Instant>,
    pub(super) agents: Agents,
    pub(super) contexts: Contexts,
    /// Agents on their way to disk.
    pub(super) evictions: Vec<Eviction>,
}

impl<E: Engine> Scheduler<E> {
    pub(super) fn new(
        engine: E,
        cache: Option<PrefixCache>,
        options: SchedulerOptions,
        owner: Owner,
        inbox: Receiver<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let batch = engine.empty();
        let pace = Pace::new(options.decode_slowdown);
        let restored = crossbeam_channel::unbounded();
        let budget_bytes = cache.as_ref().map_or(0, PrefixCache::resident_budget_bytes) as f64;
        let limit_bytes = (budget_bytes * options.pin_share) as u64;
        let agents = Agents::new(options.agent_ttl, limit_bytes, engine.info().state.token_bytes());
        Self {
            engine,
            cache,
            options,
            owner,
            inbox,
            shared,
            restored,
            tickets: 0,
            waiting: VecDeque::new(),
            restoring: Vec::new(),
            batch,
            rows: Vec::new(),
            turns: 0,
            pace,
            draining: None,
            agents,
            contexts: Contexts::default(),
            evictions: Vec::new(),
        }
    }

    /// One round: messages, cancels, admission, one pass of computing, housekeeping.
    pub fn step(&mut self) -> StepOutcome {
        let connected = self.receive();
        self.drop_abandoned();
        self.admit();
        self.take_restored();
        self.compute();
        if let Some(cache) = &mut self.cache {
            cache.poll();
        }
        self.go_on_evicting();
        self.agents.sweep(&mut self.cache, (self.options.time_of_day)());
        let outcome = self.outcome(connected);
        self.publish();
        outcome
    }

    /// Steps until drained. Sleeps only when there is nothing to do.
    pub(super) fn run(&mut self) {
        loop {
            match self.step() {
                StepOutcome::Worked => {}
                StepOutcome::Idle => self.wait(),
                StepOutcome::Stopped => return,
            }
        }
    }

    fn wait(&mut self) {
        let mut ready = crossbeam_channel::Select::new();
        ready.recv(&self.inbox);
        ready.recv(&self.restored.1);
        // Which channel woke us does not matter, and neither does a time-out: the next step reads both.
        ready.ready_timeout(HOUSEKEEPING).ok();
    }

    /// Takes what the inbox holds. False when no handle is left.
    pub(super) fn receive(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(message) => self.handle(message),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(submission) if self.draining.is_some() => {
                self.refuse(&submission, &Failure::ShuttingDown);
            }
            Message::Submit(submission) => self.waiting.push_back(submission),
            Message::Job(job) => self.owner.execute(job),
            Message::Clear(done) => {
                self.agents.clear(&mut self.cache);
                self.contexts.clear();
                if let Some(cache) = &mut self.cache {
                    cache.clear();
                }
                // A caller that left needs no answer.
                done.send(()).ok();
            }
            Message::TenantStats { tenant, reply } => {
                // A caller that left needs no answer.
                reply.send(self.cache.as_ref().map(|cache| cache.tenant_stats(&tenant))).ok();
            }
            Message::Probe { tenant, prompt, reply } => {
                let limit = prompt.len().saturating_sub(1);
                let lookup = self.cache.as_mut().map(|cache| cache.lookup(&tenant, &prompt, limit));
                reply.send(lookup).ok();
            }
            Message::Agents(message) => self.answer(message),
            Message::Drain(deadline) => {
                self.draining = Some(self.draining.map_or(deadline, |earlier| earlier.min(deadline)));
                self.shared.status.lock().condition = Condition::Draining;
            }
        }
    }

    fn refuse(&self, submission: &Submission, failure: &Failure) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        // A client that left needs no answer.
        submission.events.try_send(Event::Failed(failure.clone())).ok();
    }

    fn outcome(&mut self, connected: bool) -> StepOutcome {
        let busy = !(self.waiting.is_empty() && self.restoring.is_empty() && self.rows.is_empty());
        let late = self.draining.is_some_and(|deadline| (self.options.clock)() >= deadline);
        if late {
            self.fail_all(&Failure::ShuttingDown);
        }
        if (self.draining.is_some() || !connected) && (late || !busy) {
            return StepOutcome::Stopped;
        }
        // Sequences that only wait (for a read, or for another's prefix) wake us by a message.
        if self.rows.is_empty() { StepOutcome::Idle } else { StepOutcome::Worked }
    }

    /// Ends every sequence badly, waiting ones included, and gives everything back.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        for submission in std::mem::take(&mut self.waiting) {
            self.refuse(&submission, failure);
        }
        let mut sequences: Vec<Sequence> =
            self.restoring.drain(..).map(|restoring| restoring.sequence).collect();
        sequences.extend(self.rows.drain(..).map(|row| row.sequence));
        self.batch = self.engine.empty();
        for sequence in sequences {
            self.fail_one(sequence, failure.clone());
        }
    }

    /// Frees what belongs to clients that left.
    fn drop_abandoned(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|submission| !submission.events.is_closed());
        let mut cancelled = before - self.waiting.len();
        self.shared.waiting.fetch_sub(cancelled, Ordering::Relaxed);
        cancelled += self.drop_abandoned_restores() + self.drop_abandoned_rows();
        if cancelled > 0 {
            self.shared.status.lock().cancelled += cancelled as u64;
        }
    }

    fn publish(&self) {
        let mut status = self.shared.status.lock();
        status.steps += 1;
        status.memory = self.engine.memory();
        status.decoding = self.rows.iter().filter(|row| row.is_decoding()).count();
        status.prefilling = self.restoring.len() + self.rows.len() - status.decoding;
        if let Some(cache) = &self.cache {
            status.cache = cache.stats();
        }
    }
}
