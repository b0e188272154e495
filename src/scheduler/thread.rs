//! The scheduler's thread: builds the engine where it will live, runs the steps, and says how it ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use prefixd_cache::{CacheError, CacheOptions, PrefixCache, Tuning};
use prefixd_engine::{Engine, EngineInfo, EngineThread, Gate, GateError};

use super::handle::{Condition, Handle, Message, Shared};
use super::message::Failure;
use super::options::SchedulerOptions;
use super::step::Scheduler;

/// Why a scheduler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine (a model, mostly) could not be loaded.
    #[error("{0}")]
    Engine(String),
    /// The prefix cache could not be opened.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The operating system refused a thread.
    #[error("the scheduler thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The thread ended before it was ready.
    #[error("the scheduler thread ended before it was ready")]
    Died,
}

/// The running scheduler. Whoever holds it joins it.
pub struct SchedulerThread {
    handle: Handle,
    thread: JoinHandle<()>,
}

type Ready = Result<EngineInfo, StartError>;

impl SchedulerThread {
    /// Starts the thread, builds the engine on it, opens the cache (`cache` says how, once the engine is known), and
    /// returns when it is ready to serve.
    pub fn spawn<E, B, C>(mut options: SchedulerOptions, build: B, cache: C) -> Result<Self, StartError>
    where
        E: Engine + 'static,
        B: FnOnce(&EngineThread) -> Result<E, StartError> + Send + 'static,
        C: FnOnce(&EngineInfo) -> Option<CacheOptions> + Send + 'static,
    {
        // Requests beyond the queue's bound are refused before they get here; the rest is gate jobs, whose callers
        // wait for them anyway.
        let (sender, inbox) = crossbeam_channel::bounded(options.queue_limit + 64);
        let jobs = sender.clone();
        let gate = Gate::new(move |job| jobs.send(Message::Job(job)).map_err(|_| GateError::Closed));
        let shared = Arc::new(Shared::new());
        let (ready, started) = crossbeam_channel::bounded::<Ready>(1);
        let (queue_limit, clock) = (options.queue_limit, options.clock.clone());
        let time_of_day = options.time_of_day.clone();
        let (thread_gate, thread_shared) = (gate.clone(), shared.clone());
        let body = move || {
            let fail = |error| {
                ready.send(Err(error)).ok();
            };
            let Ok(owner) = thread_gate.enter() else { return fail(StartError::Died) };
            let engine = match build(owner.thread()) {
                Ok(engine) => engine,
                Err(error) => return fail(error),
            };
            let mut info = engine.info().clone();
            options.live_bytes = options.live_bytes.min(info.rows_bytes.unwrap_or(u64::MAX));
            let fits = info.state.tokens_within(options.live_bytes, info.context_tokens);
            if fits < info.context_tokens {
                let (model, room_bytes) = (info.context_tokens, options.live_bytes);
                tracing::warn!(
                    model,
                    fits,
                    room_bytes,
                    "the model's context does not fit into memory beside its weights; longer requests are refused"
                );
                info.context_tokens = fits;
            }
            let tuning = Tuning {
                window_tokens: info.state.window_tokens(),
                idle_ttl: options.idle_ttl,
                daily_write_bytes: options.daily_write_bytes,
                pin_share: options.pin_share,
                needs_snapshots: info.state.has_snapshots(),
                snapshot_share: options.snapshot_share,
                disk_is_optional: true,
                memory: info.memory.clone(),
                clock: options.time_of_day.clone(),
                ..Tuning::default()
            };
            let opened = cache(&info).map(|cache| PrefixCache::open_tuned(cache, tuning));
            let cache = match opened.transpose() {
                Ok(cache) => cache,
                Err(error) => return fail(error.into()),
            };
            let mut scheduler = Scheduler::new(engine, cache, options, owner, inbox, thread_shared.clone());
            // Whoever hears that it is ready finds its state told.
            scheduler.publish();
            // Whoever spawned us may have given up; then the drain comes soon.
            ready.send(Ok(info)).ok();
            serve(&mut scheduler, &thread_shared);
        };
        let thread = std::thread::Builder::new().name("prefixd-scheduler".into()).spawn(body)?;
        let info = Arc::new(started.recv().unwrap_or(Err(StartError::Died))?);
        Ok(Self {
            handle: Handle { inbox: sender, shared, info, gate, queue_limit, clock, time_of_day },
            thread,
        })
    }

    /// A handle for others.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the thread has ended: drained, or dead. `Err` says what killed it.
    pub fn join(self) -> Result<(), String> {
        let Self { handle, thread } = self;
        let ended = thread.join();
        match (ended, handle.status().condition) {
            (Err(_), _) => Err("the scheduler thread panicked".into()),
            (Ok(()), Condition::Failed(reason)) => Err(reason),
            (Ok(()), _) => Ok(()),
        }
    }
}

fn serve<E: Engine>(scheduler: &mut Scheduler<E>, shared: &Shared) {
    let ended = catch_unwind(AssertUnwindSafe(|| scheduler.run()));
    let condition = match ended {
        Ok(()) => {
            // What came too late for the last step is refused by name.
            scheduler.receive();
            Condition::Stopped
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let reason = format!("the scheduler panicked: {text}");
            tracing::error!(reason);
            scheduler.fail_all(&Failure::Engine(reason.clone()));
            Condition::Failed(reason)
        }
    };
    scheduler.persist.flush((scheduler.options.clock)() + scheduler.options.flush_limit);
    shared.status.lock().condition = condition;
}
