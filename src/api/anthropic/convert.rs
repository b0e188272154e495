//! From Anthropic's blocks to the conversation that chat templates render.
//!
//! `tool_use` blocks become calls of their message, `tool_result` blocks messages of the role `tool`, texts side by side
//! one text with a line break between them.

use serde_json::{Map, Value, json};

use super::request::{self, Block, Content, PromptFields, Tool, Turn};
use crate::api::error::ApiError;
use crate::api::format::{self, ToolChoice, json_schema};
use crate::prompt::{self, CallCount, Conversation, Format, FunctionCall, Message, Role, ToolCallMessage};

/// Claude Code puts a line with a number of its own into every request's system prompt, first of all. Were it part of the
/// prompt, no two requests would share a prefix.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

/// What a request's prompt fields ask for.
#[derive(Debug)]
pub struct Asked {
    pub conversation: Conversation,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
    pub calls: CallCount,
    /// A prefix is marked to be cached.
    pub marked: bool,
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
    let mut converter = Converter { messages: Vec::new(), marked: false };
    converter.mark("cache_control", fields.cache_control.as_ref())?;
    let tools = converter.tools(fields.tools.unwrap_or_default())?;
    if let Some(system) = fields.system {
        converter.system(system)?;
    }
    for (at, turn) in fields.messages.into_iter().enumerate() {
        converter.turn(&format!("messages[{at}]"), turn)?;
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
    let (field, asked) = match fields.output_config.and_then(|config| config.format) {
        Some(asked) => ("output_config.format", Some(asked)),
        None => ("output_format", fields.output_format),
    };
    let schema =
        json_schema(field, asked.as_ref(), |asked| (format!("{field}.schema"), asked["schema"].clone()))?;
    let format = format::format(schema, &tools, &choice, calls)?;
    let conversation = Conversation {
        messages: converter.messages,
        // Tools that must not be called are not shown to the model, so that it does not call them.
        tools: if choice == ToolChoice::None { Vec::new() } else { tools },
        variables,
        add_generation_prompt: true,
    };
    Ok(Asked { conversation, format, calls, marked: converter.marked })
}

struct Converter {
    messages: Vec<Message>,
    marked: bool,
}

impl Converter {
    fn mark(&mut self, path: &str, control: Option<&Value>) -> Result<(), ApiError> {
        let Some(control) = control.filter(|control| !control.is_null()) else { return Ok(()) };
        if control["type"] != "ephemeral" {
            let expected = r#"expected {"type": "ephemeral"}"#;
            return Err(ApiError::field(path, format!("{path} is {control}; {expected}")));
        }
        let ttl = &control["ttl"];
        if !(ttl.is_null() || *ttl == "5m" || *ttl == "1h") {
            let path = format!("{path}.ttl");
            return Err(ApiError::field(
                path.as_str(),
                format!("{path} is {ttl}; expected \"5m\" or \"1h\""),
            ));
        }
        self.marked = true;
        Ok(())
    }

    fn tools(&mut self, tools: Vec<Tool>) -> Result<Vec<Value>, ApiError> {
        let mut converted = Vec::with_capacity(tools.len());
        for (at, tool) in tools.into_iter().enumerate() {
            let path = format!("tools[{at}]");
            self.mark(&format!("{path}.cache_control"), tool.cache_control.as_ref())?;
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
            converted.push(json!({"type": "function", "function": function}));
        }
        Ok(converted)
    }

    fn system(&mut self, system: Content) -> Result<(), ApiError> {
        let texts = self.texts("system", system)?;
        let texts = texts.iter().map(|text| without_billing_header(text)).filter(|text| !text.is_empty());
        let text = texts.collect::<Vec<_>>().join("\n");
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
                let text = self.texts(&content, Content::Blocks(blocks))?.join("\n");
                self.messages.push(Message::text(turn.role, text));
                Ok(())
            }
        }
    }

    fn user(&mut self, path: &str, blocks: Vec<Block>) -> Result<(), ApiError> {
        let mut texts = Vec::new();
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.mark(&format!("{path}.cache_control"), block.cache_control.as_ref())?;
            match block.kind.as_str() {
                "text" => texts.push(need(block.text, &path, "text")?),
                "tool_result" => {
                    self.say(Role::User, &mut texts);
                    self.tool_result(&path, block)?;
                }
                other => return Err(unreadable(&path, other, "text and tool_result")),
            }
        }
        self.say(Role::User, &mut texts);
        Ok(())
    }

    fn tool_result(&mut self, path: &str, block: Block) -> Result<(), ApiError> {
        let id = need(block.tool_use_id, path, "tool_use_id")?;
        let text = match block.content {
            Some(content) => self.texts(&format!("{path}.content"), content)?.join("\n"),
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
            self.mark(&format!("{path}.cache_control"), block.cache_control.as_ref())?;
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

    /// The texts of a content that may hold nothing else.
    fn texts(&mut self, path: &str, content: Content) -> Result<Vec<String>, ApiError> {
        let blocks = match content {
            Content::Text(text) => return Ok(vec![text]),
            Content::Blocks(blocks) => blocks,
        };
        let mut texts = Vec::with_capacity(blocks.len());
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.mark(&format!("{path}.cache_control"), block.cache_control.as_ref())?;
            if block.kind != "text" {
                return Err(unreadable(&path, &block.kind, "text"));
            }
            texts.push(need(block.text, &path, "text")?);
        }
        Ok(texts)
    }
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

fn without_billing_header(text: &str) -> &str {
    if text.starts_with(BILLING_HEADER) { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text }
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
