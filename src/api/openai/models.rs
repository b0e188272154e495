//! `GET /v1/models` and `GET /v1/models/{name}`: the served model, once for each of its names.

use actix_web::{HttpRequest, HttpResponse, get, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ApiState;
use crate::api::error::{ApiError, ErrorBody, json_response};
use crate::api::openapi::KeyRefusal;

#[derive(Serialize, ToSchema)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The model's own name.
    root: &'a str,
    /// Tokens of prompt and answer together.
    max_model_len: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ModelList)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

fn model<'a>(state: &'a ApiState, id: &'a str) -> Model<'a> {
    Model {
        id,
        object: "model",
        created: state.model.created,
        owned_by: "prefixd",
        root: state.model.name(),
        max_model_len: state.scheduler.info().context_tokens,
    }
}

/// Every name of the served model.
#[utoipa::path(
    tag = "openai",
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The names", body = List), KeyRefusal)
)]
#[get("/v1/models")]
pub async fn list_models(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    state.settings.keys.tenant(&request)?;
    let data = state.model.all_names().map(|name| model(&state, name)).collect();
    Ok(json_response(&mut HttpResponse::Ok(), &List { object: "list", data }))
}

/// One name of the served model.
// Names may hold slashes: `mlx-community/Qwen3-0.6B-4bit`.
#[utoipa::path(
    tag = "openai",
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "Another model is served", body = ErrorBody),
        KeyRefusal
    )
)]
#[get("/v1/models/{name:.+}")]
pub async fn get_model(
    request: HttpRequest,
    state: web::Data<ApiState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state.settings.keys.tenant(&request)?;
    let name = state.model_name(Some(&name))?;
    Ok(json_response(&mut HttpResponse::Ok(), &model(&state, &name)))
}
