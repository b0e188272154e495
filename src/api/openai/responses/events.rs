//! The events of a streamed response. A name on the wire is the event's `type`; numbers count from 0.

use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{OutputItem, OutputPart, ResponseReply};
use crate::api::openai::reply::ChatToken;
use crate::api::sse::Frames;

/// An event.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
#[schema(as = ResponseEvent)]
pub enum Event {
    #[serde(rename = "response.created")]
    Created { response: Box<ResponseReply> },
    #[serde(rename = "response.in_progress")]
    InProgress { response: Box<ResponseReply> },
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: OutputItem },
    #[serde(rename = "response.content_part.added")]
    PartAdded { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        item_id: String,
        output_index: usize,
        content_index: usize,
        delta: String,
        logprobs: Vec<ChatToken>,
    },
    #[serde(rename = "response.output_text.done")]
    TextDone {
        item_id: String,
        output_index: usize,
        content_index: usize,
        text: String,
        logprobs: Vec<ChatToken>,
    },
    #[serde(rename = "response.reasoning_text.delta")]
    ThoughtDelta { item_id: String, output_index: usize, content_index: usize, delta: String },
    #[serde(rename = "response.reasoning_text.done")]
    ThoughtDone { item_id: String, output_index: usize, content_index: usize, text: String },
    #[serde(rename = "response.content_part.done")]
    PartDone { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { item_id: String, output_index: usize, name: String, arguments: String },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: OutputItem },
    #[serde(rename = "response.completed")]
    Completed { response: Box<ResponseReply> },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Box<ResponseReply> },
    #[serde(rename = "response.failed")]
    Failed { response: Box<ResponseReply> },
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::ThoughtDelta { .. } => "response.reasoning_text.delta",
            Self::ThoughtDone { .. } => "response.reasoning_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
        }
    }
}

/// An event with its number.
#[derive(Serialize, ToSchema)]
#[schema(as = NumberedResponseEvent)]
pub struct Numbered {
    #[serde(flatten)]
    event: Event,
    sequence_number: usize,
}

/// Writes events with their numbers.
#[derive(Default)]
pub struct Numbering(usize);

impl Numbering {
    /// Writes the next event.
    pub fn write(&mut self, event: Event, out: &mut Frames) {
        let name = event.name();
        out.event(name, &Numbered { event, sequence_number: self.0 });
        self.0 += 1;
    }
}
