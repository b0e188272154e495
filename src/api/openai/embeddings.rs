//! `POST /v1/embeddings`: refused, because models that answer do not embed; with a reason instead of an unknown path.

use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::request::Prompt;
use crate::api::ApiState;
use crate::api::body::fields;
use crate::api::error::ApiError;
use crate::api::openapi::{Body, Refusals};
use crate::api::options::Options;
use crate::api::submit::Incoming;

/// `/v1/embeddings`
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingFields {
    /// What would be embedded.
    pub input: Prompt,
}

type EmbeddingRequest = Body<(Options, EmbeddingFields)>;

/// Always refused: this model does not embed.
#[utoipa::path(
    tag = "openai",
    request_body = EmbeddingRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(Refusals)
)]
#[post("/v1/embeddings")]
pub async fn embeddings(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, model, place: _place, .. } = state.open(&request, payload).await?;
    let EmbeddingFields { input } = fields(&object)?;
    if input.is_empty() {
        return Err(ApiError::field("input", "input is empty; expected at least one text"));
    }
    Err(ApiError::NoEmbeddings { model })
}
