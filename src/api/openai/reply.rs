//! Replies as clients read them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::generation::{Scored, TokenLogprob};
use crate::api::request_log::random_id;
use crate::api::usage::{CacheUsage, UsageCount};

/// What every reply and every chunk of one request says first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Head {
    pub id: String,
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Changes with everything that decides the answer to a seed.
    pub system_fingerprint: String,
}

impl Head {
    /// A head with an id of its own.
    pub fn new(prefix: &str, object: &'static str, model: String, fingerprint: &impl ToString) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut digits = fingerprint.to_string();
        digits.truncate(12);
        Self { id: random_id(prefix), object, created, model, system_fingerprint: format!("fp_{digits}") }
    }
}

/// A whole reply, or a chunk.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reply<'a, C> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a request cost.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    pub prompt_tokens_details: PromptDetails,
    /// Of models that think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixd: Option<CacheUsage>,
}

/// What of the prompt was free.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PromptDetails {
    pub cached_tokens: usize,
}

/// What of the answer was thought.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionDetails {
    pub reasoning_tokens: usize,
}

impl From<&UsageCount> for Usage {
    fn from(count: &UsageCount) -> Self {
        Self {
            prompt_tokens: count.prompt_tokens,
            completion_tokens: count.completion_tokens,
            total_tokens: count.prompt_tokens + count.completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens: count.cached_tokens },
            completion_tokens_details: (count.thought_tokens > 0)
                .then_some(CompletionDetails { reasoning_tokens: count.thought_tokens }),
            prefixd: count.detail(),
        }
    }
}

/// A call in a message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolCallReply {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub function: FunctionReply,
}

/// What is called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionReply {
    pub name: String,
    pub arguments: String,
}

/// More of a call. All but the arguments comes in its first delta alone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolCallDelta {
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: FunctionDelta,
}

/// More of what is called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

/// Log probabilities as chat has them.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<ChatToken>,
    /// Always null, as the message's.
    #[schema(required)]
    pub refusal: Option<String>,
}

/// One token of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatToken {
    #[serde(flatten)]
    pub token: ChatScored,
    pub top_logprobs: Vec<ChatScored>,
}

/// A token and its log probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatScored {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

impl From<Scored> for ChatScored {
    fn from(Scored { text, bytes, logprob }: Scored) -> Self {
        Self { token: text, logprob, bytes }
    }
}

impl ChatLogprobs {
    /// Of these tokens.
    pub fn new(tokens: Vec<TokenLogprob>) -> Self {
        let content = tokens.into_iter().map(|token| ChatToken {
            token: token.chosen.into(),
            top_logprobs: token.top.into_iter().map(Into::into).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

/// Log probabilities as completions have them.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct TextLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Characters of the answer before each token.
    pub text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// Of these tokens.
    pub fn new(tokens: Vec<TokenLogprob>) -> Self {
        let mut all = Self::default();
        for token in tokens {
            all.tokens.push(token.chosen.text);
            all.token_logprobs.push(token.chosen.logprob);
            all.top_logprobs.push(token.top.into_iter().map(|top| (top.text, top.logprob.into())).collect());
            all.text_offset.push(token.at_chars);
        }
        all
    }
}
