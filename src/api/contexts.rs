//! Named contexts: a long beginning of prompts is put once, computed and pinned, and requests refer to it by name.
//!
//! `PUT /v1/contexts/{name}` takes `system`, `messages` and `tools` as chat completions do, and `ttl_s`, how long the context
//! lives and its blocks are pinned (an hour; as far as the pins' share of the budget allows). A chat or message with
//! `"context": NAME` is the context's messages and tools followed by its own. A key's contexts are its own; `cache_salt`, in
//! the query or the body, splits them. They are not kept over a restart.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, delete, get, put, web};
use prefixd_cache::{Freed, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::auth::salted;
use super::body::{fields, query};
use super::error::{ApiError, json_response};
use super::generation::Piece;
use super::openai;
use super::openapi::{AgentRefusals, Refusals};
use super::options::Options;
use super::plan::Plan;
use super::refuse::{refuse_foreign, refuse_misnamed};
use super::session;
use super::submit::{Incoming, blocking, encode};
use super::work::Place;
use crate::prompt::{Content, Conversation, Message};
use crate::scheduler::{Context, ContextState, Hold, PrefixPin, SubmitError};

const HOUR_S: u64 = 3_600;
const LONGEST_TTL_S: u64 = 30 * 24 * HOUR_S;

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(list_contexts).service(put_context).service(get_context).service(delete_context);
}

/// The body of a context.
#[derive(Deserialize, ToSchema)]
// All of them are described here; some are read where every request's are.
#[allow(dead_code)]
struct ContextFields {
    /// A system text before `messages`.
    system: Option<Content>,
    /// As a chat has them.
    messages: Option<Vec<Message>>,
    /// As a chat has them.
    tools: Option<Vec<Value>>,
    /// Seconds that it lives; 3600 if it does not say.
    ttl_s: Option<u64>,
    /// As in requests: contexts of a salt are apart from others.
    cache_salt: Option<String>,
    model: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    /// As in requests: contexts of a salt are apart from others.
    cache_salt: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ContextList {
    count: usize,
    contexts: Vec<ContextState>,
}

#[derive(Serialize, ToSchema)]
struct ContextDeleted {
    name: String,
    deleted: bool,
    #[serde(flatten)]
    freed: Freed,
}

fn submit(error: SubmitError) -> ApiError {
    ApiError::Submit { error, param: "messages" }
}

fn asked(request: &HttpRequest, state: &ApiState) -> Result<Tenant, ApiError> {
    let tenant = state.settings.keys.tenant(request)?;
    let query: Query = query(request)?;
    Ok(salted(tenant, query.cache_salt.as_deref()))
}

/// Computes and pins the beginning of prompts, and names it. A context of that name is replaced.
#[utoipa::path(
    tag = "contexts",
    request_body = ContextFields,
    params(("id" = String, Path, description = "The context's name")),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The context", body = ContextState), Refusals)
)]
#[put("/v1/contexts/{id}")]
async fn put_context(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let name = id.into_inner();
    let Incoming { object, tenant, place, .. } = state.open(&request, payload).await?;
    let context = put(&state, tenant, name, &object, HOUR_S, place).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &context))
}

/// Puts the contexts of the configuration, by name, for everybody who may ask. What cannot be put is told in the log.
pub async fn warm_up(state: ApiState, contexts: Vec<(String, Map<String, Value>)>) {
    let state = web::Data::new(state);
    for (name, object) in contexts {
        for tenant in state.settings.keys.tenants() {
            let warm = async {
                let place = state.work.enter(&tenant, 0).await?;
                put(&state, tenant, name.clone(), &object, LONGEST_TTL_S, place).await
            };
            match warm.await {
                Ok(context) => tracing::info!(name, tokens = context.tokens, "a configured context is warm"),
                Err(error) => tracing::error!(name, %error, "a configured context could not be put"),
            }
        }
    }
}

async fn put(
    state: &web::Data<ApiState>,
    tenant: Tenant,
    name: String,
    object: &Map<String, Value>,
    usual_ttl_s: u64,
    place: Place,
) -> Result<ContextState, ApiError> {
    session::check("name", &name)?;
    let ContextFields { system, ttl_s, .. } = fields(object)?;
    let of_requests = "with the requests that refer to the context";
    refuse_foreign(object)?;
    refuse_misnamed(
        object,
        &[
            ("prompt", "messages"),
            ("input", "messages"),
            ("instructions", "system"),
            ("ttl", "ttl_s"),
            ("chat_template_kwargs", of_requests),
            ("response_format", of_requests),
        ],
    )?;
    let ttl_s = ttl_s.unwrap_or(usual_ttl_s);
    if !(1..=LONGEST_TTL_S).contains(&ttl_s) {
        let message = format!("ttl_s is {ttl_s}; expected 1 to {LONGEST_TTL_S} seconds");
        return Err(ApiError::field("ttl_s", message));
    }
    let definition = definition(object, system.is_some())?;
    let tokens = compute(state, tenant, conversation(&definition)?, ttl_s, place).await?;
    let created_us = state.scheduler.now_us();
    let until_us = created_us.saturating_add(ttl_s.saturating_mul(1_000_000));
    let definition = Arc::from(definition.to_string());
    let context = Context { definition, tokens: tokens.into(), created_us, until_us };
    let scheduler = state.scheduler.clone();
    blocking(move || {
        if !scheduler.put_context(tenant, name.clone(), context).map_err(submit)? {
            let message =
                "there are too many contexts, or too many tokens in them; delete some, or wait for their end";
            return Err(ApiError::field("name", message));
        }
        let known = scheduler.context(tenant, name.clone()).map_err(submit)?;
        known.map(|(_, state)| state).ok_or(ApiError::UnknownContext { name })
    })
    .await
}

/// Computes a conversation's prompt and pins it; its tokens.
async fn compute(
    state: &web::Data<ApiState>,
    tenant: Tenant,
    conversation: Conversation,
    ttl_s: u64,
    place: Place,
) -> Result<Vec<u32>, ApiError> {
    let tokens = encode(state, tenant, conversation, None, &place).await?.tokens;
    drop(place);
    // A token is the least that can be asked for.
    let options = Options { max_tokens: Some(1), ..Options::default() };
    let mut plan = Plan::new(options, &state.model, &state.settings)?;
    plan.answer.continues = true;
    let time = Duration::from_secs(ttl_s);
    plan.hold = Hold { pins: vec![PrefixPin { tokens: tokens.len(), time }], ..Hold::default() };
    let mut answers = state.submit(std::slice::from_ref(&tokens), &plan, tenant, "messages")?;
    while let Some((_, piece)) = answers.next().await {
        if let Piece::Failed(failure) = piece {
            return Err(failure.into());
        }
    }
    Ok(tokens)
}

/// What of a body makes the context, as a chat request.
fn definition(object: &Map<String, Value>, has_system: bool) -> Result<Value, ApiError> {
    let list = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list.clone()),
        Some(other) => Err(ApiError::field(name, format!("{name} is {other}; expected a list"))),
    };
    let (mut messages, tools) = (list("messages")?, list("tools")?);
    if has_system {
        messages.insert(0, json!({"role": "system", "content": object.get("system")}));
    }
    if messages.is_empty() {
        let message = "there is neither a system text nor a message; expected at least one";
        return Err(ApiError::field("messages", message));
    }
    Ok(json!({"messages": messages, "tools": tools}))
}

fn conversation(definition: &Value) -> Result<Conversation, ApiError> {
    let empty = Map::new();
    let conversation = openai::conversation(definition.as_object().unwrap_or(&empty))?;
    Ok(Conversation { add_generation_prompt: false, ..conversation })
}

/// A conversation behind the context that a request refers to, if it does; and how many messages and tools that has.
pub async fn behind(
    state: &web::Data<ApiState>,
    tenant: Tenant,
    context: Option<String>,
    mut conversation: Conversation,
) -> Result<(Conversation, usize, usize), ApiError> {
    let Some(name) = context else { return Ok((conversation, 0, 0)) };
    let scheduler = state.scheduler.clone();
    let known = blocking(move || {
        let known = scheduler.context(tenant, name.clone()).map_err(submit)?;
        known.ok_or(ApiError::UnknownContext { name })
    });
    let (context, _) = known.await?;
    let definition: Value = serde_json::from_str(&context.definition)
        .map_err(|error| ApiError::Internal(format!("a context that cannot be read: {error}")))?;
    let Conversation { messages, tools, .. } = self::conversation(&definition)?;
    let (before_messages, before_tools) = (messages.len(), tools.len());
    conversation.messages.splice(0..0, messages);
    conversation.tools.splice(0..0, tools);
    Ok((conversation, before_messages, before_tools))
}

/// The contexts of the asking key.
#[utoipa::path(
    tag = "contexts",
    params(Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "Those that live", body = ContextList), AgentRefusals)
)]
#[get("/v1/contexts")]
async fn list_contexts(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let (tenant, scheduler) = (asked(&request, &state)?, state.scheduler.clone());
    let contexts = blocking(move || scheduler.contexts(tenant).map_err(submit)).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &ContextList { count: contexts.len(), contexts }))
}

/// One of them.
#[utoipa::path(
    tag = "contexts",
    params(("id" = String, Path, description = "The context's name"), Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The context", body = ContextState), AgentRefusals)
)]
#[get("/v1/contexts/{id}")]
async fn get_context(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (tenant, scheduler, name) = (asked(&request, &state)?, state.scheduler.clone(), id.into_inner());
    let known = blocking(move || {
        let known = scheduler.context(tenant, name.clone()).map_err(submit)?;
        known.map(|(_, state)| state).ok_or(ApiError::UnknownContext { name })
    });
    Ok(json_response(&mut HttpResponse::Ok(), &known.await?))
}

/// Forgets a context, ends its pins and frees what nobody else needs of it.
#[utoipa::path(
    tag = "contexts",
    params(("id" = String, Path, description = "The context's name"), Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "What became of it", body = ContextDeleted), AgentRefusals)
)]
#[delete("/v1/contexts/{id}")]
async fn delete_context(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (tenant, scheduler, name) = (asked(&request, &state)?, state.scheduler.clone(), id.into_inner());
    let known = name.clone();
    let freed = blocking(move || {
        let freed = scheduler.delete_context(tenant, name.clone()).map_err(submit)?;
        freed.ok_or(ApiError::UnknownContext { name })
    });
    let deleted = ContextDeleted { name: known, deleted: true, freed: freed.await? };
    Ok(json_response(&mut HttpResponse::Ok(), &deleted))
}
