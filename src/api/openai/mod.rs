//! OpenAI's endpoints: chat completions, completions, models.

use actix_web::web;
use prefixd_cache::Tenant;

use super::ApiState;
use super::error::{ApiError, only_get, only_post};
use super::generation::{Answer, Answers};
use crate::scheduler::Request;

mod chat;
mod completions;
mod models;
mod reply;
mod request;
mod validate;

pub use reply::UsageCount;
use validate::Plan;

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

impl ApiState {
    /// The name to answer with: the one that was asked for, if it is served.
    fn model_name(&self, asked: Option<&str>) -> Result<String, ApiError> {
        match asked {
            None | Some("") => Ok(self.model.name().to_owned()),
            Some(name) if self.model.knows(name) => Ok(name.to_owned()),
            Some(name) => {
                Err(ApiError::UnknownModel { asked: name.to_owned(), known: self.model.name().to_owned() })
            }
        }
    }

    /// Hands in `plan.n` sequences for every prompt. When one is refused, those handed in are cancelled.
    fn submit(
        &self,
        prompts: &[Vec<u32>],
        plan: &Plan,
        tenant: Tenant,
        param: &'static str,
    ) -> Result<Answers, ApiError> {
        let answers = Answers::default();
        for (at, prompt) in prompts.iter().enumerate() {
            for nth in 0..plan.n {
                let mut sampling = plan.sampling.clone();
                // Choices of one seed differ from each other, the same way every time.
                sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(nth as u64));
                let request = Request {
                    prompt: prompt.clone(),
                    max_tokens: plan.max_tokens,
                    min_tokens: plan.min_tokens,
                    stop_tokens: plan.stop_tokens.clone(),
                    sampling,
                    top_logprobs: plan.top_logprobs,
                    tenant,
                };
                let stream =
                    self.scheduler.submit(request).map_err(|error| ApiError::Submit { error, param })?;
                answers.push(Answer::new(at * plan.n + nth, self.model.clone(), stream, &plan.answer));
            }
        }
        Ok(answers)
    }
}

/// Runs what takes long (rendering, encoding) where it does not hold up other connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    web::block(work).await.map_err(|error| ApiError::Internal(error.to_string()))?
}
