//! One sequence: its request, its tokens so far, and its way back to the client.
//!
//! ```text
//! tokens:  | prompt ................................ | answer ........ | last |
//!          | imported | computed in chunks           | decoded         | not yet in KV
//!          | kept (whole blocks)      | not yet kept                   |
//! ```

use std::time::Instant;

use prefixd_cache::{Lease, Lookup};
use prefixd_engine::{Constraint, ConstraintError, Ending, RowLogits, Sampler, TokenChoice};
use tokio::sync::mpsc;

use super::handle::Submission;
use super::message::{Event, Failure, Finish, FinishReason, PromptUsage, Request};
use super::snapshots::SnapshotPoints;

/// See the module's documentation.
pub(super) struct Sequence {
    pub request: Request,
    /// Prompt and answer; all but the last are in KV once decoding.
    pub tokens: Vec<u32>,
    /// Where the prefix chain of this sequence ends in the cache; `None` without a cache.
    pub lease: Option<Lease>,
    /// Tokens at the front that are whole blocks of the cache.
    pub kept_tokens: usize,
    /// Where in the prompt snapshots are to be taken.
    pub snapshots: SnapshotPoints,
    pub usage: PromptUsage,
    pub submitted: Instant,
    /// When prefill began.
    pub prefill_began: Instant,
    /// When the first token was chosen.
    first_token: Instant,
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    events: mpsc::Sender<Event>,
}

/// What a chosen token means for its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More tokens follow.
    Going,
    /// The end.
    Ended(FinishReason),
}

impl Sequence {
    pub fn new(submission: Submission, now: Instant) -> Self {
        let Submission { mut request, events, submitted, place } = submission;
        drop(place);
        let usage = PromptUsage { prompt_tokens: request.prompt.len(), ..PromptUsage::default() };
        Self {
            tokens: request.prompt.clone(),
            lease: None,
            kept_tokens: 0,
            snapshots: SnapshotPoints::default(),
            usage,
            submitted,
            prefill_began: now,
            first_token: now,
            sampler: Sampler::new(request.sampling.clone(), &request.prompt, request.top_logprobs),
            constraint: request.constraint.take(),
            events,
            request,
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.request.prompt.len()
    }

    /// Tokens generated so far.
    pub fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens()
    }

    /// Nobody reads this stream any more.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Notes what the cache knew of the prompt.
    pub fn note_lookup(&mut self, lookup: &Lookup) {
        self.usage.no_state_tokens = lookup.no_state_tokens;
        self.usage.miss = (lookup.tokens + 1 < self.prompt_tokens()).then_some(lookup.miss);
    }

    /// Notes what of it was restored, by tier.
    pub fn note_restored(&mut self, resident_tokens: usize, disk_tokens: usize) {
        self.usage.resident_tokens = resident_tokens;
        self.usage.disk_tokens = disk_tokens;
        self.usage.cached_tokens = resident_tokens + disk_tokens;
    }

    /// Says that the prompt is computed.
    pub fn announce(&mut self, now: Instant) {
        self.usage.prefill_ms = millis(self.prefill_began, now);
        self.first_token = now;
        self.send(Event::Started(self.usage.clone()));
    }

    /// Chooses the next token from `logits` and reports it, unless it is the stop token that ends the answer.
    /// An error concerns this sequence alone.
    pub fn choose(&mut self, mut logits: RowLogits) -> Result<Progress, Failure> {
        let mut logits =
            logits.pop().ok_or_else(|| Failure::Engine("a step brought no logits back".into()))?;
        let stops = self.request.stop_tokens.clone();
        let choice = self.pick(&mut logits, &stops)?;
        let id = choice.id;
        self.tokens.push(id);
        if stops.contains(&id) {
            return Ok(Progress::Ended(FinishReason::Stop));
        }
        self.send(Event::Token(choice));
        if let Some(constraint) = &mut self.constraint
            && constraint.advance(id)? == Ending::Complete
        {
            return Ok(Progress::Ended(FinishReason::Stop));
        }
        if self.completion_tokens() >= self.request.max_tokens {
            return Ok(Progress::Ended(FinishReason::Length));
        }
        Ok(Progress::Going)
    }

    fn pick(&mut self, logits: &mut [f32], stops: &[u32]) -> Result<TokenChoice, ConstraintError> {
        if let Some(constraint) = &mut self.constraint {
            let allowed = constraint.allowed()?;
            return self.sampler.choose_allowed(logits, &allowed, stops);
        }
        let banned = if self.completion_tokens() < self.request.min_tokens { stops } else { &[] };
        Ok(self.sampler.choose(logits, banned))
    }

    /// Says that the sequence ended well.
    pub fn finish(&mut self, reason: FinishReason, now: Instant) {
        let decode = now.saturating_duration_since(self.first_token);
        let last = self.tokens.last().copied().filter(|id| self.request.stop_tokens.contains(id));
        let stop_token = last.filter(|_| reason == FinishReason::Stop);
        let completion_tokens = self.completion_tokens();
        self.send(Event::Finished(Finish { reason, completion_tokens, stop_token, decode }));
    }

    /// Says that the sequence ended badly.
    pub fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    /// The channel has room for all events of a sequence, so what cannot be sent has no reader, and
    /// [`is_abandoned`](Self::is_abandoned) tells.
    fn send(&self, event: Event) {
        self.events.try_send(event).ok();
    }
}

/// Milliseconds from `from` to `to`.
pub(super) fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}
