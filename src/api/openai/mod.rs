//! OpenAI's endpoints: chat completions, completions, models.

use actix_web::web;

use super::error::{only_get, only_post};

mod chat;
mod completions;
mod models;
mod reply;
mod request;
mod validate;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let post = |path: &str| web::resource(path).default_service(web::to(only_post));
    let get = |path: &str| web::resource(path).default_service(web::to(only_get));
    config
        .service(post("/v1/chat/completions").route(web::post().to(chat::chat)))
        .service(post("/v1/completions").route(web::post().to(completions::completions)))
        .service(get("/v1/models").route(web::get().to(models::list)))
        // Names may hold slashes: `mlx-community/Qwen3-0.6B-4bit`.
        .service(get("/v1/models/{name:.+}").route(web::get().to(models::one)));
}
