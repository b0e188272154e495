//! Anthropic's endpoints: messages and the counting of their tokens.
//!
//! 1. A conversation becomes the same prompt whether it comes in here or as OpenAI's messages.
//! 2. `input_tokens + cache_read_input_tokens + cache_creation_input_tokens` is the whole prompt, and `count_tokens`
//!    tells the same number.
//! 3. Everything is kept in the cache whether marked or not; `cache_control` decides only how new tokens are counted.

use actix_web::{HttpRequest, HttpResponse, web};

mod convert;
mod error;
mod messages;
mod reply;
mod request;
mod stream;

use super::error::wrong_method;
use error::AnthropicError;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let post = |path: &str| web::resource(path).default_service(web::to(only_post));
    config
        .service(post("/v1/messages").route(web::post().to(messages::messages)))
        .service(post("/v1/messages/count_tokens").route(web::post().to(messages::count_tokens)));
}

async fn only_post(request: HttpRequest) -> Result<HttpResponse, AnthropicError> {
    Err(wrong_method(&request, "POST").into())
}
