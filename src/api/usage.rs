//! What a request cost and what the cache did for it, added up from its pieces.

use actix_web::HttpResponseBuilder;
use prefixd_cache::Miss;
use serde::Serialize;
use utoipa::ToSchema;

use super::generation::Piece;
use crate::scheduler::PromptUsage;

/// Adds up the usage of a request's choices; a prompt counts once, however many choices continue it.
#[derive(Clone, Debug)]
pub struct UsageCount {
    per_prompt: usize,
    detail: Detail,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Completion tokens that were thought.
    pub thought_tokens: usize,
    cache: CacheUsage,
    /// What the client is warned of; nothing when it is empty.
    warning: String,
}

/// Whether a client wants to know what the cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The counts of tokens alone.
    #[default]
    Brief,
    /// `usage.prefixd` too.
    Full,
}

/// What the cache did: `usage.prefixd`, and response headers. Of several prompts, milliseconds are the longest.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct CacheUsage {
    /// Tokens found in RAM.
    pub resident_tokens: usize,
    /// Tokens read from disk.
    pub disk_tokens: usize,
    /// Tokens whose blocks are known and of no use, because no state of the model's recurrent layers is kept there.
    pub no_state_tokens: usize,
    pub queue_ms: f64,
    pub restore_ms: f64,
    pub prefill_ms: f64,
    /// Why the first prompt that was not wholly known was not; null when all were, or without a cache.
    pub miss: Option<Miss>,
}

impl UsageCount {
    /// For requests with that many choices per prompt.
    pub fn new(per_prompt: usize, detail: Detail) -> Self {
        let per_prompt = per_prompt.max(1);
        let cache = CacheUsage::default();
        Self {
            per_prompt,
            detail,
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            thought_tokens: 0,
            cache,
            warning: String::new(),
        }
    }

    /// With what the client is to be warned of.
    #[must_use]
    pub fn with_warning(self, warning: String) -> Self {
        Self { warning, ..self }
    }

    /// What is known before the answer, as a header.
    pub fn warn(&self, response: &mut HttpResponseBuilder) {
        if !self.warning.is_empty() {
            let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
            let warning: String = self.warning.chars().map(plain).collect();
            response.insert_header(("x-prefixd-warning", warning));
        }
    }

    /// Notes what a piece tells.
    pub fn note(&mut self, index: usize, piece: &Piece) {
        match piece {
            Piece::Started(usage) if index.is_multiple_of(self.per_prompt) => self.note_prompt(usage),
            Piece::End { completion_tokens, thought_tokens, .. } => {
                self.completion_tokens += completion_tokens;
                self.thought_tokens += thought_tokens;
            }
            _ => {}
        }
    }

    fn note_prompt(&mut self, usage: &PromptUsage) {
        self.prompt_tokens += usage.prompt_tokens;
        self.cached_tokens += usage.cached_tokens;
        let cache = &mut self.cache;
        cache.resident_tokens += usage.resident_tokens;
        cache.disk_tokens += usage.disk_tokens;
        cache.no_state_tokens += usage.no_state_tokens;
        cache.queue_ms = cache.queue_ms.max(usage.queue_ms);
        cache.restore_ms = cache.restore_ms.max(usage.restore_ms);
        cache.prefill_ms = cache.prefill_ms.max(usage.prefill_ms);
        cache.miss = cache.miss.or(usage.miss);
    }

    /// Some of the prompt was looked up and not known.
    pub fn missed(&self) -> bool {
        self.cache.miss.is_some()
    }

    /// Tokens of the prompt that the cache learnt. The last of a prompt is always computed and never counts.
    pub fn written_tokens(&self) -> usize {
        let new = self.prompt_tokens - self.cached_tokens;
        if self.missed() { new.saturating_sub(1) } else { 0 }
    }

    /// What the cache did, for clients that ask.
    pub fn detail(&self) -> Option<CacheUsage> {
        (self.detail == Detail::Full).then(|| self.cache.clone())
    }

    /// What the cache did, as headers of a whole response.
    pub fn headers(&self, response: &mut HttpResponseBuilder) {
        self.warn(response);
        let cache = &self.cache;
        response.insert_header(("x-prefixd-cached-tokens", self.cached_tokens));
        response.insert_header(("x-prefixd-resident-tokens", cache.resident_tokens));
        response.insert_header(("x-prefixd-disk-tokens", cache.disk_tokens));
        if cache.no_state_tokens > 0 {
            response.insert_header(("x-prefixd-no-state-tokens", cache.no_state_tokens));
        }
        for (name, ms) in [
            ("x-prefixd-queue-ms", cache.queue_ms),
            ("x-prefixd-restore-ms", cache.restore_ms),
            ("x-prefixd-prefill-ms", cache.prefill_ms),
        ] {
            response.insert_header((name, format!("{ms:.3}")));
        }
        let miss = cache.miss.and_then(|miss| serde_json::to_value(miss).ok());
        if let Some(reason) = miss.as_ref().and_then(|miss| miss["reason"].as_str()) {
            response.insert_header(("x-prefixd-miss", reason));
        }
    }
}
