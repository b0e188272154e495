//! `POST /v1/chat/completions`.

use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{
    ChatLogprobs, FunctionDelta, FunctionReply, Head, Reply, ToolCallDelta, ToolCallReply, Usage,
};
use super::request::{ChatFields, ThinkingFields};
use super::validate::{asked, refuse_unsupported};
use crate::api::ApiState;
use crate::api::body::fields;
use crate::api::contexts::behind;
use crate::api::error::{ApiError, json_response};
use crate::api::format::{Asking, FormatFields, prepare};
use crate::api::generation::{Answers, EndReason, Piece};
use crate::api::openapi::{Body, Refusals};
use crate::api::options::Options;
use crate::api::plan::Plan;
use crate::api::request_log::random_id;
use crate::api::sse::{self, Frames, Shape, StreamPlan};
use crate::api::submit::Incoming;
use crate::api::usage::UsageCount;
use crate::prompt::CallPart;

/// A conversation's next message.
#[utoipa::path(
    tag = "openai",
    request_body = ChatRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The answer; with `stream`, chunks and `[DONE]`", content(
            (Reply<Choice> = "application/json"), (Reply<ChunkChoice> = "text/event-stream")
        )),
        Refusals
    )
)]
#[post("/v1/chat/completions")]
pub async fn chat_completions(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, mut options, model, tenant, place } = state.open(&request, payload).await?;
    let chat: ChatFields = fields(&object)?;
    let context = options.context.take();
    refuse_unsupported(&object)?;
    let mut plan =
        Plan::new(options, &state.model, &state.settings)?.with_logprobs(logprobs(&chat)?, "top_logprobs")?;
    let asked = asked(chat, fields(&object)?)?;
    let (conversation, ..) = behind(&state, tenant, context, asked.conversation).await?;
    plan.answer.calls = asked.calls;
    plan.warn_of_images(asked.images);
    let fields = FormatFields { schema: "response_format", tools: "tools", strict: asked.strict };
    let asked =
        Asking { tenant, place, conversation, marks: Vec::new(), format: asked.format, choice: asked.choice };
    let prompt = prepare(&state, &mut plan, asked, fields).await?;
    let answers = state.submit(&[prompt], &plan, tenant, "messages")?;
    let fingerprint = &state.scheduler.info().fingerprint;
    if plan.stream {
        let head = Head::new("chatcmpl-", "chat.completion.chunk", model, fingerprint);
        let (logprobs, include_usage) = (plan.top_logprobs.is_some(), plan.include_usage);
        let shape = ChatChunks { head, logprobs, include_usage };
        let plan = StreamPlan { choices: plan.n, count: plan.count(), keepalive: state.settings.keepalive };
        return Ok(sse::respond(shape, answers, plan));
    }
    whole(Head::new("chatcmpl-", "chat.completion", model, fingerprint), answers, &plan).await
}

fn logprobs(chat: &ChatFields) -> Result<Option<u64>, ApiError> {
    match (chat.logprobs.unwrap_or(false), chat.top_logprobs) {
        (true, count) => Ok(Some(count.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs to be true")),
    }
}

/// What is read.
pub type ChatRequest = Body<(Options, ThinkingFields, ChatFields)>;

#[derive(Serialize, ToSchema)]
#[schema(as = ChatChoice)]
struct Choice {
    index: usize,
    message: AssistantMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<EndReason>,
}

#[derive(Serialize, ToSchema)]
struct AssistantMessage {
    role: &'static str,
    content: Option<String>,
    /// Always null: a model here refuses in its text.
    #[schema(required)]
    refusal: Option<String>,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallReply>,
}

async fn whole(head: Head, mut answers: Answers, plan: &Plan) -> Result<HttpResponse, ApiError> {
    let mut count = plan.count();
    let empty = |index| Choice {
        index,
        message: AssistantMessage {
            role: "assistant",
            content: Some(String::new()),
            refusal: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
        },
        logprobs: plan.top_logprobs.map(|_| ChatLogprobs::default()),
        finish_reason: None,
    };
    let mut choices: Vec<Choice> = (0..plan.n).map(empty).collect();
    let mut calls = vec![None; plan.n];
    while let Some((index, piece)) = answers.next().await {
        count.note(index, &piece);
        let choice = &mut choices[index];
        let mut tell = |tokens| {
            if let Some(logprobs) = &mut choice.logprobs {
                logprobs.content.extend(ChatLogprobs::new(tokens).content);
            }
        };
        match piece {
            Piece::Started(_) => {}
            Piece::Thought(text) => {
                choice.message.reasoning_content.get_or_insert_default().push_str(&text);
            }
            Piece::Text(text, tokens) => {
                tell(tokens);
                choice.message.content.get_or_insert_default().push_str(&text);
            }
            Piece::Call(_, part) => add_to_call(&mut calls[index], &mut choice.message.tool_calls, part),
            Piece::End { reason, logprobs, .. } => {
                tell(logprobs);
                choice.finish_reason = Some(reason);
            }
            Piece::Failed(failure) => return Err(failure.into()),
        }
    }
    for choice in &mut choices {
        let message = &mut choice.message;
        if !message.tool_calls.is_empty() {
            message.content = message.content.take().filter(|text| !text.is_empty());
        }
    }
    let mut response = HttpResponse::Ok();
    count.headers(&mut response);
    Ok(json_response(&mut response, &Reply { head: &head, choices, usage: Some(Usage::from(&count)) }))
}

/// Adds a part to the open call, and the call to the whole ones at its end. One without an end is dropped.
fn add_to_call(open: &mut Option<FunctionReply>, whole: &mut Vec<ToolCallReply>, part: CallPart) {
    match (part, open) {
        (CallPart::Begin(name), open) => *open = Some(FunctionReply { name, arguments: String::new() }),
        (CallPart::Arguments(more), Some(call)) => call.arguments.push_str(&more),
        (CallPart::End, open) => whole.extend(open.take().map(|function| ToolCallReply {
            id: random_id("call_"),
            kind: "function",
            function,
        })),
        (CallPart::Arguments(_), None) => {}
    }
}

/// A part as clients add it up; nothing at the end of a call.
fn call_delta(index: usize, part: CallPart) -> Option<ToolCallDelta> {
    let (id, kind, function) = match part {
        CallPart::Begin(name) => {
            let function = FunctionDelta { name: Some(name), arguments: String::new() };
            (Some(random_id("call_")), Some("function"), function)
        }
        CallPart::Arguments(arguments) => (None, None, FunctionDelta { name: None, arguments }),
        CallPart::End => return None,
    };
    Some(ToolCallDelta { index, id, kind, function })
}

struct ChatChunks {
    head: Head,
    logprobs: bool,
    include_usage: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatChunkChoice)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<EndReason>,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = ChatDelta)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallDelta>,
}

impl ChatChunks {
    fn chunk(
        &self,
        index: usize,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<EndReason>,
        out: &mut Frames,
    ) {
        let choices = vec![ChunkChoice { index, delta, logprobs, finish_reason }];
        out.data(&Reply { head: &self.head, choices, usage: None });
    }
}

impl Shape for ChatChunks {
    fn opening(&mut self, index: usize, out: &mut Frames) {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        self.chunk(index, delta, None, None, out);
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Started(_) | Piece::Failed(_) => {}
            Piece::Thought(text) => {
                let delta = Delta { reasoning_content: Some(text), ..Delta::default() };
                self.chunk(index, delta, None, None, out);
            }
            Piece::Text(text, tokens) => {
                let logprobs = self.logprobs.then(|| ChatLogprobs::new(tokens));
                let delta = Delta { content: Some(text), ..Delta::default() };
                self.chunk(index, delta, logprobs, None, out);
            }
            Piece::Call(at, part) => {
                if let Some(call) = call_delta(at, part) {
                    let delta = Delta { tool_calls: vec![call], ..Delta::default() };
                    self.chunk(index, delta, None, None, out);
                }
            }
            Piece::End { reason, logprobs, .. } => {
                let logprobs = (!logprobs.is_empty()).then(|| ChatLogprobs::new(logprobs));
                self.chunk(index, Delta::default(), logprobs, Some(reason), out);
            }
        }
    }

    fn end(&mut self, count: &UsageCount, out: &mut Frames) {
        if self.include_usage {
            let usage = Some(Usage::from(count));
            out.data(&Reply::<ChunkChoice> { head: &self.head, choices: Vec::new(), usage });
        }
        out.done();
    }
}
