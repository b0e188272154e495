//! What a request cost, added up from its pieces.

use prefixd_cache::Miss;

use super::generation::Piece;
use crate::scheduler::PromptUsage;

/// Adds up the usage of a request's choices; a prompt counts once, however many choices continue it.
#[derive(Debug)]
pub struct UsageCount {
    per_prompt: usize,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Why the first prompt was not wholly known; `None` when it was, or without a cache.
    pub miss: Option<Miss>,
}

impl UsageCount {
    /// For requests with that many choices per prompt.
    pub fn new(per_prompt: usize) -> Self {
        Self {
            per_prompt: per_prompt.max(1),
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            miss: None,
        }
    }

    /// Notes what a piece tells.
    pub fn note(&mut self, index: usize, piece: &Piece) {
        match piece {
            Piece::Started(PromptUsage { prompt_tokens, cached_tokens, miss, .. })
                if index.is_multiple_of(self.per_prompt) =>
            {
                self.prompt_tokens += prompt_tokens;
                self.cached_tokens += cached_tokens;
                self.miss = self.miss.or(*miss);
            }
            Piece::End { completion_tokens, .. } => self.completion_tokens += completion_tokens,
            _ => {}
        }
    }
}
