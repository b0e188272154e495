//! Replies as Anthropic's clients read them.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::generation::EndReason;
use crate::api::request_log::random_id;
use crate::api::usage::{CacheUsage, UsageCount};

/// A message, whole or (without content) as a stream begins.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageReply {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub role: &'static str,
    pub model: String,
    pub content: Vec<BlockReply>,
    pub stop_reason: Option<StopReason>,
    pub stop_sequence: Option<String>,
    pub usage: Usage,
}

impl MessageReply {
    /// An empty message.
    pub fn new(model: String, usage: Usage) -> Self {
        Self {
            id: random_id("msg_"),
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage,
        }
    }
}

/// A block of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockReply {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// What the model thought before it answered.
    Thinking {
        /// The thought.
        thinking: String,
        /// Nobody checks it.
        signature: &'static str,
    },
    /// A call.
    ToolUse {
        /// Names the call for its result.
        id: String,
        /// The tool.
        name: String,
        /// An object.
        #[schema(value_type = Object)]
        input: Box<RawValue>,
    },
}

impl BlockReply {
    /// A thought.
    pub fn thinking(thinking: String) -> Self {
        Self::Thinking { thinking, signature: "" }
    }

    /// A block for a call whose arguments are already told, or (streamed) come after it.
    pub fn call(name: String, input: Box<RawValue>) -> Self {
        Self::ToolUse { id: random_id("toolu_"), name, input }
    }
}

/// Arguments as an object: what a model wrote instead of one is put into one.
pub fn input(arguments: &str) -> Box<RawValue> {
    let text = arguments.trim();
    if text.starts_with('{')
        && let Ok(object) = serde_json::from_str::<Box<RawValue>>(text)
    {
        return object;
    }
    let wrapped = serde_json::json!({"arguments": text});
    serde_json::value::to_raw_value(&wrapped).unwrap_or_else(|_| no_input())
}

/// `{}`
pub fn no_input() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model said all it wanted to.
    EndTurn,
    /// The token limit.
    MaxTokens,
    /// One of `stop_sequences`.
    StopSequence,
    /// The model called tools.
    ToolUse,
}

impl StopReason {
    /// In Anthropic's words.
    pub fn new(reason: EndReason, stop: Option<&String>) -> Self {
        match reason {
            EndReason::ToolCalls => Self::ToolUse,
            EndReason::Length => Self::MaxTokens,
            EndReason::Stop if stop.is_some() => Self::StopSequence,
            EndReason::Stop => Self::EndTurn,
        }
    }
}

/// What a request cost. The three kinds of input add up to the prompt.
// The names are Anthropic's.
#[allow(clippy::struct_field_names)]
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MessageUsage)]
pub struct Usage {
    pub input_tokens: usize,
    pub cache_creation_input_tokens: usize,
    pub cache_read_input_tokens: usize,
    pub output_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixd: Option<CacheUsage>,
}

impl Usage {
    /// `marked`: the request asked for its prefix to be cached, so new tokens count as written to the cache where there
    /// is one.
    pub fn new(count: &UsageCount, marked: bool) -> Self {
        let created = if marked { count.written_tokens() } else { 0 };
        Self {
            input_tokens: count.prompt_tokens - count.cached_tokens - created,
            cache_creation_input_tokens: created,
            cache_read_input_tokens: count.cached_tokens,
            output_tokens: count.completion_tokens,
            prefixd: count.detail(),
        }
    }
}
