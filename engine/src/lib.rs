//! prefixd-engine: the contract between scheduling and computing.
//!
//! An [`Engine`] turns tokens into logits and rows into host bytes. The scheduler knows engines by this trait alone;
//! [`sim::SimEngine`] stands in where a test is about scheduling. An engine lives, works and is dropped on the thread
//! that owns its [`Gate`].
//!
//! 1. A row's logits depend on the row's tokens alone: not on chunk borders, on its neighbours in a batch, or on
//!    whether its prefix was computed or imported.
//! 2. Every method returns with its work done: nothing lazy is left behind.
//! 3. A method that fails leaves every row as it was.
//!
//! Order of the modules, which is the order of what may depend on what: `error`, `state` (what a model keeps for a row),
//! `info`, `gate`, `work` (what a step does), `contract` (the trait), `steps`, `sim`; beside them `wishes`,
//! `constraint` and `sampler`, which choose tokens from logits.
//!
//! Invariant: nothing here knows of MLX, of HTTP or of an async runtime.
#![forbid(unsafe_code)]

mod constraint;
mod contract;
mod error;
mod gate;
mod info;
mod sampler;
pub mod sim;
mod state;
mod steps;
mod wishes;
mod work;

pub use constraint::{Allowed, Constraint, ConstraintError, Ending};
pub use contract::{Engine, ImportBlock};
pub use error::EngineError;
pub use gate::{EngineThread, Gate, GateError, Host, Job, Owner};
pub use info::{EngineInfo, MemoryUse};
pub use sampler::{Sampler, Sampling, SamplingError, TokenChoice};
pub use state::{LayerState, OwnState, ReuseRule, StateSpec, StateSpecError};
pub use steps::Steps;
pub use wishes::Wishes;
pub use work::{RowLogits, RowWork, Wanted, check_work};
