//! A response in the making: pieces in, its items and their events out.
//!
//! Items never overlap. A text is one message item with one part; a call is one item, and its arguments come at once,
//! because a call is known to be one when it is whole.

use super::events::Event;
use super::reply::{
    IncompleteDetails, OutputItem, OutputPart, ResponseError, ResponseReply, ResponseUsage, Status,
};
use super::tools::Tools;
use crate::api::error::ApiError;
use crate::api::generation::{EndReason, Piece};
use crate::api::openai::reply::{ChatLogprobs, ChatToken};
use crate::api::usage::UsageCount;

/// The response so far.
pub struct Output {
    reply: ResponseReply,
    tools: Tools,
    logprobs: bool,
    /// The last item is a message that goes on.
    open: bool,
    end: EndReason,
}

impl Output {
    /// Nothing is said yet. `reply` has no output.
    pub fn new(reply: ResponseReply, tools: Tools, logprobs: bool) -> Self {
        Self { reply, tools, logprobs, open: false, end: EndReason::Stop }
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
            Piece::Text(text, tokens) => self.text(&text, ChatLogprobs::new(tokens).content, &mut events),
            Piece::Call(_, call) => {
                self.close(Status::Completed, &mut events);
                self.call(&call.name, call.arguments, &mut events);
            }
            Piece::End { reason, logprobs, .. } => {
                self.end = reason;
                let logprobs = ChatLogprobs::new(logprobs).content;
                if self.open && !logprobs.is_empty() {
                    self.text("", logprobs, &mut events);
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
        self.close(status, &mut events);
        self.reply.status = status;
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

    fn text(&mut self, more: &str, tokens: Vec<ChatToken>, events: &mut Vec<Event>) {
        if !self.open {
            self.open = true;
            self.begin(OutputItem::message(), events);
        }
        let output_index = self.reply.output.len() - 1;
        let Some(OutputItem::Message { id, content, .. }) = self.reply.output.last_mut() else { return };
        if content.is_empty() {
            let (item_id, part) = (id.clone(), OutputPart::empty());
            events.push(Event::PartAdded { item_id, output_index, content_index: 0, part: part.clone() });
            content.push(part);
        }
        let told = if self.logprobs { tokens } else { Vec::new() };
        for OutputPart::OutputText { text, logprobs, .. } in content {
            text.push_str(more);
            logprobs.extend(told.iter().cloned());
        }
        events.push(Event::TextDelta {
            item_id: id.clone(),
            output_index,
            content_index: 0,
            delta: more.to_owned(),
            logprobs: told,
        });
    }

    fn close(&mut self, as_status: Status, events: &mut Vec<Event>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let output_index = self.reply.output.len() - 1;
        let Some(item) = self.reply.output.last_mut() else { return };
        *item.status_mut() = as_status;
        if let OutputItem::Message { id, content, .. } = item {
            for (content_index, part) in content.iter().enumerate() {
                let OutputPart::OutputText { text, logprobs, .. } = part;
                let (item_id, text, logprobs) = (id.clone(), text.clone(), logprobs.clone());
                events.push(Event::TextDone { item_id, output_index, content_index, text, logprobs });
                let (item_id, part) = (id.clone(), part.clone());
                events.push(Event::PartDone { item_id, output_index, content_index, part });
            }
        }
        events.push(Event::ItemDone { output_index, item: item.clone() });
    }

    fn call(&mut self, known: &str, written: String, events: &mut Vec<Event>) {
        let (space, name) = self.tools.of(known);
        let mut item = OutputItem::call(space, name.clone());
        self.begin(item.clone(), events);
        let (item_id, output_index) = (item.id().to_owned(), self.reply.output.len() - 1);
        let (id, delta) = (item_id.clone(), written.clone());
        events.push(Event::ArgumentsDelta { item_id: id, output_index, delta });
        events.push(Event::ArgumentsDone { item_id, output_index, name, arguments: written.clone() });
        *item.status_mut() = Status::Completed;
        if let OutputItem::FunctionCall { arguments, .. } = &mut item {
            *arguments = written;
        }
        if let Some(last) = self.reply.output.last_mut() {
            *last = item.clone();
        }
        events.push(Event::ItemDone { output_index, item });
    }
}
