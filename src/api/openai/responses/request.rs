//! Requests as clients write them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::api::options::whole;
use crate::prompt::{Content, Role};

/// `/v1/responses` besides the [options](crate::api::options::Options) that all endpoints share.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ResponseFields {
    pub input: Input,
    /// A system message that goes first; not taken over from the previous response.
    pub instructions: Option<String>,
    /// A stored response whose conversation goes on.
    pub previous_response_id: Option<String>,
    /// Whether the response can be asked for and gone on from; true unless said otherwise.
    pub store: Option<bool>,
    pub tools: Option<Vec<Tool>>,
    /// `auto`, `none`, `required`, or `{"type": "function", "name"}`.
    pub tool_choice: Option<Value>,
    pub parallel_tool_calls: Option<bool>,
    pub text: Option<TextConfig>,
    pub reasoning: Option<Reasoning>,
    #[serde(default, deserialize_with = "whole")]
    pub max_output_tokens: Option<i64>,
    /// Of tools that a server runs, which are not here; told again in the response.
    pub max_tool_calls: Option<u64>,
    /// `message.output_text.logprobs` asks for log probabilities; what else may be named is of tools that are not here.
    pub include: Option<Vec<String>>,
    pub top_logprobs: Option<u64>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub prompt_cache_key: Option<String>,
    pub safety_identifier: Option<String>,
    pub user: Option<String>,
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// What is new in the conversation.
// Read by hand, so that an error names the item.
#[derive(Debug)]
pub enum Input {
    /// What the user says.
    Text(String),
    /// Messages, calls and their results.
    Items(Vec<Item>),
}

/// An item; which fields it must have depends on its type.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseItem)]
pub struct Item {
    /// `message` (also when there is none), `function_call`, `function_call_output`, `reasoning` or `item_reference`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of `item_reference`: the item of a stored response. What other items are called does not matter.
    pub id: Option<String>,
    /// Of `message`.
    pub role: Option<Role>,
    /// Of `message` and `reasoning`.
    pub content: Option<Content>,
    /// Of `function_call` and `function_call_output`.
    pub call_id: Option<String>,
    /// Of `function_call`.
    pub name: Option<String>,
    /// Of `function_call`.
    pub namespace: Option<String>,
    /// Of `function_call`: JSON as text.
    pub arguments: Option<String>,
    /// Of `function_call_output`.
    pub output: Option<Content>,
}

/// A tool.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseTool)]
pub struct Tool {
    /// `function`, `namespace`, or one that a server would run.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `function` and `namespace`.
    pub name: Option<String>,
    /// Of `function` and `namespace`.
    pub description: Option<String>,
    /// Of `function`: the schema of its arguments.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Of `namespace`: its functions.
    #[schema(no_recursion)]
    pub tools: Option<Vec<Tool>>,
}

/// How the text is to be.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct TextConfig {
    /// `{"type": "text" | "json_object" | "json_schema", "schema"}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// The template's variable `verbosity`, for models that know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<String>,
}

/// How much is to be thought.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct Reasoning {
    /// The template's variables `reasoning_effort` and, unless it is `none`, `enable_thinking`.
    pub effort: Option<String>,
    /// Thoughts are never summarized; they are told as they are.
    pub summary: Option<String>,
}

impl Item {
    /// Names the images in it; true when there was one.
    pub fn name_images(&mut self) -> bool {
        let contents = [&mut self.content, &mut self.output].into_iter().flatten();
        let mut found = false;
        contents.for_each(|content| found |= content.name_images());
        found
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let texts = [&self.kind, &self.id, &self.call_id, &self.name, &self.namespace, &self.arguments];
        let contents = [&self.content, &self.output];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        size_of::<Self>()
            + texts
            + contents.into_iter().flatten().map(|content| content.text().len()).sum::<usize>()
    }
}

impl PartialSchema for Input {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(Item::name().as_ref()));
        Schema::OneOf(OneOfBuilder::new().item(String::schema()).item(items).build()).into()
    }
}

impl ToSchema for Input {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Item::schemas(schemas);
        schemas.push((Item::name().into(), Item::schema()));
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of items")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Input, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Input::Items)
    }
}
