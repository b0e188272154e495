//! One message of a conversation, as clients write it and as templates read it.
//!
//! 1. Templates get text, whatever shape it came in: a string, parts, or null (`""`); parts only where the template
//!    reads nothing else.
//! 2. Tool arguments given as JSON text become an object with its keys in order, as templates expect.
//! 3. A tool's result has the name of the function, which some templates show and most clients leave out.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions. `developer` is the same thing under its newer name, which templates do not know.
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result. `function` is its older name.
    #[serde(alias = "function")]
    Tool,
}

impl ToSchema for Role {}

// With the other names that are read.
impl PartialSchema for Role {
    fn schema() -> RefOr<Schema> {
        let names = ["system", "developer", "user", "assistant", "tool", "function"];
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl Role {
    /// As templates write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// What a model that reads only text is told of an image in an older message.
pub const IMAGE: &str = "[image]";
/// Parts and blocks that are images, in every dialect.
pub const IMAGES: [&str; 3] = ["image_url", "input_image", "image"];

/// A message's text.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string, a list of parts with a \"type\", or null")]
pub enum Content {
    /// As one string.
    Text(String),
    /// In parts.
    Parts(Vec<Part>),
}

impl Content {
    /// The text alone.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => parts.iter().filter_map(|part| part.text.as_deref()).collect(),
        }
    }

    /// Puts [`IMAGE`] in the place of every image; true when there was one.
    pub fn name_images(&mut self) -> bool {
        let Self::Parts(parts) = self else { return false };
        let mut found = false;
        for part in parts.iter_mut().filter(|part| IMAGES.contains(&part.kind.as_str())) {
            found = true;
            *part = Part { kind: "text".into(), text: Some(IMAGE.into()) };
        }
        found
    }
}

/// A part of a content.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct Part {
    /// `text`, or something this server cannot read.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(alias = "refusal")]
    pub text: Option<String>,
}

/// A call the assistant made earlier.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct ToolCallMessage {
    /// The client's name for it.
    pub id: Option<String>,
    /// What was called.
    pub function: FunctionCall,
}

/// Name and arguments of a call.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// JSON as text, or an object.
    #[serde(default)]
    pub arguments: Value,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Option<Content>,
    /// What the assistant called.
    pub tool_calls: Option<Vec<ToolCallMessage>>,
    /// Everything else a template may look at: `name`, `tool_call_id`, `reasoning_content`, ...
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A part that is not text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content part {at} has type {found:?}; this model reads only text")]
pub struct ContentError {
    /// Its index.
    pub at: usize,
    /// Its type.
    pub found: String,
}

/// Messages as a template reads them.
pub(super) fn for_template(messages: &[Message], parts: bool) -> Vec<Value> {
    let mut called: HashMap<&str, &str> = HashMap::new();
    let read = messages.iter().map(|message| {
        for call in message.tool_calls.iter().flatten() {
            called.extend(call.id.as_deref().map(|id| (id, call.function.name.as_str())));
        }
        let mut value = message.for_template(parts);
        let answered = message.extra.get("tool_call_id").and_then(Value::as_str);
        let name = answered.and_then(|id| called.get(id)).filter(|_| message.role == Role::Tool);
        if let Some(name) = name.filter(|_| value["name"].is_null()) {
            value["name"] = (*name).into();
        }
        value
    });
    read.collect()
}

impl Message {
    /// A message of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: Some(Content::Text(text.into())), tool_calls: None, extra: Map::new() }
    }

    /// Refuses parts that are not text.
    pub fn check(&self) -> Result<(), ContentError> {
        let Some(Content::Parts(parts)) = &self.content else { return Ok(()) };
        let known = |part: &Part| {
            matches!(part.kind.as_str(), "text" | "input_text" | "output_text" | "refusal")
                && part.text.is_some()
        };
        match parts.iter().position(|part| !known(part)) {
            Some(at) => Err(ContentError { at, found: parts[at].kind.clone() }),
            None => Ok(()),
        }
    }

    fn for_template(&self, parts: bool) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), self.role.as_str().into());
        let text = self.plain_text();
        message.insert(
            "content".into(),
            if parts { json!([{"type": "text", "text": text}]) } else { text.into() },
        );
        message.extend(self.extra.clone());
        if let Some(calls) = self.tool_calls.as_ref().filter(|calls| !calls.is_empty()) {
            message.insert("tool_calls".into(), calls.iter().map(ToolCallMessage::for_template).collect());
        }
        Value::Object(message)
    }

    pub(super) fn plain_text(&self) -> String {
        self.content.as_ref().map_or_else(String::new, Content::text)
    }
}

impl FunctionCall {
    /// The arguments as an object, where they are one.
    pub(super) fn read_arguments(&self) -> Value {
        match &self.arguments {
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            // Text that is not JSON is what the model once wrote; it is shown as it was.
            Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
            Value::Null => Value::Object(Map::new()),
            other => other.clone(),
        }
    }
}

impl ToolCallMessage {
    fn for_template(&self) -> Value {
        let arguments = self.function.read_arguments();
        json!({"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: Value) -> Message {
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn every_shape_of_content_becomes_one_text() {
        for (content, text) in [
            (json!("a b"), "a b"),
            (json!(null), ""),
            (json!([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]), "a b"),
        ] {
            let message = read(json!({"role": "user", "content": content}));
            assert_eq!(message.for_template(false)["content"], text);
            assert_eq!(message.for_template(true)["content"], json!([{"type": "text", "text": text}]));
        }
        assert_eq!(read(json!({"role": "assistant"})).for_template(false)["content"], "");
    }

    #[test]
    fn older_and_newer_role_names_become_those_that_templates_know() {
        assert_eq!(read(json!({"role": "developer", "content": ""})).role, Role::System);
        assert_eq!(read(json!({"role": "function", "content": ""})).role, Role::Tool);
        assert!(serde_json::from_value::<Message>(json!({"role": "wizard"})).is_err());
    }

    #[test]
    fn arguments_as_text_become_an_object_in_the_same_order() {
        let call = |arguments: Value| {
            let message = json!({"role": "assistant", "content": null,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}]});
            read(message).for_template(false)["tool_calls"][0]["function"]["arguments"].to_string()
        };
        assert_eq!(call(json!("{\"z\": 1, \"a\": 2}")), r#"{"z":1,"a":2}"#);
        assert_eq!(call(json!("")), "{}");
        assert_eq!(call(json!("not json")), "\"not json\"");
        assert_eq!(call(json!({"z": 1})), r#"{"z":1}"#);
    }

    #[test]
    fn a_tools_result_has_the_name_of_its_function() {
        let call = |id: &str, name: &str| json!({"id": id, "function": {"name": name}});
        let messages = [
            json!({"role": "tool", "tool_call_id": "c1", "content": ""}),
            json!({"role": "assistant", "tool_calls": [call("c1", "ls"), call("c2", "pwd")]}),
            json!({"role": "tool", "tool_call_id": "c2", "content": ""}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "", "name": null}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "", "name": "list"}),
            json!({"role": "tool", "tool_call_id": "c3", "content": ""}),
            json!({"role": "user", "tool_call_id": "c1", "content": ""}),
        ];
        let read = for_template(&messages.map(read), false);
        let names: Vec<&Value> = read.iter().map(|message| &message["name"]).collect();
        let none = &Value::Null;
        assert_eq!(names, [none, none, &json!("pwd"), &json!("ls"), &json!("list"), none, none]);
    }

    #[test]
    fn a_part_that_is_not_text_is_refused_and_an_image_can_be_named_instead() {
        let mut message = read(
            json!({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]}),
        );
        assert_eq!(message.check(), Err(ContentError { at: 1, found: "image_url".into() }));
        assert!(message.content.as_mut().unwrap().name_images() && message.check().is_ok());
        assert_eq!(message.plain_text(), "x[image]");
        assert!(!message.content.as_mut().unwrap().name_images());
    }
}
