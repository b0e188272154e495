//! The gate: the one way to what computes. It is an executor owned by one thread, and it is reentrant.
//!
//! Compute libraries bind their state to threads: what one thread records lazily, another cannot evaluate. A lock cannot
//! mend that, so work travels to the owner instead of the owner's right travelling to the work.
//!
//! 1. A job runs on the owner's thread: inline when the owner calls, at any depth; queued when another thread does.
//! 2. Code that builds or evaluates arrays takes [`&EngineThread`](EngineThread). Only the owner can have one, and it is
//!    neither `Send` nor `Sync`, so forgetting the gate does not compile.
//! 3. What a job returns is [`Host`] data: numbers, text, bytes. An array is not, so nothing lazy leaves.
//! 4. A job that panics fails its caller, not the owner.
//!
//! ```compile_fail,E0277
//! // What is bound to the thread does not leave the gate: `Rc` is not `Host`.
//! # fn f(gate: &prefixd_engine::Gate) {
//! let bound = gate.run(|_| std::rc::Rc::new(1_u32));
//! # }
//! ```
//! ```compile_fail,E0277
//! // The token stays on its thread.
//! # fn compute(_: &prefixd_engine::EngineThread) {}
//! # fn f(thread: &prefixd_engine::EngineThread) {
//! std::thread::scope(|scope| { scope.spawn(|| compute(thread)); });
//! # }
//! ```

use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::info::EngineInfo;

/// Proof that the holder runs on the gate's thread. Every function that builds or evaluates an array takes it.
#[derive(Debug)]
pub struct EngineThread {
    _thread_bound: PhantomData<*const ()>,
}

impl EngineThread {
    /// Another token for what lives on this thread.
    #[must_use]
    #[allow(clippy::unused_self, reason = "only who has a token gets another")]
    pub fn token(&self) -> Self {
        Self { _thread_bound: PhantomData }
    }
}

/// Work for the gate's thread.
pub type Job = Box<dyn FnOnce(&EngineThread) + Send>;

/// Data that may leave the gate: materialized by nature.
pub trait Host: Send + 'static {}

macro_rules! host {
    ($($kind:ty),*) => { $(impl Host for $kind {})* };
}
host!((), bool, u8, u16, u32, u64, usize, i32, i64, f32, f64, String, prefixd_cache::Payload, EngineInfo);
impl<T: Host> Host for Vec<T> {}
impl<T: Host> Host for Option<T> {}
impl<T: Host, E: std::error::Error + Send + 'static> Host for Result<T, E> {}
impl<A: Host, B: Host> Host for (A, B) {}

/// Why a job brought no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The owner is gone, or leaving.
    #[error("the engine's thread has stopped; no more work can run on it")]
    Closed,
    /// The job panicked; its effects are unknown, the owner goes on.
    #[error("a job panicked on the engine's thread")]
    Panicked,
    /// A second thread tried to own the gate.
    #[error("the gate already has an owner")]
    Owned,
}

type Post = dyn Fn(Job) -> Result<(), GateError> + Send + Sync;

/// The handle that any thread may hold and clone.
#[derive(Clone)]
pub struct Gate {
    id: u64,
    post: Arc<Post>,
}

thread_local! {
    /// The gate that this thread owns; 0 for none.
    static OWNED: Cell<u64> = const { Cell::new(0) };
}

impl Gate {
    /// A gate whose jobs reach its owner through `post` (the owner's inbox).
    pub fn new(post: impl Fn(Job) -> Result<(), GateError> + Send + Sync + 'static) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), post: Arc::new(post) }
    }

    /// A gate with a thread of its own that does nothing but run jobs, until the last handle is dropped.
    pub fn spawn() -> std::io::Result<Self> {
        // One slot: a caller waits for its result anyway, so a longer queue would only hide who is waiting.
        let (sender, receiver) = crossbeam_channel::bounded::<Job>(1);
        let gate = Self::new(move |job| sender.send(job).map_err(|_| GateError::Closed));
        let id = gate.id;
        std::thread::Builder::new().name("prefixd-gate".into()).spawn(move || {
            OWNED.set(id);
            let owner = Owner::bound();
            for job in receiver {
                owner.execute(job);
            }
        })?;
        Ok(gate)
    }

    /// Makes the calling thread the owner. A thread owns at most one gate.
    pub fn enter(&self) -> Result<Owner, GateError> {
        if OWNED.get() != 0 {
            return Err(GateError::Owned);
        }
        OWNED.set(self.id);
        Ok(Owner::bound())
    }

    /// Runs `job` on the gate's thread and returns what it returned. Inline, without queueing, on that thread itself.
    ///
    /// # Errors
    /// [`GateError::Closed`] when the owner has stopped, [`GateError::Panicked`] when the job panicked.
    pub fn run<R: Host>(
        &self,
        job: impl FnOnce(&EngineThread) -> R + Send + 'static,
    ) -> Result<R, GateError> {
        if OWNED.get() == self.id {
            return Ok(job(&EngineThread { _thread_bound: PhantomData }));
        }
        let (reply, result) = crossbeam_channel::bounded(1);
        (self.post)(Box::new(move |thread: &EngineThread| {
            let outcome = catch_unwind(AssertUnwindSafe(|| job(thread))).map_err(|_| GateError::Panicked);
            // The caller may have died meanwhile; then nobody is left to tell.
            reply.send(outcome).ok();
        }))?;
        result.recv().unwrap_or(Err(GateError::Closed))
    }
}

/// The owner's side of a gate, on its thread.
#[derive(Debug)]
pub struct Owner {
    thread: EngineThread,
}

impl Owner {
    fn bound() -> Self {
        Self { thread: EngineThread { _thread_bound: PhantomData } }
    }

    /// The token.
    pub fn thread(&self) -> &EngineThread {
        &self.thread
    }

    /// Runs a queued job.
    pub fn execute(&self, job: Job) {
        job(&self.thread);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        OWNED.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_from_another_thread_runs_on_the_owner_s_thread() {
        let gate = Gate::spawn().unwrap();
        let name = |_: &EngineThread| std::thread::current().name().map(str::to_owned);
        assert_eq!(gate.run(name).unwrap().as_deref(), Some("prefixd-gate"));
        let other = gate.clone();
        let seen = std::thread::spawn(move || other.run(name).unwrap()).join().unwrap();
        assert_eq!(seen.as_deref(), Some("prefixd-gate"));
    }

    #[test]
    fn a_job_may_call_the_gate_again_at_any_depth() {
        fn descend(gate: &Gate, depth: u32) -> u32 {
            if depth == 0 {
                return 0;
            }
            let inner = gate.clone();
            gate.run(move |_| descend(&inner, depth - 1)).unwrap() + 1
        }
        let gate = Gate::spawn().unwrap();
        assert_eq!(descend(&gate, 50), 50);
    }

    #[test]
    fn a_panicking_job_fails_its_caller_and_nobody_else() {
        let gate = Gate::spawn().unwrap();
        assert_eq!(gate.run(|_| panic!("planted")), Err::<(), _>(GateError::Panicked));
        assert_eq!(gate.run(|_| 7_u32), Ok(7));
    }

    #[test]
    fn a_gate_without_an_owner_says_so() {
        let gate = Gate::new(|_| Err(GateError::Closed));
        assert_eq!(gate.run(|_| ()), Err(GateError::Closed));
    }

    #[test]
    fn a_thread_owns_one_gate_at_a_time() {
        let (first, second) = (Gate::new(|_| Err(GateError::Closed)), Gate::new(|_| Err(GateError::Closed)));
        let owner = first.enter().unwrap();
        assert_eq!(first.run(|_| 1_u32), Ok(1), "the owner needs no queue");
        assert_eq!(second.enter().map(|_| ()), Err(GateError::Owned));
        drop(owner);
        assert!(second.enter().is_ok());
    }
}
