//! Tool calls in a model's text, found while it streams.
//!
//! 1. Text before a call is let through at once; no part of a call's markup is.
//! 2. What is not a well-formed call is text, to the byte. Unless it was cut off: then what was complete is a call, and the
//!    rest is nothing.
//! 3. Where a grammar sees to it that what begins as a call becomes one, its arguments are told as they come. Elsewhere a call
//!    is told when it is whole. They have no white space between their parts either way.
//! 4. What is read and what a grammar demands have the same syntax; the template decides which.

mod bare;
mod body;
pub(super) mod gemma;
pub(in crate::prompt) mod harmony;
mod hermes;
mod json;
mod kinds;
mod marked;
pub(super) mod named;
mod pythonic;
mod syntax;
pub(super) mod tagged;
pub(super) mod written;

pub(super) use body::CallBody;
pub(super) use syntax::Marks;
pub use syntax::ToolSyntax;

use serde::Deserialize;
use serde_json::value::RawValue;

use gemma::{function_gemma, gemma4};
use json::Scan;

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
