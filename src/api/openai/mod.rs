//! OpenAI's endpoints: chat completions, completions, responses, models.

use actix_web::web;
use serde_json::{Map, Value};
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::body::fields;
use super::error::ApiError;
use super::openapi::AnyOf;
use super::submit::{blocking, encode};

mod chat;
mod completions;
mod embeddings;
mod models;
mod reply;
mod request;
mod responses;
mod validate;

pub use responses::{ResponseStore, StoreLimits};

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(chat::chat_completions)
        .service(completions::completions)
        .service(embeddings::embeddings)
        .service(responses::create_response)
        .service(responses::get_response)
        .service(responses::delete_response)
        .service(models::list_models)
        .service(models::get_model);
}

/// What [`only_prompt`] reads.
pub type PromptRequest = AnyOf<(chat::ChatRequest, completions::CompletionRequest)>;

/// The tokens of the one prompt that `messages` or `prompt` make, as the endpoints would compute them.
pub async fn only_prompt(
    state: &web::Data<ApiState>,
    object: &Map<String, Value>,
) -> Result<Vec<u32>, ApiError> {
    if object.contains_key("messages") {
        let asked = validate::asked(fields(object)?)?;
        return Ok(encode(state, asked.conversation).await?.0);
    }
    let text = match fields::<request::CompletionFields>(object)?.prompt {
        request::Prompt::Text(text) => text,
        request::Prompt::Tokens(tokens) => return Ok(tokens),
        request::Prompt::Texts(_) | request::Prompt::TokenLists(_) => {
            return Err(ApiError::field("prompt", "prompt is a list of prompts; expected one"));
        }
    };
    let model = state.model.clone();
    blocking(move || {
        let tokens = model.text.tokenizer.encode_text(&text);
        tokens.map_err(|error| ApiError::field("prompt", error.to_string()))
    })
    .await
}
