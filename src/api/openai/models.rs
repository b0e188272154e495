//! `GET /v1/models` and `GET /v1/models/{name}`: the served model, once for each of its names.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use crate::api::ApiState;
use crate::api::error::{ApiError, json_response};

#[derive(Serialize)]
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

#[derive(Serialize)]
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

/// Every name.
pub async fn list(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    state.settings.keys.tenant(&request)?;
    let data = state.model.all_names().map(|name| model(&state, name)).collect();
    Ok(json_response(&mut HttpResponse::Ok(), &List { object: "list", data }))
}

/// One name.
pub async fn one(
    request: HttpRequest,
    state: web::Data<ApiState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state.settings.keys.tenant(&request)?;
    let name = state.model_name(Some(&name))?;
    Ok(json_response(&mut HttpResponse::Ok(), &model(&state, &name)))
}
