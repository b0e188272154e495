//! What can be asked about responses besides themselves: how long an input is, what a stored response was asked, and its end.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::handler::{ResponseRequest, of_input, refuse_unsupported, said};
use super::request::{Item, ResponseFields};
use super::tools::{Tools, tool_choice};
use crate::api::ApiState;
use crate::api::body::{fields, query};
use crate::api::error::{ApiError, ErrorBody, json_response};
use crate::api::openapi::{KeyRefusal, Refusals};
use crate::api::submit::{Incoming, encode};
use crate::prompt::{Content, Role};

/// Items on a page, unless said otherwise and at most.
const USUAL_PAGE: usize = 20;
const LARGEST_PAGE: usize = 100;

#[derive(Serialize, ToSchema)]
struct InputTokens {
    object: &'static str,
    input_tokens: usize,
}

/// How many tokens a response's prompt would be.
#[utoipa::path(
    tag = "openai",
    request_body = ResponseRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The number", body = InputTokens), Refusals)
)]
#[post("/v1/responses/input_tokens")]
pub async fn count_input_tokens(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, tenant, place, .. } = state.open(&request, payload).await?;
    let owner = state.settings.keys.tenant(&request)?;
    let asked: ResponseFields = fields(&object)?;
    refuse_unsupported(&object)?;
    let mut tools = Tools::new(asked.tools.as_deref().unwrap_or_default())?;
    tool_choice(asked.tool_choice.as_ref())?;
    let conversation = said(&state, owner, asked, &mut tools)?.conversation;
    let prompt = encode(&state, tenant, conversation, None, &place).await.map_err(of_input)?;
    let count = InputTokens { object: "response.input_tokens", input_tokens: prompt.tokens.len() };
    Ok(json_response(&mut HttpResponse::Ok(), &count))
}

/// Which items, in which order.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Page {
    /// `asc` or, unless said otherwise, `desc`.
    order: Option<String>,
    /// At most so many.
    limit: Option<usize>,
    /// Those behind the item of that name.
    after: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ItemList {
    object: &'static str,
    #[schema(value_type = Vec<Object>)]
    data: Vec<Value>,
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
    has_more: bool,
}

/// What a stored response was asked, the conversation before it included.
#[utoipa::path(
    tag = "openai",
    params(("id" = String, Path, description = "The response's name"), Page),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The items", body = ItemList),
        (status = 400, description = "The query is wrong", body = ErrorBody),
        (status = 404, description = "It is not stored, or no longer", body = ErrorBody),
        KeyRefusal
    )
)]
#[get("/v1/responses/{id}/input_items")]
pub async fn list_input_items(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let tenant = state.settings.keys.tenant(&request)?;
    let Page { order, limit, after } = query(&request)?;
    let limit = limit.unwrap_or(USUAL_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(ApiError::field("limit", format!("limit is {limit}; expected 1 to {LARGEST_PAGE}")));
    }
    let unknown = || ApiError::UnknownResponse { id: id.to_string(), param: None };
    let (history, reply) = state.responses.asked(tenant, &id).ok_or_else(unknown)?;
    let reply: Value =
        serde_json::from_slice(&reply).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut items: Vec<Value> = history
        .iter()
        .flat_map(|turn| &turn.items)
        .enumerate()
        .map(|(at, item)| told(&id, at, item))
        .collect();
    // What the response itself added is its output.
    items.truncate(items.len().saturating_sub(reply["output"].as_array().map_or(0, Vec::len)));
    match order.as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(other) => {
            return Err(ApiError::field("order", format!("order is {other:?}; expected asc or desc")));
        }
    }
    if let Some(after) = after {
        let at = items.iter().position(|item| item["id"] == after.as_str());
        let at =
            at.ok_or_else(|| ApiError::field("after", format!("after is {after:?}, which is no item here")))?;
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let name = |item: Option<&Value>| item.and_then(|item| item["id"].as_str()).map(str::to_owned);
    let (first_id, last_id) = (name(items.first()), name(items.last()));
    let list = ItemList { object: "list", data: items, first_id, last_id, has_more };
    Ok(json_response(&mut HttpResponse::Ok(), &list))
}

/// An item as OpenAI tells it. One that the client did not name has a name by its place.
fn told(response: &str, at: usize, item: &Item) -> Value {
    let id = item.id.clone().unwrap_or_else(|| format!("item_{at}_{response}"));
    let kind = item.kind.as_deref().unwrap_or("message");
    let mut told = json!({"id": id, "type": kind, "status": "completed"});
    let texts = [
        ("call_id", &item.call_id),
        ("name", &item.name),
        ("namespace", &item.namespace),
        ("arguments", &item.arguments),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            told[key] = text.as_str().into();
        }
    }
    let by_model = item.role == Some(Role::Assistant);
    if let Some(role) = item.role {
        told["role"] = role.as_str().into();
    }
    if let Some(content) = &item.content {
        let kind = if by_model { "output_text" } else { "input_text" };
        let parts = match content {
            Content::Text(text) => vec![json!({"type": kind, "text": text})],
            Content::Parts(parts) => {
                parts.iter().map(|part| json!({"type": part.kind, "text": part.text})).collect()
            }
        };
        told["content"] = parts.into();
    }
    if let Some(output) = &item.output {
        told["output"] = output.text().into();
    }
    told
}

/// Always refused: every response here is made while its client waits, who ends it by leaving.
#[utoipa::path(
    tag = "openai",
    params(("id" = String, Path, description = "The response's name")),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 400, description = "It does not run in the background", body = ErrorBody),
        (status = 404, description = "It is not stored, or no longer", body = ErrorBody),
        KeyRefusal
    )
)]
#[post("/v1/responses/{id}/cancel")]
pub async fn cancel_response(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let tenant = state.settings.keys.tenant(&request)?;
    if state.responses.get(tenant, &id).is_none() {
        return Err(ApiError::UnknownResponse { id: id.into_inner(), param: None });
    }
    Err(ApiError::Invalid {
        message:
            "Cannot cancel a synchronous response: it is over. One in the making ends when its client leaves"
                .into(),
        param: None,
    })
}
