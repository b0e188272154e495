//! Chat requests checked: refusals of what this server does not do, and the conversation.

use serde_json::{Map, Value};

use super::request::ChatFields;
use crate::api::error::ApiError;
use crate::api::refuse::{empty, never, off, refuse};
use crate::prompt::Conversation;

/// Refuses what neither endpoint acts on.
pub fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(
        object,
        &[
            ("response_format", |value| value["type"] == "text"),
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

/// The conversation of a chat request, checked.
pub fn conversation(fields: ChatFields) -> Result<Conversation, ApiError> {
    if fields.messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty; expected at least one message"));
    }
    for (i, message) in fields.messages.iter().enumerate() {
        message.check().map_err(|error| {
            ApiError::field(format!("messages[{i}].content"), format!("messages[{i}]: {error}"))
        })?;
    }
    let tools = fields.tools.unwrap_or_default();
    for (i, tool) in tools.iter().enumerate() {
        if tool["type"] != "function" || !tool["function"]["name"].is_string() {
            let expected = r#"expected {"type": "function", "function": {"name": ...}}"#;
            return Err(ApiError::field(
                format!("tools[{i}]"),
                format!("tools[{i}] is not a function; {expected}"),
            ));
        }
    }
    let wanted = tools_wanted(fields.tool_choice.as_ref())?;
    Ok(Conversation {
        messages: fields.messages,
        // Tools that must not be called are not shown to the model, so that it does not call them.
        tools: if wanted { tools } else { Vec::new() },
        variables: fields.chat_template_kwargs.unwrap_or_default(),
        add_generation_prompt: fields.add_generation_prompt.unwrap_or(true),
    })
}

fn tools_wanted(choice: Option<&Value>) -> Result<bool, ApiError> {
    match choice {
        None | Some(Value::Null) => Ok(true),
        Some(choice) if choice == "auto" => Ok(true),
        Some(choice) if choice == "none" => Ok(false),
        Some(choice) if choice == "required" || choice["type"] == "function" => {
            Err(ApiError::Unsupported { param: "tool_choice", what: format!("tool_choice = {choice}") })
        }
        Some(other) => Err(ApiError::field(
            "tool_choice",
            format!("tool_choice is {other}; expected \"auto\" or \"none\""),
        )),
    }
}
