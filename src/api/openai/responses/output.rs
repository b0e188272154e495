//! A response in the making: pieces in, its items and their events out.
//!
//! Items never overlap. A thought is one reasoning item and a text one message item, each with one part; a call is one item. A
//! call that was cut off is an incomplete item of the stream, and none of the response.

use std::time::{SystemTime, UNIX_EPOCH};

use super::events::Event;
use super::reply::{
    IncompleteDetails, OutputItem, OutputPart, ResponseError, ResponseReply, ResponseUsage, Status,
};
use super::tools::Tools;
use crate::api::error::ApiError;
use crate::api::generation::{EndReason, Piece};
use crate::api::openai::reply::{ChatLogprobs, ChatToken};
use crate::api::usage::UsageCount;
use crate::prompt::CallPart;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Thought,
    Text,
    Call,
}

/// The response so far.
pub struct Output {
    reply: ResponseReply,
    tools: Tools,
    logprobs: bool,
    /// What the last item is, while more of it may come.
    open: Option<Open>,
    end: EndReason,
}

impl Output {
    /// Nothing is said yet. `reply` has no output.
    pub fn new(reply: ResponseReply, tools: Tools, logprobs: bool) -> Self {
        Self { reply, tools, logprobs, open: None, end: EndReason::Stop }
    }

    /// The response.
    pub fn reply(&self) -> &ResponseReply {
        &self.reply
    }

    /// What is told before anything is known.
    pub fn opening(&self) -> [Event; 2] {
        let response = || Box::new(self.reply.clone());
        [Event::Created { response: response() }, Event::InProgress { response: response() }]
    }

    /// Takes a piece; never a failure.
    pub fn take(&mut self, piece: Piece) -> Vec<Event> {
        let mut events = Vec::new();
        match piece {
            Piece::Started(_) | Piece::Failed(_) => {}
            Piece::Thought(text) => self.add(Open::Thought, &text, Vec::new(), &mut events),
            Piece::Text(text, tokens) => {
                self.add(Open::Text, &text, ChatLogprobs::new(tokens).content, &mut events);
            }
            Piece::Call(_, CallPart::Begin(known)) => {
                self.close(Status::Completed, &mut events);
                let (space, name) = self.tools.of(&known);
                self.begin(OutputItem::call(space, name), &mut events);
                self.open = Some(Open::Call);
            }
            Piece::Call(_, CallPart::Arguments(delta)) => self.add_arguments(delta, &mut events),
            Piece::Call(_, CallPart::End) => self.close(Status::Completed, &mut events),
            Piece::End { reason, logprobs, .. } => {
                self.end = reason;
                let logprobs = ChatLogprobs::new(logprobs).content;
                if self.open == Some(Open::Text) && !logprobs.is_empty() {
                    self.add(Open::Text, "", logprobs, &mut events);
                }
            }
        }
        events
    }

    /// The end, after all went well.
    pub fn end(&mut self, count: &UsageCount) -> Vec<Event> {
        let mut events = Vec::new();
        let cut = self.end == EndReason::Length;
        let status = if cut { Status::Incomplete } else { Status::Completed };
        let call_was_cut = self.open == Some(Open::Call);
        self.close(status, &mut events);
        if call_was_cut {
            self.reply.output.pop();
        }
        self.reply.status = status;
        self.reply.completed_at = (!cut).then(now);
        self.reply.incomplete_details = cut.then_some(IncompleteDetails { reason: "max_output_tokens" });
        self.reply.usage = Some(ResponseUsage::from(count));
        let response = Box::new(self.reply.clone());
        events.push(if cut { Event::Incomplete { response } } else { Event::Completed { response } });
        events
    }

    /// The end, when it did not.
    pub fn failed(&mut self, error: &ApiError) -> Event {
        self.reply.status = Status::Failed;
        self.reply.error = Some(ResponseError { code: "server_error", message: error.to_string() });
        Event::Failed { response: Box::new(self.reply.clone()) }
    }

    fn begin(&mut self, item: OutputItem, events: &mut Vec<Event>) {
        events.push(Event::ItemAdded { output_index: self.reply.output.len(), item: item.clone() });
        self.reply.output.push(item);
    }

    /// Adds to the item of that kind, or begins one.
    fn add(&mut self, kind: Open, more: &str, tokens: Vec<ChatToken>, events: &mut Vec<Event>) {
        if self.open != Some(kind) {
            self.close(Status::Completed, events);
            let (item, part) = match kind {
                Open::Thought => (OutputItem::reasoning(), OutputPart::thought()),
                Open::Text | Open::Call => (OutputItem::message(), OutputPart::text()),
            };
            self.open = Some(kind);
            let (item_id, output_index) = (item.id().to_owned(), self.reply.output.len());
            self.begin(item, events);
            events.push(Event::PartAdded { item_id, output_index, content_index: 0, part: part.clone() });
            if let Some((_, content)) = self.last_parts() {
                content.push(part);
            }
        }
        let output_index = self.reply.output.len() - 1;
        let told = if self.logprobs { tokens } else { Vec::new() };
        let Some((item_id, content)) = self.last_parts() else { return };
        for part in content {
            let (item_id, content_index, delta) = (item_id.clone(), 0, more.to_owned());
            events.push(match part {
                OutputPart::OutputText { text, logprobs, .. } => {
                    text.push_str(more);
                    logprobs.extend(told.iter().cloned());
                    let logprobs = told.clone();
                    Event::TextDelta { item_id, output_index, content_index, delta, logprobs }
                }
                OutputPart::ReasoningText { text } => {
                    text.push_str(more);
                    Event::ThoughtDelta { item_id, output_index, content_index, delta }
                }
            });
        }
    }

    /// Name and parts of the last item.
    fn last_parts(&mut self) -> Option<(String, &mut Vec<OutputPart>)> {
        match self.reply.output.last_mut()? {
            OutputItem::Message { id, content, .. } | OutputItem::Reasoning { id, content, .. } => {
                Some((id.clone(), content))
            }
            OutputItem::FunctionCall { .. } => None,
        }
    }

    fn close(&mut self, status: Status, events: &mut Vec<Event>) {
        if self.open.take().is_none() {
            return;
        }
        let output_index = self.reply.output.len() - 1;
        if let Some((item_id, content)) = self.last_parts() {
            for (content_index, part) in content.iter().cloned().enumerate() {
                let id = item_id.clone();
                events.push(match part.clone() {
                    OutputPart::OutputText { text, logprobs, .. } => {
                        Event::TextDone { item_id: id, output_index, content_index, text, logprobs }
                    }
                    OutputPart::ReasoningText { text } => {
                        Event::ThoughtDone { item_id: id, output_index, content_index, text }
                    }
                });
                let item_id = item_id.clone();
                events.push(Event::PartDone { item_id, output_index, content_index, part });
            }
        }
        let Some(item) = self.reply.output.last_mut() else { return };
        if let (OutputItem::FunctionCall { id, name, arguments, .. }, Status::Completed) = (&*item, status) {
            let (item_id, name, arguments) = (id.clone(), name.clone(), arguments.clone());
            events.push(Event::ArgumentsDone { item_id, output_index, name, arguments });
        }
        *item.status_mut() = status;
        events.push(Event::ItemDone { output_index, item: item.clone() });
    }

    fn add_arguments(&mut self, delta: String, events: &mut Vec<Event>) {
        let output_index = self.reply.output.len().saturating_sub(1);
        if let Some(OutputItem::FunctionCall { id, arguments, .. }) = self.reply.output.last_mut() {
            arguments.push_str(&delta);
            events.push(Event::ArgumentsDelta { item_id: id.clone(), output_index, delta });
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
