//! Tool calls in a model's text, found while it streams.
//!
//! 1. Text before a call is let through at once; no part of a call's markup is.
//! 2. What is not a well-formed call is text, to the byte.
//! 3. What is read and what a grammar demands have the same syntax; the template decides which.

mod bare;
pub(super) mod gemma;
mod hermes;
mod marked;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use bare::BareFormat;
use gemma::{function_gemma, gemma4};
use marked::MarkedFormat;

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
    /// `<start_function_call>call:NAME{key:<escape>text<escape>,other:1}<end_function_call>`
    FunctionGemma,
    /// `<|tool_call>call:NAME{key:<|"|>text<|"|>,other:1}<tool_call|>`
    Gemma4,
}

/// What surrounds calls, and how the part between the marks is written.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Before a call.
    pub open: &'static str,
    /// A call.
    pub body: CallBody,
    /// After a call.
    pub close: &'static str,
    /// Between calls.
    pub between: &'static str,
}

/// How a call itself is written.
#[derive(Clone, Copy, Debug)]
pub enum CallBody {
    /// A JSON object with a name and arguments.
    Json {
        /// The key of the arguments.
        arguments: &'static str,
    },
    /// Gemma's own way.
    Gemma {
        /// Around strings.
        quote: &'static str,
    },
}

impl ToolSyntax {
    /// The syntax that a template shows to its model.
    pub fn of_template(source: &str) -> Self {
        if source.contains(hermes::OPEN) {
            Self::Hermes
        } else if source.contains(function_gemma::OPEN) {
            Self::FunctionGemma
        } else if source.contains(gemma4::OPEN) {
            Self::Gemma4
        } else if source.contains("<|python_tag|>") || source.contains("ipython") {
            Self::Llama3
        } else {
            Self::Json
        }
    }

    /// How calls are written.
    pub fn marks(self) -> Marks {
        let json = CallBody::Json { arguments: "arguments" };
        match self {
            Self::Hermes => {
                Marks { open: "<tool_call>\n", body: json, close: "\n</tool_call>", between: "\n" }
            }
            Self::Llama3 => {
                let body = CallBody::Json { arguments: "parameters" };
                Marks { open: "", body, close: "", between: "; " }
            }
            Self::Json => Marks { open: "", body: json, close: "", between: "\n" },
            Self::FunctionGemma => Marks {
                open: function_gemma::OPEN,
                body: CallBody::Gemma { quote: function_gemma::QUOTE },
                close: function_gemma::CLOSE,
                between: "",
            },
            Self::Gemma4 => Marks {
                open: gemma4::OPEN,
                body: CallBody::Gemma { quote: gemma4::QUOTE },
                close: gemma4::CLOSE,
                between: "",
            },
        }
    }

    /// The token with which a model goes on behind its calls, where the tool's answer belongs: it ends the model's.
    pub fn response(self) -> Option<&'static str> {
        match self {
            Self::FunctionGemma => Some(function_gemma::RESPONSE),
            Self::Gemma4 => Some(gemma4::RESPONSE),
            Self::Hermes | Self::Llama3 | Self::Json => None,
        }
    }

    /// Reads an answer for calls of the tools with these names.
    pub fn reader(self, names: &[String]) -> Box<dyn ToolCallFormat> {
        match self {
            Self::Hermes => Box::new(MarkedFormat::new(hermes::OPEN, hermes::CLOSE, hermes::read)),
            Self::Llama3 | Self::Json => Box::new(BareFormat::new(names.to_vec())),
            Self::FunctionGemma => {
                let read: marked::Reader = |body| gemma::read(body, function_gemma::QUOTE);
                Box::new(MarkedFormat::new(function_gemma::OPEN, function_gemma::CLOSE, read))
            }
            Self::Gemma4 => {
                let read: marked::Reader = |body| gemma::read(body, gemma4::QUOTE);
                Box::new(MarkedFormat::new(gemma4::OPEN, gemma4::CLOSE, read))
            }
        }
    }
}

/// Tokens that calls are written with: text, even where the model declares them special.
pub(super) const MARKUP: [&str; 8] = [
    hermes::OPEN,
    hermes::CLOSE,
    function_gemma::OPEN,
    function_gemma::CLOSE,
    function_gemma::QUOTE,
    gemma4::OPEN,
    gemma4::CLOSE,
    gemma4::QUOTE,
];

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
