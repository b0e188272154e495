//! Requests that wait for a row, in the order in which they came.

use std::collections::VecDeque;

use super::handle::Submission;
use super::message::{Event, Failure};

/// What is done about a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gets a row now.
    Admit,
    /// It waits for another sequence; those behind it need not.
    PassOver,
    /// It waits, and so do those behind it: a large request is not overtaken forever.
    Hold,
}

/// See the module's documentation. A request that leaves gives its place back to the handles.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Submission>,
}

impl Queue {
    pub fn push(&mut self, submission: Submission) {
        self.waiting.push_back(submission);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first request that may have a row, if one may.
    pub fn take(&mut self, mut verdict: impl FnMut(&Submission) -> Verdict) -> Option<Submission> {
        for at in 0..self.waiting.len() {
            match verdict(&self.waiting[at]) {
                Verdict::Admit => return self.waiting.remove(at),
                Verdict::PassOver => {}
                Verdict::Hold => return None,
            }
        }
        None
    }

    /// Ends every request badly.
    pub fn refuse_all(&mut self, failure: &Failure) {
        self.waiting.drain(..).for_each(|submission| refuse(&submission, failure));
    }

    /// Frees the places of clients that left. Returns how many there were.
    pub fn drop_abandoned(&mut self) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|submission| !submission.events.is_closed());
        before - self.waiting.len()
    }

    /// Tokens of the prompts that wait, in order.
    #[cfg(test)]
    pub fn prompts(&self) -> Vec<usize> {
        self.waiting.iter().map(|submission| submission.request.prompt.len()).collect()
    }
}

/// Ends one request badly.
pub(super) fn refuse(submission: &Submission, failure: &Failure) {
    // A client that left needs no answer.
    submission.events.try_send(Event::Failed(failure.clone())).ok();
}
