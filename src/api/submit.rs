//! From checked requests to sequences: the model's name, the prompt's tokens, the scheduler's inbox.

use actix_web::{HttpRequest, web};
use prefixd_cache::Tenant;
use serde_json::{Map, Value};

use super::ApiState;
use super::auth::salted;
use super::body::{fields, object, read_bytes};
use super::encoding::{Encoding, USUAL_RATIO};
use super::error::{ApiError, TooLong};
use super::generation::{Answer, Answers, Record};
use super::marks::{Mark, Rendered, snapshots};
use super::options::Options;
use super::plan::Plan;
use super::session;
use super::work::Place;
use crate::prompt::{Conversation, ModelText, TemplateError, ThoughtStart};
use crate::scheduler::{PrefixPin, Request, SnapshotPoint};

/// A request that may come in: its body, what it says of every kind of answer, and for whom.
pub struct Incoming {
    pub object: Map<String, Value>,
    pub options: Options,
    /// The name to answer with.
    pub model: String,
    /// The key's tenant, split by the salt.
    pub tenant: Tenant,
    /// Where what it costs is done; to be kept until the scheduler has it.
    pub place: Place,
}

impl ApiState {
    /// Lets a request in: its key, its body, its model.
    pub async fn open(&self, request: &HttpRequest, payload: web::Payload) -> Result<Incoming, ApiError> {
        let tenant = self.settings.keys.tenant(request)?;
        let bytes = read_bytes(request, payload, &self.settings).await?;
        let encoding = Encoding::of(request)?;
        let room = if encoding == Encoding::Plain { bytes.len() } else { bytes.len() * USUAL_RATIO };
        let place = self.work.enter(&tenant, room).await?;
        let (limit, tokens) = (self.settings.body_limit_bytes, self.scheduler.info().context_tokens);
        let object = place.run_if_large(move || object(&encoding.unpack(bytes, limit)?, tokens)).await?;
        let mut options: Options = fields(&object)?;
        session::settle(request, &mut options)?;
        options.settle_store(request)?;
        let model = self.model_name(options.model.as_deref())?;
        let tenant = salted(tenant, options.cache_salt.as_deref());
        Ok(Incoming { object, options, model, tenant, place })
    }

    /// The name to answer with: the one that was asked for, if it is served.
    pub fn model_name(&self, asked: Option<&str>) -> Result<String, ApiError> {
        match asked {
            None | Some("") => Ok(self.model.name().to_owned()),
            Some(name) if self.model.knows(name) => Ok(name.to_owned()),
            Some(name) => {
                Err(ApiError::UnknownModel { asked: name.to_owned(), known: self.model.name().to_owned() })
            }
        }
    }

    /// Refuses a prompt that cannot fit into the model's context behind `known` tokens. Costs no more than a look at it.
    pub fn check_fits(&self, text: &str, known: usize, param: &'static str) -> Result<(), ApiError> {
        let prompt_tokens = known + self.model.text.tokenizer.least_tokens(text);
        let context_tokens = self.scheduler.info().context_tokens;
        if prompt_tokens < context_tokens {
            return Ok(());
        }
        Err(ApiError::TooLong(TooLong { prompt_tokens, or_more: true, context_tokens, param }))
    }

    /// The tokens of a plain text that begins a prompt.
    pub fn tokens_of_text(&self, text: &str) -> Result<Vec<u32>, ApiError> {
        self.check_fits(text, 0, "prompt")?;
        let tokens = self.model.text.tokenizer.encode_text(text);
        tokens.map_err(|error| ApiError::field("prompt", error.to_string()))
    }

    /// The tokens of a rendered conversation's text.
    pub fn tokens_of(&self, tenant: &Tenant, text: &str) -> Result<Vec<u32>, ApiError> {
        self.check_fits(text, 0, "messages")?;
        let tokens = self.token_index.encode(&self.model.text.tokenizer, tenant, text);
        tokens.map_err(|error| ApiError::field("messages", error.to_string()))
    }

    /// Hands in `plan.n` sequences for every prompt. When one is refused, those handed in are cancelled.
    pub fn submit(
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
                    constraint: plan.constraint.clone(),
                    top_logprobs: plan.top_logprobs,
                    tenant,
                    // Of several choices the first is the one that the conversation goes on from.
                    hold: if at == 0 && nth == 0 { plan.hold.clone() } else { plan.hold.of_another_choice() },
                };
                let stream =
                    self.scheduler.submit(request).map_err(|error| ApiError::submit(error, param))?;
                let (model, durations) = (self.model.clone(), self.durations.clone());
                let mut answer = Answer::new(at * plan.n + nth, model, durations, stream, &plan.answer);
                if self.settings.keeps_answers && !plan.answer.continues {
                    answer.remember(Record {
                        token_index: self.token_index.clone(),
                        tenant,
                        prompt: prompt.clone(),
                    });
                }
                answers.push(answer);
            }
        }
        Ok(answers)
    }
}

/// Runs what waits for the scheduler where it does not hold up other connections.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    web::block(work).await.map_err(|error| ApiError::Internal(error.to_string()))?
}

/// A conversation as the model gets it.
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// How its answer begins.
    pub thought: ThoughtStart,
    /// Which of its beginnings are pinned.
    pub pins: Vec<PrefixPin>,
    /// Where a model that keeps a state leaves snapshots.
    pub snapshots: Vec<SnapshotPoint>,
}

/// Renders a conversation and takes its tokens. `marks`: what of a prompt that will be answered is pinned; `None` where
/// only its tokens are asked for.
pub async fn encode(
    state: &web::Data<ApiState>,
    tenant: Tenant,
    conversation: Conversation,
    marks: Option<Vec<Mark>>,
    place: &Place,
) -> Result<Prompt, ApiError> {
    let state = state.clone();
    place
        .run(move || {
            let ModelText { template, tokenizer, .. } = &state.model.text;
            let template = template.as_ref().ok_or(TemplateError::Missing)?;
            let text = template.render(&conversation)?;
            let tokens = state.tokens_of(&tenant, &text)?;
            let rendered =
                Rendered { template, tokenizer, conversation: &conversation, text: &text, tokens: &tokens };
            let pins = marks.iter().flatten().filter_map(|mark| mark.pin(&rendered)).collect();
            let keeps_state = marks.is_some() && state.scheduler.info().state.has_snapshots();
            let snapshots = if keeps_state { snapshots(&rendered) } else { Vec::new() };
            Ok(Prompt { thought: template.thought(&text), pins, snapshots, tokens })
        })
        .await
}
