//! Requests as Anthropic's clients write them. Fields that are not named here are ignored, except those that
//! [`messages`](super::messages) refuses.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::prompt::{IMAGE, IMAGES, Role};

/// What the prompt is made of: all that `count_tokens` takes.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PromptFields {
    pub system: Option<Content>,
    pub messages: Vec<Turn>,
    pub tools: Option<Vec<Tool>>,
    pub tool_choice: Option<ToolChoice>,
    pub thinking: Option<Thinking>,
    pub output_config: Option<OutputConfig>,
    pub output_format: Option<Value>,
    pub cache_control: Option<Value>,
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// `/v1/messages` besides that and the [options](crate::api::options::Options) that all endpoints share.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MessagesFields {
    pub stop_sequences: Option<Vec<String>>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Turn {
    pub role: Role,
    pub content: Content,
}

/// What is said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of blocks with a \"type\"")]
#[schema(as = MessageContent)]
pub enum Content {
    /// As one string.
    Text(String),
    /// In blocks.
    Blocks(Vec<Block>),
}

impl Content {
    /// Puts [`IMAGE`] in the place of every image; true when there was one.
    pub fn name_images(&mut self) -> bool {
        let Self::Blocks(blocks) = self else { return false };
        let mut found = false;
        for block in blocks {
            if IMAGES.contains(&block.kind.as_str()) {
                found = true;
                (block.kind, block.text) = ("text".into(), Some(IMAGE.into()));
            }
            found |= block.content.as_mut().is_some_and(Self::name_images);
        }
        found
    }
}

/// A block; which fields it must have depends on its type.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageBlock)]
pub struct Block {
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `text`.
    pub text: Option<String>,
    /// Of `thinking`.
    pub thinking: Option<String>,
    /// Of `tool_use`.
    pub id: Option<String>,
    /// Of `tool_use`.
    pub name: Option<String>,
    /// Of `tool_use`.
    pub input: Option<Value>,
    /// Of `tool_result`.
    pub tool_use_id: Option<String>,
    /// Of `tool_result`.
    #[schema(no_recursion)]
    pub content: Option<Content>,
    /// Of `tool_result`.
    pub is_error: Option<bool>,
    /// Of any.
    pub cache_control: Option<Value>,
}

/// A tool that the client runs.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageTool)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    pub input_schema: Option<Value>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub cache_control: Option<Value>,
}

/// Which tools the answer may call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageToolChoice)]
pub struct ToolChoice {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: Option<String>,
    pub disable_parallel_tool_use: Option<bool>,
}

/// How the answer is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct OutputConfig {
    pub format: Option<Value>,
    /// The template's variable `reasoning_effort`.
    pub effort: Option<String>,
}

/// Whether the model is to think first.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Thinking {
    #[serde(rename = "type")]
    pub kind: String,
}
