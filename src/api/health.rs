//! How the server is: for people, load balancers and monitors. Open without a key; no prompt text appears here.

use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::error::json_response;
use crate::scheduler::Condition;

/// Adds the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(health).service(live).service(ready);
}

#[derive(Serialize, ToSchema)]
struct Health<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    model: &'a str,
    backend: &'a str,
    kv: &'a str,
    context_tokens: usize,
    queue: Queue,
    cache: CacheHealth<'a>,
}

#[derive(Serialize, ToSchema)]
struct Queue {
    waiting: usize,
    prefilling: usize,
    decoding: usize,
}

#[derive(Serialize, ToSchema)]
struct CacheHealth<'a> {
    /// Why the disk tier does less than it should, or is not there; null when all is well.
    degraded: Option<&'a str>,
}

/// How the server is.
#[utoipa::path(tag = "server", responses(
    (status = 200, description = "It serves", body = Health),
    (status = 503, description = "It does not", body = Health)
))]
#[get("/health")]
async fn health(state: web::Data<ApiState>) -> HttpResponse {
    tell(&state)
}

/// Whether the server can serve.
#[utoipa::path(tag = "server", responses(
    (status = 200, description = "It serves", body = Health),
    (status = 503, description = "It does not", body = Health)
))]
#[get("/health/ready")]
async fn ready(state: web::Data<ApiState>) -> HttpResponse {
    tell(&state)
}

fn tell(state: &ApiState) -> HttpResponse {
    let (now, info) = (state.scheduler.status(), state.scheduler.info());
    let (status, reason) = match &now.condition {
        Condition::Starting => ("starting", None),
        Condition::Ready => ("ready", None),
        Condition::Failing(reason) => ("failing", Some(reason.as_str())),
        Condition::Draining | Condition::Stopped => ("draining", None),
        Condition::Failed(reason) => ("failed", Some(reason.as_str())),
    };
    let mut response =
        if status == "ready" { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let body = Health {
        status,
        reason,
        model: state.model.name(),
        backend: &info.backend,
        kv: &info.kv_format,
        context_tokens: info.context_tokens,
        queue: Queue { waiting: now.waiting, prefilling: now.prefilling, decoding: now.decoding },
        cache: CacheHealth {
            degraded: now
                .cache
                .disk
                .as_ref()
                .and_then(|disk| disk.degraded.as_deref())
                .or(now.cache.no_disk.as_deref()),
        },
    };
    json_response(&mut response, &body)
}

#[derive(Serialize, ToSchema)]
struct Live {
    status: &'static str,
}

/// The process answers; whether it can serve is another question.
#[utoipa::path(tag = "server", responses((status = 200, description = "It lives", body = Live)))]
#[get("/health/live")]
async fn live() -> HttpResponse {
    json_response(&mut HttpResponse::Ok(), &Live { status: "live" })
}
