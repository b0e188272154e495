//! Chat requests checked: refusals of what this server does not do, and the conversation.

use serde_json::{Map, Value};

use super::request::{ChatFields, variables};
use crate::api::error::ApiError;
use crate::api::format::{ToolChoice, among, format, json_schema};
use crate::api::refuse::{empty, never, off, refuse};
use crate::prompt::{CallCount, Conversation, Format, in_order};

/// Refuses what neither endpoint acts on.
pub fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(
        object,
        &[
            ("functions", empty),
            ("function_call", |value| *value == "none" || *value == "auto"),
            ("modalities", |value| {
                value.as_array().is_some_and(|list| list.iter().all(|kind| *kind == "text"))
            }),
            ("continue_final_message", off),
            ("echo", off),
            ("suffix", empty),
            ("best_of", |value| *value == 1),
            ("use_beam_search", off),
            ("prompt_logprobs", |value| *value == 0 || *value == false),
            ("structured_outputs", empty),
            ("guided_json", never),
            ("guided_regex", never),
            ("guided_choice", never),
            ("guided_grammar", never),
            ("grammar", empty),
            ("json_schema", empty),
        ],
    )
}

/// What a chat request asks for.
pub struct Asked {
    pub conversation: Conversation,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
    pub choice: ToolChoice,
    /// What cannot be enforced in full is refused.
    pub strict: bool,
    pub calls: CallCount,
}

/// Checks a chat request's own fields.
pub fn asked(fields: ChatFields) -> Result<Asked, ApiError> {
    if fields.messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty; expected at least one message"));
    }
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
    let conversation = Conversation {
        messages: fields.messages,
        tools,
        variables: variables(fields.chat_template_kwargs, fields.reasoning_effort.as_deref()),
        add_generation_prompt: fields.add_generation_prompt.unwrap_or(true),
    };
    Ok(Asked { conversation, format, choice, strict, calls })
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
