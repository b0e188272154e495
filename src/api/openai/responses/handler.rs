//! `POST /v1/responses`.

use std::sync::Arc;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, post, web};
use prefixd_cache::Tenant;
use serde_json::{Map, Value, json};

use super::events::{Numbered, Numbering};
use super::input;
use super::output::{Output, now};
use super::reply::{ResponseReply, Status};
use super::request::{Item, Reasoning, ResponseFields};
use super::store::{History, ResponseStore};
use super::tools::{Tools, tool_choice};
use crate::api::ApiState;
use crate::api::body::fields;
use crate::api::error::{ApiError, TooLong, json_response};
use crate::api::format::{Asking, FormatFields, format, json_schema, prepare};
use crate::api::generation::{Answers, Piece};
use crate::api::openai::request;
use crate::api::openapi::{Body, Refusals};
use crate::api::options::Options;
use crate::api::plan::Plan;
use crate::api::refuse::{empty, never, off, refuse, refuse_foreign, refuse_misnamed, within};
use crate::api::request_log::random_id;
use crate::api::sse::{self, Frames, Shape, StreamPlan};
use crate::api::submit::Incoming;
use crate::api::usage::UsageCount;
use crate::prompt::{CallCount, Conversation, Message, Role, in_order};

/// As OpenAI has them.
const MOST_METADATA: usize = 16;
const LONGEST_METADATA_KEY: usize = 64;
const LONGEST_METADATA_VALUE: usize = 512;

pub(super) type ResponseRequest = Body<(Options, ResponseFields)>;

/// A conversation's next response.
#[utoipa::path(
    tag = "openai",
    request_body = ResponseRequest,
    security((), ("bearer" = []), ("x-api-key" = [])),
    responses(
        (status = 200, description = "The response; with `stream`, its events", content(
            (ResponseReply = "application/json"), (Numbered = "text/event-stream")
        )),
        Refusals
    )
)]
#[post("/v1/responses")]
pub async fn create_response(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let Incoming { object, options, model, tenant, place } = state.open(&request, payload).await?;
    // A salt splits what is cached, not whose responses these are.
    let owner = state.settings.keys.tenant(&request)?;
    let asked: ResponseFields = fields(&object)?;
    refuse_unsupported(&object)?;
    check(&asked)?;
    let mut plan = plan(options, &asked, &state)?;
    let mut tools = Tools::new(asked.tools.as_deref().unwrap_or_default())?;
    let choice = tool_choice(asked.tool_choice.as_ref())?;
    plan.answer.calls =
        if asked.parallel_tool_calls == Some(false) { CallCount::One } else { CallCount::Several };
    let asked_format = asked.text.as_ref().and_then(|text| text.format.as_ref());
    let strict = asked_format.is_some_and(|format| format["strict"] == true);
    let schema = json_schema("text.format", asked_format, |asked| {
        ("text.format.schema".into(), asked["schema"].clone())
    })?;
    let format = format(schema, &tools.functions, &choice, plan.answer.calls)?;
    let mut reply = reply(&asked, &plan, model, &tools);
    reply.store &= state.settings.responses.budget_bytes > 0;
    let Said { conversation, history, items, images } = said(&state, owner, asked, &mut tools)?;
    plan.warn_of_images(images);
    let fields = FormatFields { schema: "text.format", tools: "tools", strict };
    let asked = Asking { tenant, place, conversation, marks: Vec::new(), format, choice };
    let prompt = prepare(&state, &mut plan, asked, fields).await.map_err(of_input)?;
    let answers = state.submit(&[prompt], &plan, tenant, "input")?;
    let keep = reply.store.then(|| Keep { store: state.responses.clone(), owner, history, items });
    let output = Output::new(reply, tools, plan.top_logprobs.is_some());
    if plan.stream {
        let plan = StreamPlan { choices: 1, count: plan.count(), keepalive: state.settings.keepalive };
        return Ok(sse::respond(
            ResponseEvents { output, keep, numbering: Numbering::default() },
            answers,
            plan,
        ));
    }
    whole(output, keep, answers, plan.count()).await
}

/// Refuses what is not acted on here.
pub(super) fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(
        object,
        &[
            ("background", off),
            ("context", never),
            ("conversation", never),
            ("prompt", never),
            ("context_management", empty),
            ("moderation", never),
            ("truncation", |value| *value == "disabled"),
            ("stream_options", |value| value["include_obfuscation"] != true),
            ("n", |value| *value == 1),
        ],
    )?;
    refuse_foreign(object)?;
    refuse_misnamed(
        object,
        &[
            ("messages", "input"),
            ("inputs", "input"),
            ("system", "instructions"),
            ("max_tokens", "max_output_tokens"),
            ("max_completion_tokens", "max_output_tokens"),
            ("stop_sequences", "stop"),
            ("response_format", "text.format"),
            ("output_format", "text.format"),
            ("output_config", "text.format"),
            ("verbosity", "text.verbosity"),
            ("reasoning_effort", "reasoning.effort"),
            ("thinking", "reasoning.effort"),
            ("enable_thinking", "reasoning.effort"),
            ("think", "reasoning.effort"),
        ],
    )?;
    refuse(object, &[("logprobs", off)])?;
    within(object, "temperature", 0.0, 2.0)
}

/// An error with the field that holds the prompt here.
pub(super) fn of_input(error: ApiError) -> ApiError {
    match error {
        ApiError::Template(error) => ApiError::field("input", error.to_string()),
        ApiError::TooLong(long) => ApiError::TooLong(TooLong { param: "input", ..long }),
        other => other,
    }
}

/// What a request says.
pub(super) struct Said {
    pub conversation: Conversation,
    /// What it goes on from.
    history: History,
    /// What is new in it.
    items: Vec<Item>,
    /// Older items had images, which are only named.
    images: bool,
}

/// The conversation that a request goes on with.
pub(super) fn said(
    state: &ApiState,
    owner: Tenant,
    asked: ResponseFields,
    tools: &mut Tools,
) -> Result<Said, ApiError> {
    let history = history(&state.responses, owner, asked.previous_response_id.as_deref())?;
    let variables = variables(&asked);
    let mut items = input::resolved(input::items(asked.input)?, |id| state.responses.item(owner, id))?;
    let older = items.split_last_mut().map_or(&mut [][..], |(_, older)| older);
    let mut images = false;
    for item in older {
        images |= item.name_images();
    }
    let mut messages: Vec<Message> =
        asked.instructions.map(|text| Message::text(Role::System, text)).into_iter().collect();
    let mut known: Vec<Item> = history.iter().flat_map(|turn| turn.items.clone()).collect();
    for item in &mut known {
        images |= item.name_images();
    }
    messages.extend(input::messages("previous_response_id", &known)?);
    messages.extend(input::messages("input", &items)?);
    let functions = std::mem::take(&mut tools.functions);
    let tools = functions.into_iter().map(in_order).collect();
    let conversation = Conversation { messages, tools, variables, add_generation_prompt: true };
    Ok(Said { conversation, history, items, images })
}

fn check(asked: &ResponseFields) -> Result<(), ApiError> {
    if let Some(most) = asked.max_output_tokens.filter(|most| *most < 1) {
        let message = format!("max_output_tokens is {most}; expected at least 1");
        return Err(ApiError::field("max_output_tokens", message));
    }
    let metadata = asked.metadata.iter().flatten();
    for (key, value) in metadata.clone() {
        if key.chars().count() > LONGEST_METADATA_KEY || value.chars().count() > LONGEST_METADATA_VALUE {
            let message = format!(
                "metadata.{key} is too long; expected at most {LONGEST_METADATA_KEY} characters of key and \
                 {LONGEST_METADATA_VALUE} of value"
            );
            return Err(ApiError::field("metadata", message));
        }
    }
    let count = metadata.count();
    if count > MOST_METADATA {
        return Err(ApiError::field(
            "metadata",
            format!("metadata has {count} keys; expected at most {MOST_METADATA}"),
        ));
    }
    Ok(())
}

fn plan(mut options: Options, asked: &ResponseFields, state: &ApiState) -> Result<Plan, ApiError> {
    // The field's name here.
    (options.max_tokens, options.max_completion_tokens) = (asked.max_output_tokens, None);
    let include = asked.include.iter().flatten();
    let told = include.into_iter().any(|what| what == "message.output_text.logprobs");
    let logprobs =
        (told || asked.top_logprobs.is_some_and(|count| count > 0)).then(|| asked.top_logprobs.unwrap_or(0));
    Plan::new(options, &state.model, &state.settings)?.with_logprobs(logprobs, "top_logprobs")
}

/// What templates of models that can think, or be brief, look at.
fn variables(asked: &ResponseFields) -> Map<String, Value> {
    let effort = asked.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    let mut variables = request::variables(asked.chat_template_kwargs.clone(), effort);
    if let Some(verbosity) = asked.text.as_ref().and_then(|text| text.verbosity.as_deref()) {
        variables.entry("verbosity").or_insert(verbosity.into());
    }
    variables
}

fn history(store: &ResponseStore, owner: Tenant, previous: Option<&str>) -> Result<History, ApiError> {
    let Some(id) = previous else { return Ok(Vec::new()) };
    let unknown = || ApiError::UnknownResponse { id: id.to_owned(), param: Some("previous_response_id") };
    store.history(owner, id).ok_or_else(unknown)
}

fn reply(asked: &ResponseFields, plan: &Plan, model: String, tools: &Tools) -> ResponseReply {
    let mut text = asked.text.clone().unwrap_or_default();
    text.format.get_or_insert_with(|| json!({"type": "text"}));
    ResponseReply {
        id: random_id("resp_"),
        object: "response",
        created_at: now(),
        completed_at: None,
        status: Status::InProgress,
        error: None,
        incomplete_details: None,
        instructions: asked.instructions.clone(),
        max_output_tokens: asked.max_output_tokens,
        max_tool_calls: asked.max_tool_calls,
        model,
        output: Vec::new(),
        parallel_tool_calls: asked.parallel_tool_calls.unwrap_or(true),
        presence_penalty: plan.sampling.presence_penalty,
        frequency_penalty: plan.sampling.frequency_penalty,
        previous_response_id: asked.previous_response_id.clone(),
        reasoning: Reasoning { summary: None, ..asked.reasoning.clone().unwrap_or_default() },
        store: asked.store.unwrap_or(true),
        service_tier: "default",
        temperature: plan.sampling.temperature,
        text,
        tool_choice: asked.tool_choice.clone().unwrap_or_else(|| "auto".into()),
        tools: tools.told.clone(),
        top_logprobs: plan.top_logprobs.unwrap_or(0),
        top_p: plan.sampling.top_p,
        truncation: "disabled",
        usage: None,
        user: asked.user.clone(),
        safety_identifier: asked.safety_identifier.clone(),
        prompt_cache_key: asked.prompt_cache_key.clone(),
        metadata: asked.metadata.clone().unwrap_or_default(),
        background: false,
    }
}

/// Where a response is kept, and what it goes on from.
struct Keep {
    store: Arc<ResponseStore>,
    owner: Tenant,
    history: History,
    items: Vec<Item>,
}

impl Keep {
    fn put(self, reply: &ResponseReply) {
        let Self { store, owner, history, mut items } = self;
        items.extend(reply.output.iter().map(Item::from));
        match serde_json::to_vec(reply) {
            Ok(json) => store.put(owner, &reply.id, Bytes::from(json), history, items),
            Err(error) => tracing::error!(%error, "a response could not be written"),
        }
    }
}

async fn whole(
    mut output: Output,
    keep: Option<Keep>,
    mut answers: Answers,
    mut count: UsageCount,
) -> Result<HttpResponse, ApiError> {
    while let Some((index, piece)) = answers.next().await {
        count.note(index, &piece);
        if let Piece::Failed(failure) = piece {
            return Err(failure.into());
        }
        output.take(piece);
    }
    output.end(&count);
    let mut response = HttpResponse::Ok();
    count.headers(&mut response);
    let response = json_response(&mut response, output.reply());
    if let Some(keep) = keep {
        keep.put(output.reply());
    }
    Ok(response)
}

/// A response as a stream.
struct ResponseEvents {
    output: Output,
    keep: Option<Keep>,
    numbering: Numbering,
}

impl Shape for ResponseEvents {
    fn opening(&mut self, _: usize, out: &mut Frames) {
        for event in self.output.opening() {
            self.numbering.write(event, out);
        }
    }

    fn piece(&mut self, _: usize, piece: Piece, out: &mut Frames) {
        for event in self.output.take(piece) {
            self.numbering.write(event, out);
        }
    }

    fn end(&mut self, count: &UsageCount, out: &mut Frames) {
        for event in self.output.end(count) {
            self.numbering.write(event, out);
        }
        // Before the client can know that it ended: then it may go on from it.
        if let Some(keep) = self.keep.take() {
            keep.put(self.output.reply());
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        let event = self.output.failed(error);
        self.numbering.write(event, out);
    }
}
