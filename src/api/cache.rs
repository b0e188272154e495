//! The prefix cache over HTTP: how it is, what it knows of a prompt, and how it is emptied.
//!
//! An ordinary key asks about a prompt or for statistics, and hears of its own tenant alone. What concerns every tenant,
//! sums and emptying, takes the admin key once there are keys.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use prefixd_cache::{CacheStats, Miss, Reuse, TenantStats};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::error::{ApiError, json_response};
use super::openai;
use super::openapi::{AdminRefusals, AnyOf, Refusals};
use super::submit::{Incoming, blocking};

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(cache_stats).service(probe_cache).service(clear_cache).service(delete_caches);
}

type Stats = AnyOf<(CacheStats, TenantStats)>;

/// How the cache is: all of it for the admin key and where there are no keys, else what it did for the asking key.
#[utoipa::path(
    tag = "cache",
    security((), ("bearer" = []), ("x-api-key" = []), ("x-admin-key" = [])),
    responses((status = 200, description = "The statistics", body = Stats), AdminRefusals)
)]
#[get("/v1/cache/stats")]
async fn cache_stats(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let settings = &state.settings;
    if settings.keys.is_empty() || settings.admin.admit(&request).is_ok() {
        return Ok(json_response(&mut HttpResponse::Ok(), &state.scheduler.status().cache));
    }
    let (tenant, scheduler) = (settings.keys.tenant(&request)?, state.scheduler.clone());
    let submit = |error| ApiError::Submit { error, param: "" };
    let own = blocking(move || scheduler.tenant_stats(tenant).map_err(submit)).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &own.unwrap_or_default()))
}

#[derive(Serialize, ToSchema)]
struct Known {
    prompt_tokens: usize,
    /// Tokens that need not be computed; the last of a prompt always is.
    cached_tokens: usize,
    resident_tokens: usize,
    disk_tokens: usize,
    /// Tokens whose blocks are known and of no use, because no state of the model's recurrent layers is kept there.
    no_state_tokens: usize,
    /// Why not more; null when all of the prompt is known.
    miss: Option<WhyNot>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum WhyNot {
    Miss(Miss),
    NoCache(NoCache),
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "reason")]
enum NoCache {
    /// The server runs without one.
    NoCache,
}

/// What the cache knows of the prompt of a chat (`messages`) or of a text or tokens (`prompt`).
#[utoipa::path(
    tag = "cache",
    request_body = openai::PromptRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "What is known", body = Known), Refusals)
)]
#[post("/v1/cache/probe")]
async fn probe_cache(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, tenant, place, .. } = state.open(&request, payload).await?;
    let prompt = openai::only_prompt(&state, tenant, &object, &place).await?;
    drop(place);
    let prompt_tokens = prompt.len();
    let scheduler = state.scheduler.clone();
    let param = if object.contains_key("messages") { "messages" } else { "prompt" };
    let lookup =
        blocking(move || scheduler.probe(tenant, prompt).map_err(|error| ApiError::Submit { error, param }))
            .await?;
    let known = lookup.map_or_else(
        || Known {
            prompt_tokens,
            cached_tokens: 0,
            resident_tokens: 0,
            disk_tokens: 0,
            no_state_tokens: 0,
            miss: Some(WhyNot::NoCache(NoCache::NoCache)),
        },
        |lookup| {
            let Reuse { resident_tokens, disk_tokens, no_state_tokens, miss, .. } = lookup.reuse();
            Known {
                prompt_tokens,
                cached_tokens: lookup.tokens,
                resident_tokens,
                disk_tokens,
                no_state_tokens,
                miss: (lookup.tokens + 1 < prompt_tokens).then_some(WhyNot::Miss(miss)),
            }
        },
    );
    Ok(json_response(&mut HttpResponse::Ok(), &known))
}

#[derive(Serialize, ToSchema)]
struct Cleared {
    cleared: bool,
}

/// Forgets every block and every agent of every tenant, in RAM and on disk.
#[utoipa::path(
    tag = "cache",
    security(("x-admin-key" = [])),
    responses((status = 200, description = "All is forgotten", body = Cleared), AdminRefusals)
)]
#[post("/v1/cache/clear")]
async fn clear_cache(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    clear(&request, &state).await
}

/// The same, under the name that agents' clients know.
#[utoipa::path(
    tag = "agents",
    security(("x-admin-key" = [])),
    responses((status = 200, description = "All is forgotten", body = Cleared), AdminRefusals)
)]
#[delete("/admin/caches")]
async fn delete_caches(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    clear(&request, &state).await
}

async fn clear(request: &HttpRequest, state: &web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    state.settings.admin.admit(request)?;
    let scheduler = state.scheduler.clone();
    blocking(move || scheduler.clear_cache().map_err(|error| ApiError::Submit { error, param: "" })).await?;
    tracing::info!("the cache was emptied by request");
    Ok(json_response(&mut HttpResponse::Ok(), &Cleared { cleared: true }))
}
