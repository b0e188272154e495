//! OpenAI's endpoints: chat completions, completions, responses, models.

use actix_web::web;
use prefixd_cache::Tenant;
use serde_json::{Map, Value};
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::body::fields;
use super::contexts::behind;
use super::error::ApiError;
use super::openapi::AnyOf;
use super::refuse::refuse_foreign;
use super::submit::encode;
use super::work::Place;
use crate::prompt::Conversation;

mod chat;
pub mod completions;
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
        .service(responses::count_input_tokens)
        .service(responses::list_input_items)
        .service(responses::cancel_response)
        .service(responses::get_response)
        .service(responses::delete_response)
        .service(models::list_models)
        .service(models::get_model);
}

/// The conversation of a chat request.
pub fn conversation(object: &Map<String, Value>) -> Result<Conversation, ApiError> {
    Ok(validate::asked(fields(object)?, fields(object)?)?.conversation)
}

/// What [`only_prompt`] reads.
pub type PromptRequest = AnyOf<(chat::ChatRequest, completions::CompletionRequest)>;

/// The tokens of the one prompt that `messages` or `prompt` make, as the endpoints would compute them.
pub async fn only_prompt(
    state: &web::Data<ApiState>,
    tenant: Tenant,
    object: &Map<String, Value>,
    place: &Place,
) -> Result<Vec<u32>, ApiError> {
    refuse_foreign(object)?;
    if object.contains_key("messages") {
        let context = object.get("context").and_then(Value::as_str).map(str::to_owned);
        let (conversation, ..) = behind(state, tenant, context, conversation(object)?).await?;
        return Ok(encode(state, tenant, conversation, None, place).await?.tokens);
    }
    let text = match fields::<request::CompletionFields>(object)?.prompt {
        request::Prompt::Text(text) => text,
        request::Prompt::Tokens(tokens) => return Ok(tokens),
        request::Prompt::Texts(_) | request::Prompt::TokenLists(_) => {
            return Err(ApiError::field("prompt", "prompt is a list of prompts; expected one"));
        }
    };
    let state = state.clone();
    place.run(move || state.tokens_of_text(&text)).await
}
