//! `/v1/responses`: OpenAI's newer dialect, the part of it that agents use.
//!
//! 1. A conversation becomes the same prompt whether it comes in as items, as chat messages, or as a response to go on
//!    from (`previous_response_id`) and what is new.
//! 2. Whole and streamed responses are built by the same [`output`]; the last event holds the whole response.
//! 3. Stored responses are bounded in bytes and in time, and belong to the tenant that made them.
//!
//! Tools that a server would run (web search, code interpreter, ...) are not here. Coding agents declare them with every
//! request, so they are not refused: the model is not told of them, and the response's `tools` lists those it was told of.

mod about;
mod events;
mod handler;
mod input;
mod output;
mod reply;
mod request;
mod store;
mod stored;
mod tools;

pub use about::{cancel_response, count_input_tokens, list_input_items};
pub use handler::create_response;
pub use store::{ResponseStore, StoreLimits};
pub use stored::{delete_response, get_response};
