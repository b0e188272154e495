//! From items to the messages that chat templates render.
//!
//! A call joins the assistant's message before it, so that what a model said and called in one answer is one message again.

use serde_json::Value;

use super::request::{Input, Item};
use super::tools::qualified;
use crate::api::error::ApiError;
use crate::prompt::{Content, FunctionCall, Message, Role, ToolCallMessage};

/// The items of an input.
pub fn items(input: Input) -> Result<Vec<Item>, ApiError> {
    let items = match input {
        Input::Text(text) => {
            vec![Item { role: Some(Role::User), content: Some(Content::Text(text)), ..Item::default() }]
        }
        Input::Items(items) => items,
    };
    if items.is_empty() {
        return Err(ApiError::field("input", "input is empty; expected at least one item"));
    }
    Ok(items)
}

/// The items with those that are only named in their places. `find` knows the items of stored responses.
pub fn resolved(items: Vec<Item>, find: impl Fn(&str) -> Option<Item>) -> Result<Vec<Item>, ApiError> {
    let resolve = |(at, item): (usize, Item)| {
        if item.kind.as_deref() != Some("item_reference") {
            return Ok(item);
        }
        let path = format!("input[{at}]");
        let id = need(item.id, &path, "id")?;
        find(&id).ok_or_else(|| {
            let message = format!("{path}.id is {id:?}; no stored response has an item of that name");
            ApiError::field(format!("{path}.id"), message)
        })
    };
    items.into_iter().enumerate().map(resolve).collect()
}

/// The messages that items make. `field` is where they are.
pub fn messages(field: &str, items: &[Item]) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::with_capacity(items.len());
    let mut thoughts = None;
    for (at, item) in items.iter().enumerate() {
        let path = format!("{field}[{at}]");
        match item.kind.as_deref() {
            None | Some("message") => messages.push(message(&path, item, &mut thoughts)?),
            Some("function_call") => call(&path, item, &mut thoughts, &mut messages)?,
            Some("function_call_output") => messages.push(call_output(&path, item)?),
            // Thoughts without text are for their maker alone.
            Some("reasoning") => thoughts = item.content.as_ref().map(Content::text),
            Some(other) => {
                let path = format!("{path}.type");
                let known = "message, function_call, function_call_output, reasoning and item_reference";
                return Err(ApiError::field(
                    path.as_str(),
                    format!("{path} is {other:?}; this server reads items of the types {known}"),
                ));
            }
        }
    }
    Ok(messages)
}

fn message(path: &str, item: &Item, thoughts: &mut Option<String>) -> Result<Message, ApiError> {
    let role = need(item.role, path, "role")?;
    let content = need(item.content.clone(), path, "content")?;
    if role == Role::Tool {
        let path = format!("{path}.role");
        let message = format!("{path} is \"tool\"; expected user, assistant, system or developer");
        return Err(ApiError::field(path, message));
    }
    checked(
        &format!("{path}.content"),
        with_thoughts(Message { content: Some(content), ..Message::text(role, "") }, thoughts),
    )
}

fn with_thoughts(mut message: Message, thoughts: &mut Option<String>) -> Message {
    if message.role == Role::Assistant
        && let Some(thoughts) = thoughts.take()
    {
        message.extra.insert("reasoning_content".into(), thoughts.into());
    }
    message
}

fn call(
    path: &str,
    item: &Item,
    thoughts: &mut Option<String>,
    messages: &mut Vec<Message>,
) -> Result<(), ApiError> {
    let name = need(item.name.as_deref(), path, "name")?;
    let call = ToolCallMessage {
        id: Some(need(item.call_id.clone(), path, "call_id")?),
        function: FunctionCall {
            name: qualified(item.namespace.as_deref(), name),
            arguments: Value::String(need(item.arguments.clone(), path, "arguments")?),
        },
    };
    let last = messages.last_mut().filter(|last| last.role == Role::Assistant && thoughts.is_none());
    if let Some(last) = last {
        last.tool_calls.get_or_insert_default().push(call);
    } else {
        let message =
            Message { content: None, tool_calls: Some(vec![call]), ..Message::text(Role::Assistant, "") };
        messages.push(with_thoughts(message, thoughts));
    }
    Ok(())
}

fn call_output(path: &str, item: &Item) -> Result<Message, ApiError> {
    let id = need(item.call_id.clone(), path, "call_id")?;
    let output = need(item.output.clone(), path, "output")?;
    let mut message = Message { content: Some(output), ..Message::text(Role::Tool, "") };
    message.extra.insert("tool_call_id".into(), id.into());
    checked(&format!("{path}.output"), message)
}

fn checked(path: &str, message: Message) -> Result<Message, ApiError> {
    message.check().map_err(|error| ApiError::field(path, format!("{path}: {error}")))?;
    Ok(message)
}

fn need<T>(field: Option<T>, path: &str, name: &str) -> Result<T, ApiError> {
    let path = format!("{path}.{name}");
    field.ok_or_else(|| ApiError::field(path.as_str(), format!("{path} is missing")))
}
