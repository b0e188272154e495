//! The prefix cache over HTTP: how it is, what it knows of a prompt, and how it is emptied.
//!
//! An ordinary key asks about a prompt or for statistics, and hears of its own tenant alone. What concerns every tenant,
//! sums and emptying, takes the admin key once there are keys.

use actix_web::{HttpRequest, HttpResponse, web};
use prefixd_cache::{Lookup, Tier};
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiState;
use super::error::{ApiError, json_response, only_get, only_post, wrong_method};
use super::openai;
use super::submit::{Incoming, blocking};

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let post = |path: &str| web::resource(path).default_service(web::to(only_post));
    let stats_only = web::resource("/v1/cache/stats").default_service(web::to(only_get));
    config
        .service(stats_only.route(web::get().to(stats)))
        .service(post("/v1/cache/probe").route(web::post().to(probe)))
        .service(post("/v1/cache/clear").route(web::post().to(clear)))
        .service(
            web::resource("/admin/caches")
                .route(web::delete().to(clear))
                .default_service(web::to(only_delete)),
        );
}

async fn only_delete(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(wrong_method(&request, "DELETE"))
}

async fn stats(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let settings = &state.settings;
    if settings.keys.is_empty() || settings.admin.admit(&request).is_ok() {
        return Ok(json_response(&mut HttpResponse::Ok(), &state.scheduler.status().cache));
    }
    let (tenant, scheduler) = (settings.keys.tenant(&request)?, state.scheduler.clone());
    let submit = |error| ApiError::Submit { error, param: "" };
    let own = blocking(move || scheduler.tenant_stats(tenant).map_err(submit)).await?;
    Ok(json_response(&mut HttpResponse::Ok(), &own))
}

#[derive(Serialize)]
struct Known {
    prompt_tokens: usize,
    /// Tokens that need not be computed; the last of a prompt always is.
    cached_tokens: usize,
    resident_tokens: usize,
    disk_tokens: usize,
    /// Why not more; null when all of the prompt is known.
    miss: Value,
}

/// What the cache knows of the prompt of a chat (`messages`) or of a text or tokens (`prompt`).
async fn probe(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, tenant, .. } = state.open(&request, payload).await?;
    let prompt = openai::only_prompt(&state, &object).await?;
    let prompt_tokens = prompt.len();
    let scheduler = state.scheduler.clone();
    let param = if object.contains_key("messages") { "messages" } else { "prompt" };
    let lookup =
        blocking(move || scheduler.probe(tenant, prompt).map_err(|error| ApiError::Submit { error, param }))
            .await?;
    let tokens_in = |lookup: &Lookup, tier| {
        lookup.hits.iter().filter(|hit| hit.tier == tier).map(|hit| hit.used_tokens).sum()
    };
    let known = lookup.map_or_else(
        || Known {
            prompt_tokens,
            cached_tokens: 0,
            resident_tokens: 0,
            disk_tokens: 0,
            miss: json!({"reason": "no_cache"}),
        },
        |lookup| Known {
            prompt_tokens,
            cached_tokens: lookup.tokens,
            resident_tokens: tokens_in(&lookup, Tier::Resident),
            disk_tokens: tokens_in(&lookup, Tier::Disk),
            miss: if lookup.tokens + 1 < prompt_tokens { json!(lookup.miss) } else { Value::Null },
        },
    );
    Ok(json_response(&mut HttpResponse::Ok(), &known))
}

/// Forgets every block and every agent of every tenant, in RAM and on disk: `/v1/cache/clear` and `DELETE /admin/caches`.
async fn clear(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    state.settings.admin.admit(&request)?;
    let scheduler = state.scheduler.clone();
    blocking(move || scheduler.clear_cache().map_err(|error| ApiError::Submit { error, param: "" })).await?;
    tracing::info!("the cache was emptied by request");
    Ok(json_response(&mut HttpResponse::Ok(), &json!({"cleared": true})))
}
