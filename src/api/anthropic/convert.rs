//! From Anthropic's blocks to the conversation that chat templates render.
//!
//! `tool_use` blocks become calls of their message, `tool_result` blocks messages of the role `tool`, texts side by side
//! one text with a line break between them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::request::{self, Block, Content, PromptFields, Tool, Turn};
use crate::api::error::ApiError;
use crate::api::format::{self, ToolChoice, json_schema};
use crate::api::marks::{Mark, Place};
use crate::prompt::{
    self, CallCount, Conversation, Format, FunctionCall, Message, Role, ToolCallMessage, in_order,
};

/// Claude Code puts a line with a number of its own into every request's system prompt, first of all. Were it part of the
/// prompt, no two requests would share a prefix.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

/// Blocks with a `cache_control` in one request, as in Anthropic's API.
const MOST_MARKS: usize = 4;
const FIVE_MINUTES: Duration = Duration::from_mins(5);
const ONE_HOUR: Duration = Duration::from_hours(1);

/// What a request's prompt fields ask for.
#[derive(Debug)]
pub struct Asked {
    pub conversation: Conversation,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
    pub choice: ToolChoice,
    /// Older messages had images, which are only named.
    pub images: bool,
    pub calls: CallCount,
    /// Prefixes that are to be pinned.
    pub marks: Vec<Mark>,
}

/// Checks and converts.
pub fn convert(fields: PromptFields) -> Result<Asked, ApiError> {
    if fields.messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty; expected at least one message"));
    }
    if fields.messages.last().is_some_and(|turn| turn.role == Role::Assistant) {
        return Err(ApiError::Unsupported {
            param: "messages",
            what: "an assistant message as the last, to be continued,".into(),
        });
    }
    let mut converter = Converter { messages: Vec::new(), marks: Vec::new() };
    let tools = converter.tools(fields.tools.unwrap_or_default())?;
    if let Some(system) = fields.system {
        converter.system(system)?;
    }
    let (last, mut images) = (fields.messages.len() - 1, false);
    for (at, mut turn) in fields.messages.into_iter().enumerate() {
        images |= at < last && turn.content.name_images();
        converter.turn(&format!("messages[{at}]"), turn)?;
    }
    // On the request as a whole: up to the end of its last block.
    let last = Place::Message { at: converter.messages.len().saturating_sub(1), bytes: usize::MAX };
    converter.mark("cache_control", fields.cache_control.as_ref(), last)?;
    if converter.marks.len() > MOST_MARKS {
        let found = converter.marks.len();
        return Err(ApiError::field(
            "cache_control",
            format!("{found} blocks have a cache_control; expected at most {MOST_MARKS}"),
        ));
    }
    let mut variables = fields.chat_template_kwargs.unwrap_or_default();
    if let Some(thinking) = fields.thinking {
        let thinks = match thinking.kind.as_str() {
            "enabled" | "adaptive" => true,
            "disabled" => false,
            other => return Err(unknown("thinking.type", other, "enabled, adaptive or disabled")),
        };
        // What the templates of models that can do both look at.
        variables.entry("enable_thinking").or_insert(thinks.into());
    }
    let choice = tool_choice(fields.tool_choice.as_ref())?;
    let one = fields.tool_choice.is_some_and(|choice| choice.disable_parallel_tool_use == Some(true));
    let calls = if one { CallCount::One } else { CallCount::Several };
    let config = fields.output_config.unwrap_or_default();
    if let Some(effort) = config.effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    let (field, asked) = match config.format {
        Some(asked) => ("output_config.format", Some(asked)),
        None => ("output_format", fields.output_format),
    };
    let schema =
        json_schema(field, asked.as_ref(), |asked| (format!("{field}.schema"), asked["schema"].clone()))?;
    let format = format::format(schema, &tools, &choice, calls)?;
    let conversation =
        Conversation { messages: converter.messages, tools, variables, add_generation_prompt: true };
    Ok(Asked { conversation, format, choice, images, calls, marks: converter.marks })
}

struct Converter {
    messages: Vec<Message>,
    marks: Vec<Mark>,
}

impl Converter {
    /// Notes that the prompt is to be pinned up to `place`, if `control` says so.
    fn mark(&mut self, path: &str, control: Option<&Value>, place: Place) -> Result<(), ApiError> {
        let Some(control) = control.filter(|control| !control.is_null()) else { return Ok(()) };
        if control["type"] != "ephemeral" {
            let expected = r#"expected {"type": "ephemeral"}"#;
            return Err(ApiError::field(path, format!("{path} is {control}; {expected}")));
        }
        let time = match &control["ttl"] {
            Value::Null => FIVE_MINUTES,
            ttl if ttl == "5m" => FIVE_MINUTES,
            ttl if ttl == "1h" => ONE_HOUR,
            ttl => {
                let path = format!("{path}.ttl");
                let message = format!("{path} is {ttl}; expected \"5m\" or \"1h\"");
                return Err(ApiError::field(path, message));
            }
        };
        self.marks.push(Mark { place, time });
        Ok(())
    }

    fn tools(&mut self, tools: Vec<Tool>) -> Result<Vec<Value>, ApiError> {
        let mut converted = Vec::with_capacity(tools.len());
        for (at, tool) in tools.into_iter().enumerate() {
            let path = format!("tools[{at}]");
            self.mark(&format!("{path}.cache_control"), tool.cache_control.as_ref(), Place::Tool { at })?;
            if let Some(kind) = tool.kind.as_deref().filter(|kind| *kind != "custom") {
                let message = format!(
                    "{path} is {kind:?}, a tool that the server would run; only tools with an input_schema, which the client runs, are supported"
                );
                return Err(ApiError::field(format!("{path}.type"), message));
            }
            let Some(schema) = tool.input_schema else {
                let path = format!("{path}.input_schema");
                return Err(ApiError::field(
                    path.as_str(),
                    format!("{path} is missing; expected a JSON schema"),
                ));
            };
            let mut function = Map::new();
            function.insert("name".into(), tool.name.into());
            if let Some(description) = tool.description {
                function.insert("description".into(), description.into());
            }
            function.insert("parameters".into(), schema);
            converted.push(in_order(json!({"type": "function", "function": function})));
        }
        Ok(converted)
    }

    fn system(&mut self, system: Content) -> Result<(), ApiError> {
        let text = self.text("system", system, without_billing_header)?;
        if !text.is_empty() {
            self.messages.push(Message::text(Role::System, text));
        }
        Ok(())
    }

    fn turn(&mut self, path: &str, turn: Turn) -> Result<(), ApiError> {
        if turn.role == Role::Tool {
            return Err(unknown(&format!("{path}.role"), "tool", "user, assistant or system"));
        }
        let content = format!("{path}.content");
        let blocks = match turn.content {
            Content::Text(text) => {
                self.messages.push(Message::text(turn.role, text));
                return Ok(());
            }
            Content::Blocks(blocks) => blocks,
        };
        match turn.role {
            Role::User => self.user(&content, blocks),
            Role::Assistant => self.assistant(&content, blocks),
            Role::System | Role::Tool => {
                let text = self.text(&content, Content::Blocks(blocks), whole)?;
                self.messages.push(Message::text(turn.role, text));
                Ok(())
            }
        }
    }

    fn user(&mut self, path: &str, blocks: Vec<Block>) -> Result<(), ApiError> {
        let mut texts = Vec::new();
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            let control = block.cache_control.clone();
            let place = match block.kind.as_str() {
                "text" => {
                    texts.push(need(block.text, &path, "text")?);
                    Place::after(&self.messages, &texts)
                }
                "tool_result" => {
                    self.say(Role::User, &mut texts);
                    self.tool_result(&path, block)?;
                    Place::Message { at: self.messages.len() - 1, bytes: usize::MAX }
                }
                other => return Err(unreadable(&path, other, "text and tool_result")),
            };
            self.mark(&format!("{path}.cache_control"), control.as_ref(), place)?;
        }
        self.say(Role::User, &mut texts);
        Ok(())
    }

    fn tool_result(&mut self, path: &str, block: Block) -> Result<(), ApiError> {
        let id = need(block.tool_use_id, path, "tool_use_id")?;
        let text = match block.content {
            Some(content) => self.text(&format!("{path}.content"), content, whole)?,
            None => String::new(),
        };
        let mut message = Message::text(Role::Tool, text);
        message.extra.insert("tool_call_id".into(), id.into());
        if block.is_error == Some(true) {
            message.extra.insert("is_error".into(), true.into());
        }
        self.messages.push(message);
        Ok(())
    }

    fn assistant(&mut self, path: &str, blocks: Vec<Block>) -> Result<(), ApiError> {
        let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            let control = block.cache_control.clone();
            // Templates write calls after everything else: what follows a call is the next message.
            let called = block.kind == "tool_use";
            match block.kind.as_str() {
                "text" => texts.push(need(block.text, &path, "text")?),
                "thinking" => thoughts.push(need(block.thinking, &path, "thinking")?),
                // What it says is for its maker alone.
                "redacted_thinking" => {}
                "tool_use" => calls.push(ToolCallMessage {
                    id: Some(need(block.id, &path, "id")?),
                    function: FunctionCall {
                        name: need(block.name, &path, "name")?,
                        arguments: block.input.unwrap_or_default(),
                    },
                }),
                other => return Err(unreadable(&path, other, "text, thinking and tool_use")),
            }
            let place = if called {
                Place::Message { at: self.messages.len() + 1, bytes: 0 }
            } else {
                Place::after(&self.messages, &texts)
            };
            self.mark(&format!("{path}.cache_control"), control.as_ref(), place)?;
        }
        let mut message = Message::text(Role::Assistant, texts.join("\n"));
        message.tool_calls = Some(calls).filter(|calls| !calls.is_empty());
        if !thoughts.is_empty() {
            message.extra.insert("reasoning_content".into(), thoughts.join("\n").into());
        }
        self.messages.push(message);
        Ok(())
    }

    fn say(&mut self, role: Role, texts: &mut Vec<String>) {
        if !texts.is_empty() {
            self.messages.push(Message {
                content: Some(prompt::Content::Text(std::mem::take(texts).join("\n"))),
                ..Message::text(role, "")
            });
        }
    }

    /// The text of a content that may hold nothing else, going to be the next message: what `shown` leaves of its blocks.
    fn text(
        &mut self,
        path: &str,
        content: Content,
        shown: fn(&str) -> Option<&str>,
    ) -> Result<String, ApiError> {
        let blocks = match content {
            Content::Text(text) => return Ok(shown(&text).unwrap_or_default().to_owned()),
            Content::Blocks(blocks) => blocks,
        };
        let mut texts = Vec::with_capacity(blocks.len());
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            if block.kind != "text" {
                return Err(unreadable(&path, &block.kind, "text"));
            }
            let text = need(block.text, &path, "text")?;
            texts.extend(shown(&text).map(str::to_owned));
            let place = Place::after(&self.messages, &texts);
            self.mark(&format!("{path}.cache_control"), block.cache_control.as_ref(), place)?;
        }
        Ok(texts.join("\n"))
    }
}

impl Place {
    /// The end of the last of `texts`, which are going to be the next message, with a line break between them.
    fn after(messages: &[Message], texts: &[String]) -> Self {
        let breaks = texts.len().saturating_sub(1);
        Self::Message { at: messages.len(), bytes: texts.iter().map(String::len).sum::<usize>() + breaks }
    }
}

/// All of it, as one of the ways to show a text.
#[allow(clippy::unnecessary_wraps)]
fn whole(text: &str) -> Option<&str> {
    Some(text)
}

fn need<T>(field: Option<T>, path: &str, name: &str) -> Result<T, ApiError> {
    let path = format!("{path}.{name}");
    field.ok_or_else(|| ApiError::field(path.as_str(), format!("{path} is missing")))
}

fn unreadable(path: &str, found: &str, known: &str) -> ApiError {
    let path = format!("{path}.type");
    let message = format!("{path} is {found:?}; this model reads blocks of the types {known} here");
    ApiError::field(path, message)
}

fn unknown(path: &str, found: &str, expected: &str) -> ApiError {
    ApiError::field(path, format!("{path} is {found:?}; expected {expected}"))
}

fn without_billing_header(text: &str) -> Option<&str> {
    let text = if text.starts_with(BILLING_HEADER) { text.split_once('\n')?.1 } else { text };
    Some(text).filter(|text| !text.is_empty())
}

fn tool_choice(choice: Option<&request::ToolChoice>) -> Result<ToolChoice, ApiError> {
    let Some(choice) = choice else { return Ok(ToolChoice::Auto) };
    match (choice.kind.as_str(), &choice.name) {
        ("auto", _) => Ok(ToolChoice::Auto),
        ("none", _) => Ok(ToolChoice::None),
        ("any", _) => Ok(ToolChoice::Required),
        ("tool", Some(name)) => Ok(ToolChoice::Named(name.clone())),
        ("tool", None) => Err(ApiError::field("tool_choice.name", "tool_choice.name is missing")),
        (other, _) => Err(unknown("tool_choice.type", other, "auto, any, tool or none")),
    }
}
