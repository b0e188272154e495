//! The step function and the parts it calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use prefixd_cache::PrefixCache;
use prefixd_engine::{Engine, Owner};

use super::batch::Batch;
use super::engine_health::EngineHealth;
use super::handle::{Condition, Message, Shared};
use super::message::Failure;
use super::options::SchedulerOptions;
use super::persist::Persist;
use super::prefills::Prefills;
use super::queue::{Queue, refuse};
use super::restores::Restores;
use super::sequence::Sequence;

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

/// Everything the scheduler thread owns, by parts. A sequence passes through them from top to bottom.
pub struct Scheduler<E: Engine> {
    pub(super) engine: E,
    pub(super) health: EngineHealth,
    pub(super) queue: Queue,
    pub(super) restores: Restores<E::Kv>,
    pub(super) prefills: Prefills,
    pub(super) batch: Batch<E>,
    pub(super) persist: Persist,
    pub(super) options: SchedulerOptions,
    pub(super) shared: Arc<Shared>,
    owner: Owner,
    inbox: Receiver<Message>,
    draining: Option<Instant>,
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
        Self {
            health: EngineHealth::default(),
            queue: Queue::default(),
            restores: Restores::new(options.clock.clone(), options.block_tokens),
            prefills: Prefills::new(&options),
            batch: Batch::new(&engine),
            persist: Persist::new(cache, &options, &engine.info().state),
            engine,
            options,
            shared,
            owner,
            inbox,
            draining: None,
        }
    }

    /// One round: messages, cancels, admission, a piece of a restore, one pass of computing, housekeeping.
    pub fn step(&mut self) -> StepOutcome {
        let connected = self.receive();
        self.drop_abandoned();
        self.admit();
        self.take_restored();
        let imported = self.import();
        self.compute(imported);
        self.health.try_again(&mut self.engine, (self.options.clock)());
        let outcome = self.outcome(connected);
        // Behind all that ends sequences: what their leases held is free.
        self.persist.tend();
        self.shared.status.lock().steps += 1;
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

    fn wait(&self) {
        let mut ready = crossbeam_channel::Select::new();
        ready.recv(&self.inbox);
        ready.recv(self.restores.arrivals());
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

    /// A caller that left needs no answer: what cannot be sent is dropped.
    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(submission) if self.draining.is_some() => {
                refuse(&submission, &Failure::ShuttingDown);
            }
            Message::Submit(submission) => self.queue.push(submission),
            Message::Job(job) => self.owner.execute(job),
            Message::Clear(done) => {
                self.persist.clear();
                done.send(()).ok();
            }
            Message::TenantStats { tenant, reply } => {
                reply.send(self.persist.tenant_stats(&tenant)).ok();
            }
            Message::Probe { tenant, prompt, reply } => {
                reply.send(self.persist.probe(&tenant, &prompt)).ok();
            }
            Message::Agents(message) => self.persist.answer(message),
            Message::Drain(deadline) => {
                self.draining = Some(self.draining.map_or(deadline, |earlier| earlier.min(deadline)));
                self.shared.status.lock().condition = Condition::Draining;
            }
        }
    }

    fn outcome(&mut self, connected: bool) -> StepOutcome {
        let late = self.draining.is_some_and(|deadline| (self.options.clock)() >= deadline);
        let busy = !(self.queue.is_empty() && self.restores.is_empty() && self.batch.is_empty());
        if late {
            self.fail_all(&Failure::ShuttingDown);
        }
        if (self.draining.is_some() || !connected) && (late || !busy) {
            return StepOutcome::Stopped;
        }
        // Sequences that only wait (for a read, or for another's prefix) wake us by a message.
        let computing = self.restores.can_import() || !self.batch.is_empty();
        if computing { StepOutcome::Worked } else { StepOutcome::Idle }
    }

    /// Ends every sequence badly, waiting ones included, and gives everything back.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        self.queue.refuse_all(failure);
        let mut sequences = self.restores.take_all();
        sequences.extend(self.batch.take_all(&self.engine));
        for sequence in sequences {
            self.fail_one(&sequence, failure);
        }
    }

    /// Ends one sequence badly; the others go on.
    pub(super) fn fail_one(&mut self, sequence: &Sequence, failure: &Failure) {
        tracing::warn!(%failure, "a sequence failed");
        sequence.fail(failure.clone());
        self.shared.status.lock().failed += 1;
    }

    /// Frees what belongs to clients that left.
    fn drop_abandoned(&mut self) {
        let cancelled =
            self.queue.drop_abandoned() + self.restores.drop_abandoned() + self.drop_abandoned_rows();
        if cancelled > 0 {
            self.shared.status.lock().cancelled += cancelled as u64;
        }
    }

    /// Says how things are.
    pub(super) fn publish(&self) {
        let decoding = self.batch.decoding();
        let mut status = self.shared.status.lock();
        status.memory = self.engine.memory();
        status.decoding = decoding;
        status.prefilling = self.occupied() - decoding;
        if self.draining.is_none() {
            status.condition = self.health.reason().map_or(Condition::Ready, Condition::Failing);
        }
        if let Some(stats) = self.persist.stats() {
            status.cache = stats;
        }
    }
}
