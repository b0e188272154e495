//! Tool calls in a model's text, found while it streams.
//!
//! 1. Text before a call is let through at once; no part of a call's markup is.
//! 2. What is not a well-formed call is text, to the byte. Unless it was cut off: then what was complete is a call, and the
//!    rest is nothing.
//! 3. Where a grammar sees to it that what begins as a call becomes one, its arguments are told as they come. Elsewhere a call
//!    is told when it is whole. They have no white space between their parts either way.
//! 4. What is read and what a grammar demands have the same syntax; the template decides which.

mod bare;
pub(super) mod coder;
pub(super) mod gemma;
mod hermes;
mod json;
mod kinds;
mod marked;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use bare::BareFormat;
use gemma::{function_gemma, gemma4};
use json::{Begun, Scan, begun};
use marked::{MarkedFormat, Unread};

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
    /// A part of a call.
    Call(CallPart),
    /// The end of an answer that was cut off within a call. What was told of that call is all; nothing of it need be.
    Cut,
}

/// A part of a call, in order. Calls never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallPart {
    /// The function's name.
    Begin(String),
    /// More of the arguments, a JSON object as text.
    Arguments(String),
    /// The call is whole.
    End,
}

/// Where a grammar makes a call of what begins as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Nowhere: it may turn out to be text.
    #[default]
    ToNothing,
    /// Where the answer begins with it.
    FromTheStart,
    /// Wherever it stands.
    Everywhere,
}

/// What ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd<'a> {
    /// The model: nothing would have followed.
    Model,
    /// Its length.
    Length,
    /// This text, which followed.
    Stop(&'a str),
}

/// How a family of models writes calls.
pub trait ToolCallFormat: Send {
    /// Takes a piece of text; returns what is certain now.
    fn push(&mut self, text: &str) -> Vec<ToolText>;

    /// The end of the answer.
    fn finish(&mut self, end: CallEnd<'_>) -> Vec<ToolText>;
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
    /// `<tool_call>`, `<function=NAME>`, `<parameter=KEY>`, text, `</parameter>`, `</function>`, `</tool_call>`, each on a line.
    Coder,
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
    /// Qwen3-Coder's way.
    Coder,
}

impl CallBody {
    /// Reads what stands between two marks.
    fn read(self, body: &str, tools: &[(String, Value)]) -> Result<ToolCall, Unread> {
        match self {
            Self::Json { .. } => hermes::read(body),
            Self::Gemma { quote } => gemma::read(body, quote),
            Self::Coder => coder::read(body, tools),
        }
    }

    /// The name of a call and where its arguments begin, as soon as that is known.
    fn head(self, body: &str) -> Option<(String, usize)> {
        match self {
            Self::Json { .. } => match begun(body, |_, _| true) {
                Begun::Call { name, at } => Some((name, at)),
                Begun::Open | Begun::Other => None,
            },
            Self::Gemma { .. } => gemma::head(body),
            Self::Coder => coder::head(body),
        }
    }

    /// The arguments of a call of the tool `name`, before the first letter.
    fn arguments(self, name: &str, tools: &[(String, Value)]) -> Arguments {
        match self {
            Self::Json { .. } => Arguments::Json(Scan::default()),
            Self::Gemma { quote } => Arguments::Gemma(gemma::Scan::new(quote)),
            Self::Coder => Arguments::Coder(coder::Scan::new(name, tools)),
        }
    }

    /// A call whose arguments are whole, whatever of it is missing behind them.
    fn complete(self, body: &str, tools: &[(String, Value)]) -> Option<ToolCall> {
        let (name, at) = self.head(body)?;
        let mut scan = self.arguments(&name, tools);
        let arguments = scan.push(&mut body[at..].to_owned());
        scan.done().then_some(ToolCall { name, arguments })
    }
}

/// Arguments on their way to JSON.
#[derive(Debug)]
enum Arguments {
    Json(Scan),
    Gemma(gemma::Scan),
    Coder(coder::Scan),
}

impl Arguments {
    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    fn push(&mut self, text: &mut String) -> String {
        match self {
            Self::Json(scan) => scan.push(text),
            Self::Gemma(scan) => scan.push(text),
            Self::Coder(scan) => scan.push(text),
        }
    }

    /// They are whole.
    fn done(&self) -> bool {
        match self {
            Self::Json(scan) => scan.done(),
            Self::Gemma(scan) => scan.done(),
            Self::Coder(scan) => scan.done(),
        }
    }
}

impl ToolSyntax {
    /// Every syntax.
    pub const ALL: [Self; 6] =
        [Self::Hermes, Self::Llama3, Self::Json, Self::FunctionGemma, Self::Gemma4, Self::Coder];

    /// As the user reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::Llama3 => "llama 3",
            Self::Json => "json",
            Self::FunctionGemma => "functiongemma",
            Self::Gemma4 => "gemma 4",
            Self::Coder => "qwen3 coder",
        }
    }

    /// A call.
    pub fn example(self) -> String {
        let Marks { open, body, close, .. } = self.marks();
        let call = match body {
            CallBody::Json { arguments } => format!(r#"{{"name": "f", "{arguments}": {{"x": "y"}}}}"#),
            CallBody::Gemma { quote } => format!("call:f{{x:{quote}y{quote}}}"),
            CallBody::Coder => "<function=f>\n<parameter=x>\ny\n</parameter>\n</function>".to_owned(),
        };
        format!("{open}{call}{close}").replace('\n', "")
    }

    /// The syntax that a template shows to its model.
    pub fn of_template(source: &str) -> Self {
        if source.contains(coder::FUNCTION) && source.contains(coder::PARAMETER) {
            Self::Coder
        } else if source.contains(hermes::OPEN) {
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
            Self::Coder => Marks { body: CallBody::Coder, ..Self::Hermes.marks() },
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
            Self::Hermes | Self::Llama3 | Self::Json | Self::Coder => None,
        }
    }

    /// Reads an answer for calls of these tools, names and schemas.
    pub fn reader(self, tools: &[(String, Value)], calls_are: Held) -> Box<dyn ToolCallFormat> {
        let Marks { open, body, close, .. } = self.marks();
        match self {
            Self::Llama3 | Self::Json => {
                let names = tools.iter().map(|(name, _)| name.clone()).collect();
                Box::new(BareFormat::new(names, calls_are))
            }
            Self::Hermes | Self::FunctionGemma | Self::Gemma4 | Self::Coder => {
                let marks = [open.trim_end(), close.trim_start()];
                Box::new(MarkedFormat::new(marks, body, tools.to_vec(), calls_are))
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
        // Some models write the object into a string.
        Some(raw) => serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| compact(raw.get())),
    };
    ToolCall { name, arguments }
}

/// JSON without the white space between its parts, its numbers and escapes as they are.
fn compact(json: &str) -> String {
    if json.starts_with(['{', '[']) { Scan::default().push(&mut json.to_owned()) } else { json.to_owned() }
}

/// A call that is told at once.
fn whole(out: &mut Vec<ToolText>, ToolCall { name, arguments }: ToolCall) {
    let parts = [CallPart::Begin(name), CallPart::Arguments(arguments), CallPart::End];
    out.extend(parts.map(ToolText::Call));
}

fn text(out: &mut Vec<ToolText>, text: String) {
    if !text.is_empty() {
        out.push(ToolText::Text(text));
    }
}

#[cfg(test)]
mod tests;
