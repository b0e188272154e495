//! Why an engine could not do what it was asked: told apart by what a caller can do about it.

/// See the module's documentation. Whatever the kind, no row has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There was no memory for it. Less at once may work, and so may the same when other rows have ended.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The device does not answer any more. Nothing works until the process starts again.
    #[error("the compute device is lost; the server must be started again: {0}")]
    DeviceLost(String),
    /// A block does not fit this model. Computing its tokens works.
    #[error("block does not fit this model: {0}")]
    Block(String),
    /// What was asked makes no sense: a row that is not there, a token outside the vocabulary. It never works.
    #[error("bad input to the engine: {0}")]
    Input(String),
    /// The compute backend failed for another reason.
    #[error("compute backend: {0}")]
    Backend(String),
}
