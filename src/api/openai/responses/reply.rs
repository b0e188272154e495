//! Responses as clients read them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::request::{Item, Reasoning, TextConfig};
use crate::api::openai::reply::ChatToken;
use crate::api::request_log::random_id;
use crate::api::usage::{CacheUsage, UsageCount};
use crate::prompt::{Content, Part, Role};

/// A response, whole or in the making.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseReply {
    pub id: String,
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970; null until it is complete.
    #[schema(required)]
    pub completed_at: Option<u64>,
    pub status: Status,
    pub error: Option<ResponseError>,
    pub incomplete_details: Option<IncompleteDetails>,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<i64>,
    pub max_tool_calls: Option<u64>,
    pub model: String,
    pub output: Vec<OutputItem>,
    pub parallel_tool_calls: bool,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub previous_response_id: Option<String>,
    pub reasoning: Reasoning,
    pub store: bool,
    /// There is one.
    pub service_tier: &'static str,
    pub temperature: f32,
    pub text: TextConfig,
    pub tool_choice: Value,
    /// Those that the model was told of.
    pub tools: Vec<Value>,
    pub top_logprobs: usize,
    pub top_p: f32,
    pub truncation: &'static str,
    pub usage: Option<ResponseUsage>,
    pub user: Option<String>,
    pub safety_identifier: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub background: bool,
}

/// How far a response, or an item of it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub enum Status {
    InProgress,
    Completed,
    /// The token limit came first.
    Incomplete,
    Failed,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseError {
    pub code: &'static str,
    pub message: String,
}

/// Why a response is not complete.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncompleteDetails {
    pub reason: &'static str,
}

/// A part of what the model did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// It said something.
    Message { id: String, status: Status, role: &'static str, content: Vec<OutputPart> },
    /// It thought.
    Reasoning {
        id: String,
        status: Status,
        /// Always empty: the thoughts are told themselves.
        summary: Vec<Value>,
        content: Vec<OutputPart>,
    },
    /// It called a function.
    FunctionCall {
        id: String,
        status: Status,
        call_id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// JSON as text.
        arguments: String,
    },
}

/// What it said or thought.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputPart {
    /// Text.
    OutputText { text: String, annotations: Vec<Value>, logprobs: Vec<ChatToken> },
    /// A thought.
    ReasoningText { text: String },
}

impl OutputPart {
    /// A text that has yet to come.
    pub fn text() -> Self {
        Self::OutputText { text: String::new(), annotations: Vec::new(), logprobs: Vec::new() }
    }

    /// A thought that has yet to come.
    pub fn thought() -> Self {
        Self::ReasoningText { text: String::new() }
    }
}

impl OutputItem {
    /// A message that has yet to come.
    pub fn message() -> Self {
        let (id, status) = (random_id("msg_"), Status::InProgress);
        Self::Message { id, status, role: "assistant", content: Vec::new() }
    }

    /// A thought that has yet to come.
    pub fn reasoning() -> Self {
        let (id, status) = (random_id("rs_"), Status::InProgress);
        Self::Reasoning { id, status, summary: Vec::new(), content: Vec::new() }
    }

    /// A call whose arguments have yet to come.
    pub fn call(namespace: Option<String>, name: String) -> Self {
        Self::FunctionCall {
            id: random_id("fc_"),
            status: Status::InProgress,
            call_id: random_id("call_"),
            name,
            namespace,
            arguments: String::new(),
        }
    }

    /// Its name among the items.
    pub fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::Reasoning { id, .. } | Self::FunctionCall { id, .. } => id,
        }
    }

    /// How far it is.
    pub fn status_mut(&mut self) -> &mut Status {
        match self {
            Self::Message { status, .. }
            | Self::Reasoning { status, .. }
            | Self::FunctionCall { status, .. } => status,
        }
    }
}

fn parts(parts: Vec<OutputPart>) -> Content {
    let part = |kind: &str, text| Part { kind: kind.into(), text: Some(text) };
    let parts = parts.into_iter().map(|told| match told {
        OutputPart::OutputText { text, .. } => part("output_text", text),
        OutputPart::ReasoningText { text } => part("reasoning_text", text),
    });
    Content::Parts(parts.collect())
}

/// As a client would send it back.
impl From<&OutputItem> for Item {
    fn from(item: &OutputItem) -> Self {
        let own = Self { id: Some(item.id().to_owned()), ..Self::default() };
        match item.clone() {
            OutputItem::Message { content, .. } => {
                Self { role: Some(Role::Assistant), content: Some(parts(content)), ..own }
            }
            OutputItem::Reasoning { content, .. } => {
                Self { kind: Some("reasoning".into()), content: Some(parts(content)), ..own }
            }
            OutputItem::FunctionCall { call_id, name, namespace, arguments, .. } => Self {
                kind: Some("function_call".into()),
                call_id: Some(call_id),
                name: Some(name),
                namespace,
                arguments: Some(arguments),
                ..own
            },
        }
    }
}

/// What a response cost.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseUsage {
    pub input_tokens: usize,
    pub input_tokens_details: InputDetails,
    pub output_tokens: usize,
    pub output_tokens_details: OutputDetails,
    pub total_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixd: Option<CacheUsage>,
}

/// What of the input the cache knew and learnt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InputDetails {
    pub cached_tokens: usize,
    pub cache_write_tokens: usize,
}

/// What of the output was thought.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutputDetails {
    pub reasoning_tokens: usize,
}

impl From<&UsageCount> for ResponseUsage {
    fn from(count: &UsageCount) -> Self {
        let details =
            InputDetails { cached_tokens: count.cached_tokens, cache_write_tokens: count.written_tokens() };
        Self {
            input_tokens: count.prompt_tokens,
            input_tokens_details: details,
            output_tokens: count.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: count.thought_tokens },
            total_tokens: count.prompt_tokens + count.completion_tokens,
            prefixd: count.detail(),
        }
    }
}
