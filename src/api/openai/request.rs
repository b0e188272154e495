//! Requests as clients write them. Fields that are not named here are ignored, except those that
//! [`validate`](super::validate) refuses.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::error::ApiError;
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
    pub add_generation_prompt: Option<bool>,
}

/// The ways in which clients say how much is to be thought, and how much said.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ThinkingFields {
    /// The template's variables `reasoning_effort` and, unless it is `none`, `enable_thinking`.
    pub reasoning_effort: Option<String>,
    /// `{"effort"}` and `{"enabled"}`, the same.
    #[schema(value_type = Option<Object>)]
    pub reasoning: Option<Value>,
    /// `{"type": "enabled" | "adaptive" | "disabled"}`: the template's variable `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub thinking: Option<Value>,
    /// The template's variable of this name.
    pub enable_thinking: Option<bool>,
    /// True or false, or an effort.
    pub think: Option<Value>,
    /// The template's variable of this name.
    pub verbosity: Option<String>,
}

impl ThinkingFields {
    /// The template's variables as a client sets them, and those that these fields set.
    pub fn variables(self, set: Option<Map<String, Value>>) -> Result<Map<String, Value>, ApiError> {
        let wrong = |param: &str, found: &Value, expected: &str| {
            Err(ApiError::field(param, format!("{param} is {found}; expected {expected}")))
        };
        let (mut effort, mut thinks) = (self.reasoning_effort, self.enable_thinking);
        match &self.think {
            None | Some(Value::Null) => {}
            Some(Value::Bool(wish)) => thinks = thinks.or(Some(*wish)),
            Some(Value::String(wish)) => effort = effort.or_else(|| Some(wish.clone())),
            Some(other) => return wrong("think", other, "true, false or an effort"),
        }
        match self.thinking.as_ref().map(|thinking| (thinking, thinking["type"].as_str())) {
            None | Some((Value::Null, _)) => {}
            Some((_, Some("enabled" | "adaptive"))) => thinks = thinks.or(Some(true)),
            Some((_, Some("disabled"))) => thinks = thinks.or(Some(false)),
            Some((other, _)) => return wrong("thinking", other, "a type: enabled, adaptive or disabled"),
        }
        for (key, value) in self.reasoning.as_ref().and_then(Value::as_object).into_iter().flatten() {
            match (key.as_str(), value) {
                (_, Value::Null) | ("summary", _) | ("exclude", Value::Bool(false)) => {}
                ("effort", Value::String(wish)) => effort = effort.or_else(|| Some(wish.clone())),
                ("enabled", Value::Bool(wish)) => thinks = thinks.or(Some(*wish)),
                _ => {
                    return wrong(
                        "reasoning",
                        &self.reasoning.clone().unwrap_or_default(),
                        "effort or enabled",
                    );
                }
            }
        }
        let mut set = set.unwrap_or_default();
        if let Some(thinks) = thinks {
            set.entry("enable_thinking").or_insert(thinks.into());
        }
        if let Some(verbosity) = self.verbosity {
            set.entry("verbosity").or_insert(verbosity.into());
        }
        Ok(variables(Some(set), effort.as_deref()))
    }
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
