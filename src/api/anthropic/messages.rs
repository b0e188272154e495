//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::convert::convert;
use super::error::AnthropicError;
use super::reply::{BlockReply, MessageReply, StopReason, Usage, input};
use super::request::{MessagesFields, PromptFields};
use super::stream::{MessageEvent, MessageEvents};
use crate::api::ApiState;
use crate::api::body::fields;
use crate::api::contexts::behind;
use crate::api::error::{ApiError, json_response};
use crate::api::format::{Asking, FormatFields, prepare};
use crate::api::generation::{Answers, EndReason, Piece};
use crate::api::marks::Mark;
use crate::api::openapi::{AnthropicRefusals, Body};
use crate::api::options::{Options, Stop};
use crate::api::plan::{Plan, stops};
use crate::api::refuse::{empty, never, refuse, refuse_foreign, refuse_misnamed, within};
use crate::api::sse::{self, StreamPlan};
use crate::api::submit::{Incoming, encode};
use crate::api::usage::UsageCount;
use crate::prompt::CallPart;

/// A conversation's next message.
#[utoipa::path(
    tag = "anthropic",
    request_body = MessagesRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The message; with `stream`, its events", content(
            (MessageReply = "application/json"), (MessageEvent = "text/event-stream")
        )),
        AnthropicRefusals
    )
)]
#[post("/v1/messages")]
pub async fn messages(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, AnthropicError> {
    let Incoming { object, mut options, model, tenant, place } = state.open(&request, payload).await?;
    let asked = convert(prompt_fields(&object)?)?;
    let context = options.context.take();
    let mut plan = plan(options, &object, &state)?;
    plan.answer.calls = asked.calls;
    plan.warn_of_images(asked.images);
    let (conversation, messages, tools) = behind(&state, tenant, context, asked.conversation).await?;
    let marks: Vec<Mark> = asked.marks.into_iter().map(|mark| mark.behind(messages, tools)).collect();
    let marked = !marks.is_empty();
    let fields = FormatFields { schema: "output_config.format", tools: "tools", strict: false };
    let asked = Asking { tenant, place, conversation, marks, format: asked.format, choice: asked.choice };
    let prompt = prepare(&state, &mut plan, asked, fields).await?;
    let prompt_tokens = prompt.len();
    let answers = state.submit(&[prompt], &plan, tenant, "messages")?;
    if plan.stream {
        let plan = StreamPlan { choices: 1, count: plan.count(), keepalive: state.settings.keepalive };
        return Ok(sse::respond(MessageEvents::new(model, marked, prompt_tokens), answers, plan));
    }
    Ok(whole(model, answers, plan.count(), marked).await?)
}

/// How many tokens a conversation is.
#[utoipa::path(
    tag = "anthropic",
    request_body = PromptRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses((status = 200, description = "The number", body = TokenCount), AnthropicRefusals)
)]
#[post("/v1/messages/count_tokens")]
pub async fn count_tokens(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, AnthropicError> {
    let Incoming { object, options, tenant, place, .. } = state.open(&request, payload).await?;
    let conversation = convert(prompt_fields(&object)?)?.conversation;
    let (conversation, ..) = behind(&state, tenant, options.context, conversation).await?;
    let prompt = encode(&state, tenant, conversation, None, &place).await?.tokens;
    Ok(json_response(&mut HttpResponse::Ok(), &TokenCount { input_tokens: prompt.len() }))
}

type MessagesRequest = Body<(Options, PromptFields, MessagesFields)>;
type PromptRequest = Body<(Options, PromptFields)>;

#[derive(Serialize, ToSchema)]
struct TokenCount {
    input_tokens: usize,
}

fn prompt_fields(object: &Map<String, Value>) -> Result<PromptFields, ApiError> {
    refuse(
        object,
        &[
            ("mcp_servers", empty),
            ("container", empty),
            // A message that goes on in a thread holds only what is new; taken alone it would be answered wrongly.
            ("thread", never),
            // Thinking that is kept is what happens anyway.
            ("context_management", |value| {
                let edits = value["edits"].as_array().map_or(&[][..], Vec::as_slice);
                edits.iter().all(|edit| edit["keep"] == "all")
            }),
            ("logprobs", |value| *value == false),
            ("top_logprobs", |value| *value == 0),
            ("parallel_tool_calls", |value| *value == true),
        ],
    )?;
    refuse_foreign(object)?;
    refuse_misnamed(
        object,
        &[
            ("prompt", "messages"),
            ("input", "messages"),
            ("inputs", "messages"),
            ("instructions", "system"),
            ("max_output_tokens", "max_tokens"),
            ("stop", "stop_sequences"),
            ("response_format", "output_config.format"),
            ("text", "output_config.format"),
            ("reasoning_effort", "output_config.effort"),
            ("reasoning", "thinking"),
            ("enable_thinking", "thinking"),
            ("think", "thinking"),
        ],
    )?;
    fields(object)
}

fn plan(mut options: Options, object: &Map<String, Value>, state: &ApiState) -> Result<Plan, ApiError> {
    if options.n.is_some_and(|n| n != 1) {
        return Err(ApiError::field("n", "n is not 1; a message has one answer"));
    }
    within(object, "temperature", 0.0, 1.0)?;
    let MessagesFields { stop_sequences } = fields(object)?;
    // The field's name here; an empty one is let through.
    options.stop = None;
    let agent = options.session_id.as_ref().map(|name| format!("sess_{name}"));
    let mut plan = Plan::new(options, &state.model, &state.settings)?;
    plan.hold.agent = agent;
    plan.answer.stops = stops(stop_sequences.map(Stop::Several), "stop_sequences")?;
    Ok(plan)
}

async fn whole(
    model: String,
    mut answers: Answers,
    mut count: UsageCount,
    marked: bool,
) -> Result<HttpResponse, ApiError> {
    let mut content = Vec::new();
    // The open call; one without an end is dropped.
    let mut call = (String::new(), String::new());
    let mut end = (EndReason::Stop, None);
    while let Some((index, piece)) = answers.next().await {
        count.note(index, &piece);
        match piece {
            Piece::Started(_) => {}
            Piece::Thought(more) => match content.last_mut() {
                Some(BlockReply::Thinking { thinking, .. }) => thinking.push_str(&more),
                _ => content.push(BlockReply::thinking(more)),
            },
            Piece::Text(more, _) => match content.last_mut() {
                Some(BlockReply::Text { text }) => text.push_str(&more),
                _ => content.push(BlockReply::Text { text: more }),
            },
            Piece::Call(_, CallPart::Begin(name)) => call = (name, String::new()),
            Piece::Call(_, CallPart::Arguments(more)) => call.1.push_str(&more),
            Piece::Call(_, CallPart::End) => {
                let (name, arguments) = std::mem::take(&mut call);
                content.push(BlockReply::call(name, input(&arguments)));
            }
            Piece::End { reason, stop, .. } => end = (reason, stop),
            Piece::Failed(failure) => return Err(failure.into()),
        }
    }
    let (reason, stop) = end;
    let message = MessageReply {
        content,
        stop_reason: Some(StopReason::new(reason, stop.as_ref())),
        stop_sequence: stop,
        ..MessageReply::new(model, Usage::new(&count, marked))
    };
    let mut response = HttpResponse::Ok();
    count.headers(&mut response);
    Ok(json_response(&mut response, &message))
}
