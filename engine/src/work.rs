//! What a step does: new tokens for some rows of a batch, and which logits are wanted for each.
//!
//! A prompt's chunk, one more token of an answer, both at once, several tokens that were guessed: all of them are rows
//! that get tokens. A row that no work names stays as it is.

use crate::error::EngineError;

/// New tokens for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowWork<'a> {
    /// The row, by its place in the batch.
    pub row: usize,
    /// What is appended to it; at least one token.
    pub tokens: &'a [u32],
    /// Which of their logits come back.
    pub wanted: Wanted,
}

/// Which logits a row's new tokens bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: more of the prompt follows.
    Nothing,
    /// Those of the last token.
    Last,
    /// Those of every token.
    All,
}

/// What a row's work brings back: `[vocab]` floats for every token that was wanted, in order.
pub type RowLogits = Vec<Vec<f32>>;

impl Wanted {
    /// How many of `tokens` tokens bring logits back.
    pub fn count(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Last => tokens.min(1),
            Self::All => tokens,
        }
    }
}

/// Refuses work that makes no sense for a batch of `rows` rows.
///
/// # Errors
/// [`EngineError::Input`]: a row that is not there or is named twice, no tokens, a token outside the vocabulary.
pub fn check_work(work: &[RowWork<'_>], rows: usize, vocab: usize) -> Result<(), EngineError> {
    let mut named = vec![false; rows];
    for RowWork { row, tokens, .. } in work {
        match named.get_mut(*row) {
            None => return Err(EngineError::Input(format!("row {row} of a batch of {rows}"))),
            Some(true) => return Err(EngineError::Input(format!("row {row} is named twice in one step"))),
            Some(named) => *named = true,
        }
        if tokens.is_empty() {
            return Err(EngineError::Input(format!("no tokens for row {row}; a step needs at least one")));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(EngineError::Input(format!("token {id} is outside the vocabulary of {vocab}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_makes_no_sense_is_refused_with_what_was_found() {
        let work = |row, tokens| RowWork { row, tokens, wanted: Wanted::Last };
        let refused = |work: &[RowWork<'_>]| check_work(work, 2, 10).unwrap_err().to_string();
        assert!(check_work(&[work(1, &[1, 9]), work(0, &[0])], 2, 10).is_ok(), "in any order");
        assert!(check_work(&[], 0, 10).is_ok());
        assert!(refused(&[work(2, &[1])]).contains("row 2 of a batch of 2"));
        assert!(refused(&[work(0, &[1]), work(0, &[2])]).contains("row 0 is named twice"));
        assert!(refused(&[work(1, &[])]).contains("no tokens for row 1"));
        assert!(refused(&[work(1, &[3, 10])]).contains("token 10 is outside the vocabulary of 10"));
    }
}
