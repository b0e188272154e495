//! `POST /v1/completions`: continues a text as it stands, without a template.

use actix_web::{HttpRequest, HttpResponse, post, web};
use prefixd_cache::Tenant;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::reply::{Head, Reply, TextLogprobs, Usage};
use super::request::{CompletionFields, Prompt};
use super::validate;
use crate::api::ApiState;
use crate::api::body::fields;
use crate::api::error::{ApiError, json_response};
use crate::api::generation::{Answers, EndReason, Piece, TokenLogprob};
use crate::api::openapi::{Body, Refusals};
use crate::api::options::Options;
use crate::api::plan::Plan;
use crate::api::refuse::{never, refuse, refuse_misnamed};
use crate::api::sse::{self, Frames, Shape, StreamPlan};
use crate::api::submit::Incoming;
use crate::api::usage::UsageCount;
use crate::api::work::Place;

/// A text's continuation.
#[utoipa::path(
    tag = "openai",
    request_body = CompletionRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The text; with `stream`, in pieces and then `[DONE]`", content(
            (Reply<Choice> = "application/json"), (Reply<Choice> = "text/event-stream")
        )),
        Refusals
    )
)]
#[post("/v1/completions")]
pub async fn completions(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, options, model, tenant, place } = state.open(&request, payload).await?;
    let CompletionFields { prompt, logprobs } = fields(&object)?;
    refuse_unsupported(&object)?;
    let mut plan = Plan::new(options, &state.model, &state.settings)?.with_logprobs(logprobs, "logprobs")?;
    plan.answer.continues = true;
    let prompts = encode(&state, prompt, &plan, place).await?;
    answer(&state, prompts, plan, tenant, model).await
}

/// Refuses what continuing a text does not act on.
pub fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ApiError> {
    validate::refuse_for_both(object)?;
    refuse(object, &[("context", never), ("response_format", |value| value["type"] == "text")])?;
    let chat = "a chat, /v1/chat/completions";
    refuse_misnamed(
        object,
        &[
            ("messages", "prompt"),
            ("input", "prompt"),
            ("inputs", "prompt"),
            ("system", chat),
            ("instructions", chat),
            ("tools", chat),
            ("chat_template_kwargs", chat),
            ("reasoning_effort", chat),
            ("reasoning", chat),
            ("thinking", chat),
            ("max_output_tokens", "max_tokens"),
            ("top_logprobs", "logprobs"),
        ],
    )
}

/// Continues `prompts`, as a stream or whole.
pub async fn answer(
    state: &web::Data<ApiState>,
    prompts: Vec<Vec<u32>>,
    plan: Plan,
    tenant: Tenant,
    model: String,
) -> Result<HttpResponse, ApiError> {
    let answers = state.submit(&prompts, &plan, tenant, "prompt")?;
    let choices = prompts.len() * plan.n;
    let head = Head::new("cmpl-", "text_completion", model, &state.scheduler.info().fingerprint);
    if plan.stream {
        let (logprobs, include_usage) = (plan.top_logprobs.is_some(), plan.include_usage);
        let shape = TextChunks { head, logprobs, include_usage };
        let plan = StreamPlan { choices, count: plan.count(), keepalive: state.settings.keepalive };
        return Ok(sse::respond(shape, answers, plan));
    }
    whole(&head, answers, &plan, choices).await
}

async fn encode(
    state: &web::Data<ApiState>,
    prompt: Prompt,
    plan: &Plan,
    place: Place,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let texts = match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Tokens(tokens) => return Ok(vec![tokens]),
        Prompt::TokenLists(lists) => {
            plan.check_choices(lists.len())?;
            return Ok(lists);
        }
    };
    plan.check_choices(texts.len())?;
    if texts.is_empty() {
        return Err(ApiError::field("prompt", "prompt is an empty list; expected at least one prompt"));
    }
    let state = state.clone();
    place.run(move || texts.iter().map(|text| state.tokens_of_text(text)).collect()).await
}

/// What [`answer`] answers.
pub type CompletionReply<'a> = Reply<'a, Choice>;

/// What is read.
pub type CompletionRequest = Body<(Options, CompletionFields)>;

#[derive(Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
pub struct Choice {
    index: usize,
    text: String,
    logprobs: Option<TextLogprobs>,
    finish_reason: Option<EndReason>,
}

async fn whole(
    head: &Head,
    mut answers: Answers,
    plan: &Plan,
    choices: usize,
) -> Result<HttpResponse, ApiError> {
    let mut count = plan.count();
    let mut told: Vec<Vec<TokenLogprob>> = vec![Vec::new(); choices];
    let empty = |index| Choice { index, text: String::new(), logprobs: None, finish_reason: None };
    let mut choices: Vec<Choice> = (0..choices).map(empty).collect();
    while let Some((index, piece)) = answers.next().await {
        count.note(index, &piece);
        match piece {
            Piece::Started(_) | Piece::Thought(_) | Piece::Call(..) => {}
            Piece::Text(text, tokens) => {
                told[index].extend(tokens);
                choices[index].text.push_str(&text);
            }
            Piece::End { reason, logprobs, .. } => {
                told[index].extend(logprobs);
                choices[index].finish_reason = Some(reason);
            }
            Piece::Failed(failure) => return Err(failure.into()),
        }
    }
    if plan.top_logprobs.is_some() {
        for (choice, tokens) in choices.iter_mut().zip(told) {
            choice.logprobs = Some(TextLogprobs::new(tokens));
        }
    }
    let mut response = HttpResponse::Ok();
    count.headers(&mut response);
    Ok(json_response(&mut response, &Reply { head, choices, usage: Some(Usage::from(&count)) }))
}

struct TextChunks {
    head: Head,
    logprobs: bool,
    include_usage: bool,
}

impl TextChunks {
    fn chunk(
        &self,
        index: usize,
        text: String,
        tokens: Vec<TokenLogprob>,
        finish_reason: Option<EndReason>,
        out: &mut Frames,
    ) {
        let logprobs = (self.logprobs && !tokens.is_empty()).then(|| TextLogprobs::new(tokens));
        let choices = vec![Choice { index, text, logprobs, finish_reason }];
        out.data(&Reply { head: &self.head, choices, usage: None });
    }
}

impl Shape for TextChunks {
    fn opening(&mut self, _: usize, _: &mut Frames) {}

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Started(_) | Piece::Thought(_) | Piece::Call(..) | Piece::Failed(_) => {}
            Piece::Text(text, tokens) => self.chunk(index, text, tokens, None, out),
            Piece::End { reason, logprobs, .. } => {
                self.chunk(index, String::new(), logprobs, Some(reason), out);
            }
        }
    }

    fn end(&mut self, count: &UsageCount, out: &mut Frames) {
        if self.include_usage {
            let usage = Some(Usage::from(count));
            out.data(&Reply::<Choice> { head: &self.head, choices: Vec::new(), usage });
        }
        out.done();
    }
}
