//! What the answer of one sequence must look like, token by token.
//!
//! The scheduler asks for the allowed tokens between computing logits and choosing, and tells what was chosen. An error
//! ends that one sequence.

use std::fmt::Debug;
use std::sync::Arc;

use crate::wishes::Wishes;

/// A grammar's state along one answer. Lives on the scheduler thread; must be cheap per token.
pub trait Constraint: Debug + Send + Sync {
    /// The tokens that may come next.
    fn allowed(&mut self) -> Result<Allowed, ConstraintError>;

    /// Goes on with a token that was allowed.
    fn advance(&mut self, token: u32) -> Result<Ending, ConstraintError>;

    /// The same state once more, for another answer.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// What may come next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// One bit per token, the lowest id in the lowest bit; tokens beyond it are not allowed. Stop tokens are not in it.
    pub tokens: Vec<u32>,
    /// The answer may end here, by any stop token.
    pub end: bool,
    /// What forbidden tokens count for.
    pub wishes: Option<Arc<Wishes>>,
}

/// Whether more can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// More may or must follow.
    Open,
    /// Nothing can follow: the answer is complete.
    Complete,
}

/// Why the grammar could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(pub String);

impl Allowed {
    /// Forbids all other tokens in `logits` `[vocab]`, stop tokens but for [`end`](Self::end) included. An error when
    /// nothing is left.
    pub fn apply(&self, logits: &mut [f32], stop_tokens: &[u32]) -> Result<(), ConstraintError> {
        let bit = |id: usize| self.tokens.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        if let Some(wishes) = &self.wishes {
            wishes.grant(logits, |id| bit(id as usize));
        }
        let mut left = false;
        for (id, logit) in logits.iter_mut().enumerate() {
            let allowed = if stop_tokens.contains(&(id as u32)) { self.end } else { bit(id) };
            if allowed && !logit.is_nan() {
                left = true;
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        if left {
            return Ok(());
        }
        Err(ConstraintError(
            "no token of the vocabulary can continue the answer as its format demands".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(logits: &[f32]) -> Vec<usize> {
        (0..logits.len()).filter(|id| logits[*id].is_finite()).collect()
    }

    #[test]
    fn only_allowed_tokens_keep_their_logits() {
        let allowed = Allowed { tokens: vec![0b1010], ..Allowed::default() };
        let mut logits = vec![1.0; 40];
        allowed.apply(&mut logits, &[3]).unwrap();
        assert_eq!(left(&logits), [1], "a stop token is no part of an answer");
    }

    #[test]
    fn every_stop_token_is_allowed_where_the_answer_may_end() {
        let mut logits = [1.0; 4];
        Allowed { tokens: vec![0], end: true, ..Allowed::default() }.apply(&mut logits, &[1, 2]).unwrap();
        assert_eq!(left(&logits), [1, 2]);
    }

    #[test]
    fn nothing_left_to_choose_is_an_error() {
        assert!(Allowed { tokens: vec![0], ..Allowed::default() }.apply(&mut [1.0, 2.0], &[1]).is_err());
        assert!(Allowed { tokens: vec![1], ..Allowed::default() }.apply(&mut [f32::NAN, 2.0], &[]).is_err());
    }
}
