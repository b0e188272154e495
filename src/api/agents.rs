//! Agents over HTTP: what is known of the conversations that sessions name, their next turn, and their end.
//!
//! A key sees and changes its own agents alone; `cache_salt`, in the query or the body, splits them as it splits prefixes.

use actix_web::{HttpRequest, HttpResponse, web};
use prefixd_cache::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ApiState;
use super::auth::salted;
use super::body::fields;
use super::error::{ApiError, json_response, only_get, only_post, wrong_method};
use super::openai::completions;
use super::plan::Plan;
use super::session;
use super::submit::{Incoming, blocking};
use crate::scheduler::{AgentState, EvictError, SubmitError};

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path).default_service(web::to(only_get));
    config
        .service(get("/v1/agents/list").route(web::get().to(list)))
        .service(get("/v1/agents/stats").route(web::get().to(stats)))
        .service(
            web::resource("/v1/agents/{id}/generate")
                .default_service(web::to(only_post))
                .route(web::post().to(generate)),
        )
        .service(
            web::resource("/v1/agents/{id}")
                .route(web::get().to(one))
                .route(web::delete().to(delete))
                .default_service(web::to(get_or_delete)),
        );
}

async fn get_or_delete(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(wrong_method(&request, "GET, HEAD, DELETE"))
}

/// What a query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Query {
    cache_salt: Option<String>,
    evict_only: Option<String>,
}

/// Whose agents a request without a body is about, and what its query says.
fn asked(request: &HttpRequest, state: &ApiState) -> Result<(Tenant, Query), ApiError> {
    let tenant = state.settings.keys.tenant(request)?;
    let query = web::Query::<Query>::from_query(request.query_string())
        .map_err(|error| ApiError::Invalid { message: format!("the query: {error}"), param: None })?
        .into_inner();
    Ok((salted(tenant, query.cache_salt.as_deref()), query))
}

fn submit(error: SubmitError) -> ApiError {
    ApiError::Submit { error, param: "agent_id" }
}

#[derive(Serialize)]
struct List {
    count: usize,
    agents: Vec<AgentState>,
}

async fn list(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let agents = known(&request, &state).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &List { count: agents.len(), agents }))
}

async fn known(request: &HttpRequest, state: &web::Data<ApiState>) -> Result<Vec<AgentState>, ApiError> {
    let (tenant, _) = asked(request, state)?;
    let scheduler = state.scheduler.clone();
    blocking(move || scheduler.agents(tenant).map_err(submit)).await
}

/// Sums over a tenant's agents. Blocks that several share count for each.
#[derive(Default, Serialize)]
struct Stats {
    agents: usize,
    preferred_agents: usize,
    tokens: usize,
    blocks: usize,
    resident_bytes: u64,
    disk_bytes: u64,
    turns: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
}

async fn stats(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let mut sum = Stats::default();
    for agent in known(&request, &state).await? {
        sum.agents += 1;
        sum.preferred_agents += usize::from(agent.preferred);
        sum.tokens += agent.tokens;
        sum.blocks += agent.blocks;
        sum.resident_bytes += agent.size.resident_bytes;
        sum.disk_bytes += agent.size.disk_bytes;
        sum.turns += agent.turns;
        sum.prompt_tokens += agent.prompt_tokens;
        sum.cached_tokens += agent.cached_tokens;
        sum.completion_tokens += agent.completion_tokens;
    }
    Ok(json_response(&mut HttpResponse::Ok(), &sum))
}

async fn one(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (tenant, _) = asked(&request, &state)?;
    let (scheduler, id) = (state.scheduler.clone(), id.into_inner());
    let agent = blocking(move || {
        let agent = scheduler.agent(tenant, id.clone()).map_err(submit)?;
        agent.ok_or(ApiError::UnknownAgent { id })
    });
    Ok(json_response(&mut HttpResponse::Ok(), &agent.await?))
}

/// Forgets an agent and frees its blocks, or with `evict_only=true` moves them from RAM to disk.
async fn delete(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (tenant, query) = asked(&request, &state)?;
    let evict_only = match query.evict_only.as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1" | "") => true,
        Some(other) => {
            let message = format!("evict_only is {other:?}; expected true or false");
            return Err(ApiError::field("evict_only", message));
        }
    };
    let (scheduler, id) = (state.scheduler.clone(), id.into_inner());
    if evict_only {
        let name = id.clone();
        let evicted = blocking(move || {
            scheduler.evict_agent(tenant, id.clone()).map_err(submit)?.map_err(|error| match error {
                EvictError::Unknown => ApiError::UnknownAgent { id },
                EvictError::NoDisk => ApiError::NoDisk,
            })
        });
        let evicted = evicted.await?;
        let body = json!({"agent_id": name, "evicted": true, "moved_blocks": evicted.moved_blocks,
            "moved_bytes": evicted.moved_bytes, "kept_blocks": evicted.kept_blocks});
        return Ok(json_response(&mut HttpResponse::Ok(), &body));
    }
    let name = id.clone();
    let freed = blocking(move || {
        let freed = scheduler.delete_agent(tenant, id.clone()).map_err(submit)?;
        freed.ok_or(ApiError::UnknownAgent { id })
    });
    let freed = freed.await?;
    let body = json!({"agent_id": name, "deleted": true, "freed_blocks": freed.freed_blocks,
        "freed_ram_bytes": freed.freed_ram_bytes, "freed_disk_bytes": freed.freed_disk_bytes,
        "kept_blocks": freed.kept_blocks});
    Ok(json_response(&mut HttpResponse::Ok(), &body))
}

/// `prompt` of a turn: what follows the agent's tokens, as it stands.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of token ids")]
enum More {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Deserialize)]
struct GenerateFields {
    prompt: More,
    logprobs: Option<u64>,
}

/// Another turn of an agent: its tokens, then `prompt`. Answers as `/v1/completions` does.
async fn generate(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    session::check("agent_id", &id)?;
    let Incoming { object, options, model, tenant, .. } = state.open(&request, payload).await?;
    let GenerateFields { prompt, logprobs } = fields(&object)?;
    completions::refuse_unsupported(&object)?;
    let mut plan = Plan::new(options, &state.model, &state.settings)?.with_logprobs(logprobs, "logprobs")?;
    plan.answer.continues = true;
    plan.hold.agent = Some(id.clone());
    let (scheduler, served) = (state.scheduler.clone(), state.model.clone());
    let prompt = blocking(move || {
        let known = scheduler.agent_tokens(tenant, id.clone()).map_err(submit)?;
        let known = known.ok_or(ApiError::UnknownAgent { id })?;
        let more = match prompt {
            More::Tokens(tokens) => tokens,
            More::Text(text) => served
                .text
                .tokenizer
                .encode_rendered(&text)
                .map_err(|error| ApiError::field("prompt", error.to_string()))?,
        };
        Ok([&known[..], &more].concat())
    });
    completions::answer(&state, vec![prompt.await?], plan, tenant, model).await
}
