//! From messages to tokens and back: chat template, tokenizer, streaming detokenizer, stop strings, tool calls.
//!
//! 1. Everything that decides the tokens of a prompt comes from the model's own files; nothing is guessed. What is
//!    missing or broken is an error at start-up, with its reason.
//! 2. An answer's text does not depend on how it is cut into tokens or pieces on its way: streamed and whole are equal.
//!
//! No thread, no I/O besides [`ModelText::open`], no HTTP.

mod canonical;
mod channels;
mod detokenizer;
mod dialect;
mod fold;
mod grammar;
mod json;
mod least_tokens;
mod message;
mod model_text;
mod pieces;
mod stop;
mod template;
#[cfg(test)]
mod testing;
mod thought;
mod token_index;
mod tokenizer;
mod tool_call;

pub use canonical::in_order;
pub use detokenizer::Detokenizer;
pub use grammar::{CallCount, CallRules, Format, FormatError, Grammars, Strictness};
pub use message::{Content, ContentError, FunctionCall, IMAGE, IMAGES, Message, Part, Role, ToolCallMessage};
pub use model_text::{ModelText, ModelTextError, SamplingDefaults};
pub use stop::{StopFilter, Stopped};
pub use template::{ChatTemplate, Conversation, TemplateError};
pub use thought::{ThoughtFilter, ThoughtMarks, ThoughtStart, Told};
pub use token_index::TokenIndex;
pub use tokenizer::{RoundTrip, Tokenizer, TokenizerConfig, TokenizerError};
pub use tool_call::{CallEnd, CallPart, Held, ToolCall, ToolCallFormat, ToolSyntax, ToolText};
