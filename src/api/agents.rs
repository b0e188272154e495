//! Agents over HTTP: what is known of the conversations that sessions name, their next turn, and their end.
//!
//! A key sees and changes its own agents alone; `cache_salt`, in the query or the body, splits them as it splits prefixes.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use prefixd_cache::{Freed, Tenant};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::auth::salted;
use super::body::{fields, query};
use super::error::{ApiError, json_response};
use super::openai::completions;
use super::openapi::{AgentRefusals, Body, Refusals};
use super::options::Options;
use super::plan::Plan;
use super::session;
use super::submit::{Incoming, blocking};
use crate::scheduler::{AgentState, EvictError, Evicted, SubmitError};

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    // Those with a name of their own first.
    config
        .service(list_agents)
        .service(agent_stats)
        .service(get_agent)
        .service(delete_agent)
        .service(generate);
}

/// What a query may say.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    /// As in requests: agents of a salt are apart from others.
    cache_salt: Option<String>,
    /// Of a deletion: `true` moves the agent's blocks from RAM to disk and keeps the agent.
    evict_only: Option<String>,
}

/// Whose agents a request without a body is about, and what its query says.
fn asked(request: &HttpRequest, state: &ApiState) -> Result<(Tenant, Query), ApiError> {
    let tenant = state.settings.keys.tenant(request)?;
    let query: Query = query(request)?;
    Ok((salted(tenant, query.cache_salt.as_deref()), query))
}

fn submit(error: SubmitError) -> ApiError {
    ApiError::Submit { error, param: "agent_id" }
}

#[derive(Serialize, ToSchema)]
struct AgentList {
    count: usize,
    agents: Vec<AgentState>,
}

/// The conversations that sessions name, of the asking key.
#[utoipa::path(
    tag = "agents",
    params(Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "Those that live", body = AgentList), AgentRefusals)
)]
#[get("/v1/agents/list")]
async fn list_agents(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let agents = known(&request, &state).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &AgentList { count: agents.len(), agents }))
}

async fn known(request: &HttpRequest, state: &web::Data<ApiState>) -> Result<Vec<AgentState>, ApiError> {
    let (tenant, _) = asked(request, state)?;
    let scheduler = state.scheduler.clone();
    blocking(move || scheduler.agents(tenant).map_err(submit)).await
}

/// Sums over a tenant's agents. Blocks that several share count for each.
#[derive(Default, Serialize, ToSchema)]
struct AgentStats {
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

/// Sums over them.
#[utoipa::path(
    tag = "agents",
    params(Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The sums", body = AgentStats), AgentRefusals)
)]
#[get("/v1/agents/stats")]
async fn agent_stats(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let mut sum = AgentStats::default();
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

/// One of them.
#[utoipa::path(
    tag = "agents",
    params(("id" = String, Path, description = "The agent's name"), Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The agent", body = AgentState), AgentRefusals)
)]
#[get("/v1/agents/{id}")]
async fn get_agent(
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

/// The end of an agent, or of its place in RAM.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Ended {
    Deleted(AgentDeleted),
    Evicted(AgentEvicted),
}

#[derive(Serialize, ToSchema)]
struct AgentDeleted {
    agent_id: String,
    deleted: bool,
    #[serde(flatten)]
    freed: Freed,
}

#[derive(Serialize, ToSchema)]
struct AgentEvicted {
    agent_id: String,
    evicted: bool,
    #[serde(flatten)]
    moved: Evicted,
}

/// Forgets an agent and frees its blocks, or with `evict_only=true` moves them from RAM to disk.
#[utoipa::path(
    tag = "agents",
    params(("id" = String, Path, description = "The agent's name"), Query),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "What became of it", body = Ended), AgentRefusals)
)]
#[delete("/v1/agents/{id}")]
async fn delete_agent(
    request: HttpRequest,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (tenant, query) = asked(&request, &state)?;
    if ["list", "stats"].contains(&id.as_str()) {
        let (method, path) = (request.method().to_string(), request.path().to_owned());
        return Err(ApiError::Method { method, path, allowed: "GET, HEAD".into() });
    }
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
        let ended = Ended::Evicted(AgentEvicted { agent_id: name, evicted: true, moved: evicted.await? });
        return Ok(json_response(&mut HttpResponse::Ok(), &ended));
    }
    let name = id.clone();
    let freed = blocking(move || {
        let freed = scheduler.delete_agent(tenant, id.clone()).map_err(submit)?;
        freed.ok_or(ApiError::UnknownAgent { id })
    });
    let ended = Ended::Deleted(AgentDeleted { agent_id: name, deleted: true, freed: freed.await? });
    Ok(json_response(&mut HttpResponse::Ok(), &ended))
}

/// `prompt` of a turn: what follows the agent's tokens, as it stands.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of token ids")]
enum More {
    Text(String),
    Tokens(Vec<u32>),
}

/// The body of a turn, besides [`Options`].
#[derive(Deserialize, ToSchema)]
struct GenerateFields {
    prompt: More,
    logprobs: Option<u64>,
}

type GenerateRequest = Body<(Options, GenerateFields)>;

/// Another turn of an agent: its tokens, then `prompt`. Answers as `/v1/completions` does.
#[utoipa::path(
    tag = "agents",
    request_body = GenerateRequest,
    params(("id" = String, Path, description = "The agent's name")),
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The text; with `stream`, in pieces and then `[DONE]`", content(
            (completions::CompletionReply = "application/json"), (completions::CompletionReply = "text/event-stream")
        )),
        Refusals
    )
)]
#[post("/v1/agents/{id}/generate")]
async fn generate(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    session::check("agent_id", &id)?;
    let Incoming { object, options, model, tenant, place } = state.open(&request, payload).await?;
    let GenerateFields { prompt, logprobs } = fields(&object)?;
    completions::refuse_unsupported(&object)?;
    let mut plan = Plan::new(options, &state.model, &state.settings)?.with_logprobs(logprobs, "logprobs")?;
    plan.answer.continues = true;
    plan.hold.agent = Some(id.clone());
    let scheduler = state.scheduler.clone();
    let known = blocking(move || {
        let known = scheduler.agent_tokens(tenant, id.clone()).map_err(submit)?;
        known.ok_or(ApiError::UnknownAgent { id })
    });
    let (known, served) = (known.await?, state.clone());
    let prompt = place.run(move || {
        let more = match prompt {
            More::Tokens(tokens) => tokens,
            More::Text(text) => {
                served.check_fits(&text, known.len(), "prompt")?;
                let tokens = served.model.text.tokenizer.encode_rendered(&text);
                tokens.map_err(|error| ApiError::field("prompt", error.to_string()))?
            }
        };
        Ok([&known[..], &more].concat())
    });
    let prompt = prompt.await?;
    drop(place);
    completions::answer(&state, vec![prompt], plan, tenant, model).await
}
