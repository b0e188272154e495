//! How the server is: for people, load balancers and monitors. Open without a key; no prompt text appears here.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::ApiState;
use super::error::{json_response, only_get};
use crate::scheduler::Condition;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path).default_service(web::to(only_get));
    config
        .service(get("/health").route(web::get().to(health)).route(web::head().to(health)))
        .service(get("/health/live").route(web::get().to(live)).route(web::head().to(live)))
        .service(get("/health/ready").route(web::get().to(health)).route(web::head().to(health)));
}

#[derive(Serialize)]
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

#[derive(Serialize)]
struct Queue {
    waiting: usize,
    prefilling: usize,
    decoding: usize,
}

#[derive(Serialize)]
struct CacheHealth<'a> {
    /// Why the disk tier does less than it should; null when all is well.
    degraded: Option<&'a str>,
}

async fn health(state: web::Data<ApiState>) -> HttpResponse {
    let (now, info) = (state.scheduler.status(), state.scheduler.info());
    let (status, reason) = match &now.condition {
        Condition::Ready => ("ready", None),
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
        cache: CacheHealth { degraded: now.cache.disk.as_ref().and_then(|disk| disk.degraded.as_deref()) },
    };
    json_response(&mut response, &body)
}

/// The process answers; whether it can serve is another question.
async fn live() -> HttpResponse {
    json_response(&mut HttpResponse::Ok(), &serde_json::json!({"status": "live"}))
}
