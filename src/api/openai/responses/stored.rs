//! `GET` and `DELETE /v1/responses/{id}`.

use actix_web::{HttpRequest, HttpResponse, delete, get, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::ResponseReply;
use crate::api::ApiState;
use crate::api::error::{ApiError, ErrorBody, json_response};
use crate::api::openapi::KeyRefusal;

/// A stored response.
#[utoipa::path(
    tag = "openai",
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The response", body = ResponseReply),
        (status = 400, description = "It is asked for as a stream", body = ErrorBody),
        (status = 404, description = "It is not stored, or no longer", body = ErrorBody),
        KeyRefusal
    )
)]
#[get("/v1/responses/{id}")]
pub async fn get_response(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let tenant = state.settings.keys.tenant(&request)?;
    check_name(&request, &id)?;
    if request.query_string().split('&').any(|pair| pair == "stream=true") {
        return Err(ApiError::Unsupported {
            param: "stream",
            what: "stream = true for a stored response".into(),
        });
    }
    let json = state.responses.get(tenant, &id);
    let json = json.ok_or_else(|| ApiError::UnknownResponse { id: id.into_inner(), param: None })?;
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
}

#[derive(Serialize, ToSchema)]
struct DeletedResponse {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// Forgets a stored response.
#[utoipa::path(
    tag = "openai",
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "It is forgotten", body = DeletedResponse),
        (status = 404, description = "It is not stored, or no longer", body = ErrorBody),
        KeyRefusal
    )
)]
#[delete("/v1/responses/{id}")]
pub async fn delete_response(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let tenant = state.settings.keys.tenant(&request)?;
    let id = id.into_inner();
    check_name(&request, &id)?;
    if !state.responses.delete(tenant, &id) {
        return Err(ApiError::UnknownResponse { id, param: None });
    }
    Ok(json_response(&mut HttpResponse::Ok(), &DeletedResponse { id, object: "response", deleted: true }))
}

/// What is no response's name but an address of its own takes other methods.
fn check_name(request: &HttpRequest, id: &str) -> Result<(), ApiError> {
    if id != "input_tokens" {
        return Ok(());
    }
    let (method, path) = (request.method().to_string(), request.path().to_owned());
    Err(ApiError::Method { method, path, allowed: "POST".into() })
}
