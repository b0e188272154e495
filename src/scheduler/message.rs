//! What crosses the scheduler's border: a request going in, events coming back.
//!
//! 1. The end is said, never guessed: a stream's last event is [`Event::Finished`] or [`Event::Failed`]. Silence means
//!    nothing, however long.
//! 2. The channel of a stream has room for every event its request can cause, so the batch never waits for a reader.
//! 3. Dropping the stream is the cancel: the row is freed at the next step.

use std::sync::Arc;
use std::time::Duration;

use prefixd_cache::{Miss, SnapshotKind, Tenant};
use prefixd_engine::{Constraint, ConstraintError, EngineError, Sampling, TokenChoice};
use tokio::sync::mpsc;

/// One sequence to compute.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt as token ids; not empty.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most; at least 1.
    pub max_tokens: usize,
    /// Tokens to generate before a stop token may end the sequence.
    pub min_tokens: usize,
    /// Tokens that end the sequence and are not part of the answer. Empty: only the length ends it.
    pub stop_tokens: Arc<[u32]>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer must look like; `None`: anything. `min_tokens` does not count where there is one.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Report the log probabilities of the chosen token and of this many alternatives.
    pub top_logprobs: Option<usize>,
    /// Whose prefixes may be hit and are written.
    pub tenant: Tenant,
    /// What of it is kept on purpose.
    pub hold: Hold,
}

/// What of a sequence is kept on purpose, beside what everybody's blocks are kept for. It changes no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Prefixes of the prompt that are pinned when the sequence ends.
    pub pins: Vec<PrefixPin>,
    /// The agent whose turn it is.
    pub agent: Option<String>,
    /// Where in the prompt snapshots are taken, beside its pins and its end. Only of models with recurrent layers.
    pub snapshots: Vec<SnapshotPoint>,
    /// What is known of the prompt is used, and nothing is added: no block, snapshot, pin or turn.
    pub read_only: bool,
}

impl Hold {
    /// What holds for another choice of the same prompt: pins and the agent's turn count once.
    #[must_use]
    pub fn of_another_choice(&self) -> Self {
        Self { pins: Vec::new(), agent: None, ..self.clone() }
    }
}

/// A place in a prompt at which a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Tokens before it.
    pub tokens: usize,
    /// What it is for.
    pub kind: SnapshotKind,
}

/// A prefix of a prompt to pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPin {
    /// Its length in tokens; the block that it ends in is pinned as a whole.
    pub tokens: usize,
    /// For how long.
    pub time: Duration,
}

/// What the cache did for a prompt.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct PromptUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens whose KV was not computed again: resident and disk together.
    pub cached_tokens: usize,
    /// Of these, tokens found in RAM.
    pub resident_tokens: usize,
    /// Of these, tokens read from disk.
    pub disk_tokens: usize,
    /// Tokens behind them whose blocks are known and of no use: no snapshot of the model's recurrent state lies there.
    pub no_state_tokens: usize,
    /// Milliseconds from submission to admission.
    pub queue_ms: f64,
    /// Milliseconds from the lookup to the row that holds what it found.
    pub restore_ms: f64,
    /// Where they went.
    pub restore_parts: RestoreParts,
    /// Milliseconds of this sequence's prefill, other rows' steps in between included.
    pub prefill_ms: f64,
    /// Why the rest of the prompt was not found; `None` when all of it was.
    #[serde(skip)]
    pub miss: Option<Miss>,
}

/// Where a restore's time went: milliseconds of wall time. Of a long prefix some blocks are imported while the next are read, so
/// the sum may be more than `restore_ms`; where it is less, the rest is waiting for the end of other rows' steps. Restores that
/// were repeated, because a block was lost, count in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct RestoreParts {
    /// Finding the chain in the tree, and leasing it.
    pub lookup_ms: f64,
    /// File bytes into memory: see [`Restored::read`](prefixd_cache::Restored::read). 0 when all blocks were in RAM.
    pub read_ms: f64,
    /// Checksums and identities: see [`Restored::verify`](prefixd_cache::Restored::verify).
    pub verify_ms: f64,
    /// Pages into the row's tables; on devices bytes into its arrays.
    pub import_ms: f64,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// `max_tokens`, or the model's context is full.
    Length,
}

/// The last word of a sequence that went well.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens generated, a final stop token included.
    pub completion_tokens: usize,
    /// The stop token that ended it, if one did.
    pub stop_token: Option<u32>,
    /// From the first token to the last.
    pub decode: Duration,
}

/// The last word of a sequence that did not go well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine failed on this sequence.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// The answer could not go on in the format that the request asks for.
    #[error("the answer cannot go on in the format asked for: {0}")]
    Constraint(String),
    /// The server is going down and the sequence did not finish in time.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<ConstraintError> for Failure {
    fn from(error: ConstraintError) -> Self {
        Self::Constraint(error.to_string())
    }
}

/// What a stream yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is computed; tokens follow. Comes once, first.
    Started(PromptUsage),
    /// One token of the answer. A stop token that ends the sequence is not reported.
    Token(TokenChoice),
    /// The end. Nothing follows.
    Finished(Finish),
    /// The end. Nothing follows.
    Failed(Failure),
}

/// The consumer's end of one sequence. Dropping it cancels the sequence.
#[derive(Debug)]
pub struct Stream {
    events: mpsc::Receiver<Event>,
    ended: bool,
}

impl Stream {
    pub(super) fn channel(max_tokens: usize) -> (mpsc::Sender<Event>, Self) {
        // Started, every token, and the end: a full channel cannot happen.
        let (sender, events) = mpsc::channel(max_tokens.saturating_add(2).min(mpsc_limit()));
        (sender, Self { events, ended: false })
    }

    /// The next event; `None` after the last. A scheduler that died without a word yields a failure, not an end.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await.unwrap_or_else(lost);
        self.ended = matches!(event, Event::Finished(_) | Event::Failed(_));
        Some(event)
    }

    /// The next event, if it is there already.
    #[cfg(test)]
    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// As [`next`](Self::next), for callers outside an async runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.blocking_recv().unwrap_or_else(lost);
        self.ended = matches!(event, Event::Finished(_) | Event::Failed(_));
        Some(event)
    }
}

fn lost() -> Event {
    Event::Failed(Failure::Engine("the scheduler thread stopped without finishing this sequence".into()))
}

/// Tokio's own bound of a channel.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many requests wait already.
    #[error("{waiting} requests are waiting already, the limit is {limit}; try again later")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
        /// Its bound.
        limit: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt_tokens} tokens; this model's context is {context_tokens} tokens, answer included"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The model's limit.
        context_tokens: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty; at least one token is needed")]
    Empty,
    /// A token the model does not know.
    #[error("token id {token} at position {at} of the prompt; this model's vocabulary ends at {vocab}")]
    Vocabulary {
        /// The id.
        token: u32,
        /// Its position.
        at: usize,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// The engine fails, step after step.
    #[error("nothing can be computed at the moment: {reason}")]
    Failing {
        /// What it failed with.
        reason: String,
    },
    /// The server drains or the scheduler has stopped.
    #[error("the server is shutting down")]
    Closed,
}
