//! Requests as clients write them. Fields that are not named here are ignored, except those that
//! [`validate`](super::validate) refuses.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::prompt::Message;

/// `/v1/chat/completions` besides [`Options`](crate::api::options::Options).
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatFields {
    pub messages: Vec<Message>,
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`; shown to the template as written.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// `auto`, `none`, `required`, or `{"type": "function", "function": {"name"}}`.
    pub tool_choice: Option<Value>,
    pub parallel_tool_calls: Option<bool>,
    /// `{"type": "text" | "json_object" | "json_schema", "json_schema": {"schema"}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<u64>,
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// The template's variables `reasoning_effort` and, unless it is `none`, `enable_thinking`.
    pub reasoning_effort: Option<String>,
    pub add_generation_prompt: Option<bool>,
}

/// The template's variables as a client sets them, with those that a wish for more or less thinking sets.
pub fn variables(set: Option<Map<String, Value>>, effort: Option<&str>) -> Map<String, Value> {
    let mut variables = set.unwrap_or_default();
    if let Some(effort) = effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
        variables.entry("enable_thinking").or_insert((effort != "none").into());
    }
    variables
}

/// `/v1/completions` besides the same.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompletionFields {
    pub prompt: Prompt,
    pub logprobs: Option<u64>,
}

/// One prompt or several, as text or as token ids.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids, or a list of lists of token ids"
)]
pub enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

impl Prompt {
    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Texts(texts) => texts.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
            Self::TokenLists(lists) => lists.is_empty(),
        }
    }
}
