//! Chat requests checked: refusals of what this server does not do, and the conversation.

use serde_json::{Map, Value};

use super::request::{ChatFields, ThinkingFields};
use crate::api::error::ApiError;
use crate::api::format::{ToolChoice, among, format, json_schema};
use crate::api::refuse::{refuse_foreign, refuse_misnamed, within};
use crate::prompt::{CallCount, Conversation, Format, in_order};

/// OpenAI's range.
const TEMPERATURE: (f64, f64) = (0.0, 2.0);

/// Refuses what a chat does not act on.
pub fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse_for_both(object)?;
    let system = "a message with the role system";
    refuse_misnamed(
        object,
        &[
            ("prompt", "messages"),
            ("input", "messages"),
            ("inputs", "messages"),
            ("system", system),
            ("instructions", system),
            ("max_output_tokens", "max_completion_tokens"),
            ("text", "response_format"),
            ("output_config", "response_format"),
            ("output_format", "response_format"),
        ],
    )
}

/// Refuses what neither chats nor completions act on.
pub fn refuse_for_both(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse_foreign(object)?;
    refuse_misnamed(object, &[("stop_sequences", "stop")])?;
    within(object, "temperature", TEMPERATURE.0, TEMPERATURE.1)
}

/// What a chat request asks for.
pub struct Asked {
    pub conversation: Conversation,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
    pub choice: ToolChoice,
    /// What cannot be enforced in full is refused.
    pub strict: bool,
    /// Older messages had images, which are only named.
    pub images: bool,
    pub calls: CallCount,
}

/// Checks a chat request's own fields.
pub fn asked(mut fields: ChatFields, thinking: ThinkingFields) -> Result<Asked, ApiError> {
    let Some((_, older)) = fields.messages.split_last_mut() else {
        return Err(ApiError::field("messages", "messages is empty; expected at least one message"));
    };
    let mut images = false;
    let contents = older.iter_mut().filter_map(|message| message.content.as_mut());
    contents.for_each(|content| images |= content.name_images());
    for (i, message) in fields.messages.iter().enumerate() {
        message.check().map_err(|error| {
            ApiError::field(format!("messages[{i}].content"), format!("messages[{i}]: {error}"))
        })?;
    }
    let tools: Vec<Value> = fields.tools.unwrap_or_default().into_iter().map(in_order).collect();
    for (i, tool) in tools.iter().enumerate() {
        if tool["type"] != "function" || !tool["function"]["name"].is_string() {
            let expected = r#"expected {"type": "function", "function": {"name": ...}}"#;
            return Err(ApiError::field(
                format!("tools[{i}]"),
                format!("tools[{i}] is not a function; {expected}"),
            ));
        }
    }
    let choice = tool_choice(fields.tool_choice.as_ref())?;
    let calls = if fields.parallel_tool_calls == Some(false) { CallCount::One } else { CallCount::Several };
    let schema = json_schema("response_format", fields.response_format.as_ref(), |asked| {
        ("response_format.json_schema.schema".into(), asked["json_schema"]["schema"].clone())
    })?;
    let format = format(schema, &tools, &choice, calls)?;
    let strict = fields.response_format.as_ref().is_some_and(|asked| asked["json_schema"]["strict"] == true)
        || tools.iter().any(|tool| tool["function"]["strict"] == true);
    let variables = thinking.variables(fields.chat_template_kwargs)?;
    let conversation = Conversation {
        messages: fields.messages,
        tools,
        variables,
        add_generation_prompt: fields.add_generation_prompt.unwrap_or(true),
    };
    Ok(Asked { conversation, format, choice, strict, images, calls })
}

fn tool_choice(choice: Option<&Value>) -> Result<ToolChoice, ApiError> {
    match choice {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(choice) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(choice) if choice == "none" => Ok(ToolChoice::None),
        Some(choice) if choice == "required" => Ok(ToolChoice::Required),
        Some(choice) => {
            let (named, allowed) = (&choice["function"]["name"], &choice["allowed_tools"]);
            let named = named.as_str().or_else(|| choice["custom"]["name"].as_str());
            let among = || among(allowed, |tool| Some(tool["function"]["name"].as_str()?.to_owned()));
            named.map(|name| ToolChoice::Named(name.to_owned())).or_else(among).ok_or_else(|| {
                let expected = "expected \"auto\", \"none\", \"required\", \
                    {\"type\": \"function\", \"function\": {\"name\": ...}} or {\"type\": \"allowed_tools\", \
                    \"allowed_tools\": {\"mode\": \"auto\" or \"required\", \"tools\": [...]}}";
                ApiError::field("tool_choice", format!("tool_choice is {choice}; {expected}"))
            })
        }
    }
}
