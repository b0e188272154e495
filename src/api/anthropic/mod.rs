//! Anthropic's endpoints: messages and the counting of their tokens.
//!
//! 1. A conversation becomes the same prompt whether it comes in here or as OpenAI's messages.
//! 2. `input_tokens + cache_read_input_tokens + cache_creation_input_tokens` is the whole prompt, and `count_tokens`
//!    tells the same number.
//! 3. Everything is kept in the cache whether marked or not; `cache_control` decides how new tokens are counted, and pins
//!    the prompt up to its block for a while.

use utoipa_actix_web::service_config::ServiceConfig;

mod convert;
mod error;
mod messages;
mod reply;
mod request;
mod stream;

pub use error::{AnthropicError, AnthropicErrorBody};

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(messages::messages).service(messages::count_tokens);
}
