//! Tools in their flat form, and those in namespaces, as the functions that templates show.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::request::Tool;
use crate::api::error::ApiError;
use crate::api::format::{ToolChoice, among};

/// Tools that a server would run. The model is not told of them; see the module's head.
const HOSTED: [&str; 9] = [
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer_use_preview",
    "computer",
    "mcp",
    "tool_search",
];

/// The tools of a request.
#[derive(Debug, Default)]
pub struct Tools {
    /// As chat has them, for the template.
    pub functions: Vec<Value>,
    /// As the request has them, for the reply: those that the model is told of.
    pub told: Vec<Value>,
    names: HashMap<String, (String, String)>,
}

/// The name that the model knows a function by.
pub fn qualified(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |space| format!("{space}__{name}"))
}

impl Tools {
    /// Reads them.
    pub fn new(tools: &[Tool]) -> Result<Self, ApiError> {
        let mut read = Self::default();
        for (at, tool) in tools.iter().enumerate() {
            read.add(&format!("tools[{at}]"), tool)?;
        }
        Ok(read)
    }

    fn add(&mut self, path: &str, tool: &Tool) -> Result<(), ApiError> {
        match tool.kind.as_str() {
            "function" => {
                self.functions.push(function(path, None, tool)?);
                self.told.push(flat(tool));
            }
            "namespace" => {
                let space = named(path, tool)?;
                let mut told = Vec::new();
                for (at, tool) in tool.tools.iter().flatten().enumerate() {
                    let path = format!("{path}.tools[{at}]");
                    if tool.kind != "function" {
                        return Err(unknown(&path, &tool.kind, "function"));
                    }
                    self.functions.push(function(&path, Some(space), tool)?);
                    let name = tool.name.clone().unwrap_or_default();
                    self.names.insert(qualified(Some(space), &name), (space.to_owned(), name));
                    told.push(flat(tool));
                }
                let description = &tool.description;
                self.told.push(
                    json!({"type": "namespace", "name": space, "description": description, "tools": told}),
                );
            }
            hosted if HOSTED.iter().any(|known| hosted.starts_with(known)) => {}
            other => return Err(unknown(path, other, "function or namespace")),
        }
        Ok(())
    }

    /// Namespace and name of a function by the name that the model knows.
    pub fn of(&self, known: &str) -> (Option<String>, String) {
        match self.names.get(known) {
            Some((space, name)) => (Some(space.clone()), name.clone()),
            None => (None, known.to_owned()),
        }
    }
}

fn unknown(path: &str, found: &str, expected: &str) -> ApiError {
    let path = format!("{path}.type");
    ApiError::field(path.as_str(), format!("{path} is {found:?}; expected {expected}"))
}

fn named<'a>(path: &str, tool: &'a Tool) -> Result<&'a str, ApiError> {
    let path = format!("{path}.name");
    let name = tool.name.as_deref().filter(|name| !name.is_empty());
    name.ok_or_else(|| ApiError::field(path.as_str(), format!("{path} is missing")))
}

fn function(path: &str, space: Option<&str>, tool: &Tool) -> Result<Value, ApiError> {
    let mut function = Map::new();
    function.insert("name".into(), qualified(space, named(path, tool)?).into());
    if let Some(description) = &tool.description {
        function.insert("description".into(), description.as_str().into());
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".into(), parameters.clone());
    }
    Ok(json!({"type": "function", "function": function}))
}

fn flat(tool: &Tool) -> Value {
    json!({"type": "function", "name": tool.name, "description": tool.description,
        "parameters": tool.parameters, "strict": false})
}

/// Which tools the answer may call.
pub fn tool_choice(choice: Option<&Value>) -> Result<ToolChoice, ApiError> {
    let wrong = |choice: &Value| {
        let expected = r#"expected "auto", "none", "required", {"type": "function", "name": ...} or {"type": "allowed_tools", "mode": "auto" or "required", "tools": [...]}"#;
        ApiError::field("tool_choice", format!("tool_choice is {choice}; {expected}"))
    };
    match choice {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(choice) => match (choice.as_str(), choice["type"].as_str(), choice["name"].as_str()) {
            (Some("auto"), ..) => Ok(ToolChoice::Auto),
            (Some("none"), ..) => Ok(ToolChoice::None),
            (Some("required"), ..) => Ok(ToolChoice::Required),
            (None, Some("function" | "custom"), Some(name)) => {
                Ok(ToolChoice::Named(qualified(choice["namespace"].as_str(), name)))
            }
            (None, Some("allowed_tools"), _) => {
                let name = |tool: &Value| Some(qualified(tool["namespace"].as_str(), tool["name"].as_str()?));
                among(choice, name).ok_or_else(|| wrong(choice))
            }
            _ => Err(wrong(choice)),
        },
    }
}
