//! Tool calls in a model's text, found while it streams.
//!
//! 1. Text before a call is let through at once; no part of a call's markup is.
//! 2. What is not a well-formed call is text, to the byte.
//! 3. What is read and what a grammar demands have the same syntax; the template decides which.

mod bare;
mod hermes;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use bare::BareFormat;
use hermes::HermesFormat;

/// A call the model made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// Its arguments, a JSON object as text.
    pub arguments: String,
}

/// What a piece of the model's text turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolText {
    /// Text for the reader.
    Text(String),
    /// A call.
    Call(ToolCall),
}

/// How a family of models writes calls.
pub trait ToolCallFormat: Send {
    /// Takes a piece of text; returns what is certain now.
    fn push(&mut self, text: &str) -> Vec<ToolText>;

    /// The end of the answer.
    fn finish(&mut self) -> Vec<ToolText>;
}

/// The syntax of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolSyntax {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`
    Hermes,
    /// `{"name": ..., "parameters": {...}}` as the whole answer, several with `; ` between them; a `<|python_tag|>` may
    /// come first.
    Llama3,
    /// `{"name": ..., "arguments": {...}}` as the whole answer, on its own, in a list or in a fence.
    #[default]
    Json,
}

/// What surrounds the parts of a call.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Before the object.
    pub open: &'static str,
    /// The key of the arguments.
    pub arguments: &'static str,
    /// After the object.
    pub close: &'static str,
    /// Between calls.
    pub between: &'static str,
}

impl ToolSyntax {
    /// The syntax that a template shows to its model.
    pub fn of_template(source: &str) -> Self {
        if source.contains("<tool_call>") {
            Self::Hermes
        } else if source.contains("<|python_tag|>") || source.contains("ipython") {
            Self::Llama3
        } else {
            Self::Json
        }
    }

    /// How a call is written.
    pub fn marks(self) -> Marks {
        match self {
            Self::Hermes => Marks {
                open: "<tool_call>\n",
                arguments: "arguments",
                close: "\n</tool_call>",
                between: "\n",
            },
            Self::Llama3 => Marks { open: "", arguments: "parameters", close: "", between: "; " },
            Self::Json => Marks { open: "", arguments: "arguments", close: "", between: "\n" },
        }
    }

    /// Reads an answer for calls of the tools with these names.
    pub fn reader(self, names: &[String]) -> Box<dyn ToolCallFormat> {
        match self {
            Self::Hermes => Box::<HermesFormat>::default(),
            Self::Llama3 | Self::Json => Box::new(BareFormat::new(names.to_vec())),
        }
    }
}

#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(default, alias = "parameters")]
    arguments: Option<Box<RawValue>>,
}

fn call(Written { name, arguments }: Written) -> ToolCall {
    let arguments = match arguments {
        None => "{}".to_owned(),
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(Value::String(text)) => text,
            Ok(other) => other.to_string(),
            // JSON with a number that no float holds.
            Err(_) => raw.get().to_owned(),
        },
    };
    ToolCall { name, arguments }
}

fn text(out: &mut Vec<ToolText>, text: String) {
    if !text.is_empty() {
        out.push(ToolText::Text(text));
    }
}
