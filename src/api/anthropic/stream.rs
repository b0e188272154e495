//! A message as a stream of events.
//!
//! `message_start` comes when the prompt is computed, because it tells what of it was cached. Where that takes longer than a
//! moment it comes before, and counts the whole prompt as new; `message_delta` tells the final numbers either way. Silence is
//! filled with pings. Blocks never overlap.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::error::{self, AnthropicErrorObject};
use super::reply::{BlockReply, MessageReply, StopReason, Usage, input, no_input};
use crate::api::error::ApiError;
use crate::api::generation::{EndReason, Piece};
use crate::api::sse::{Frames, Shape};
use crate::api::usage::{Detail, UsageCount};
use crate::prompt::CallPart;
use crate::scheduler::PromptUsage;

/// How long clients wait for `message_start` at most.
const MOMENT: Duration = Duration::from_millis(250);

/// The events of one message.
pub struct MessageEvents {
    model: String,
    marked: bool,
    prompt_tokens: usize,
    began: bool,
    /// Blocks begun so far.
    blocks: usize,
    /// What the last of them is, while more of it may come.
    open: Option<Open>,
    end: Option<(EndReason, Option<String>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    Call {
        /// Something of its arguments was told.
        told: bool,
    },
}

/// An event of a message. Its name on the wire is its `type`.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageEvent {
    /// The prompt is computed.
    MessageStart { message: MessageReply },
    /// A block begins, empty.
    ContentBlockStart { index: usize, content_block: BlockReply },
    /// A block goes on.
    ContentBlockDelta { index: usize, delta: BlockDelta },
    /// A block is whole.
    ContentBlockStop { index: usize },
    /// How the message ended and what it cost.
    MessageDelta { delta: MessageEnd, usage: Usage },
    /// The message is whole.
    MessageStop,
    /// Nothing came for a while.
    Ping,
    /// The message failed.
    Error { error: AnthropicErrorObject },
}

impl MessageEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::Error { .. } => "error",
        }
    }

    fn write(&self, out: &mut Frames) {
        out.event(self.name(), self);
    }
}

/// What is added to a block.
// The names are Anthropic's.
#[allow(clippy::enum_variant_names)]
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta {
    /// To a text.
    TextDelta { text: String },
    /// To a thought.
    ThinkingDelta { thinking: String },
    /// To a call's arguments.
    InputJsonDelta { partial_json: String },
}

/// How a message ended.
#[derive(Serialize, ToSchema)]
pub struct MessageEnd {
    stop_reason: StopReason,
    stop_sequence: Option<String>,
}

impl MessageEvents {
    /// For an answer of `model` to so many tokens; `marked` as [`Usage::new`] has it.
    pub fn new(model: String, marked: bool, prompt_tokens: usize) -> Self {
        Self { model, marked, prompt_tokens, began: false, blocks: 0, open: None, end: None }
    }

    fn start(&mut self, usage: PromptUsage, out: &mut Frames) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        let mut count = UsageCount::new(1, Detail::Brief);
        count.note(0, &Piece::Started(usage));
        let message = MessageReply::new(self.model.clone(), Usage::new(&count, self.marked));
        MessageEvent::MessageStart { message }.write(out);
        MessageEvent::Ping.write(out);
    }

    /// Goes on with a block of that kind, or begins one.
    fn within(&mut self, kind: Open, empty: impl FnOnce() -> BlockReply, out: &mut Frames) {
        if self.open != Some(kind) {
            self.stop_block(out);
            self.start_block(kind, empty(), out);
        }
    }

    fn start_block(&mut self, kind: Open, block: BlockReply, out: &mut Frames) {
        MessageEvent::ContentBlockStart { index: self.blocks, content_block: block }.write(out);
        self.blocks += 1;
        self.open = Some(kind);
    }

    fn delta(&self, delta: BlockDelta, out: &mut Frames) {
        MessageEvent::ContentBlockDelta { index: self.blocks.saturating_sub(1), delta }.write(out);
    }

    fn stop_block(&mut self, out: &mut Frames) {
        if self.open.take().is_some() {
            MessageEvent::ContentBlockStop { index: self.blocks.saturating_sub(1) }.write(out);
        }
    }
}

impl Shape for MessageEvents {
    fn opening(&mut self, _: usize, _: &mut Frames) {}

    fn piece(&mut self, _: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Started(usage) => self.start(usage, out),
            Piece::Thought(thinking) => {
                self.within(Open::Thinking, || BlockReply::thinking(String::new()), out);
                self.delta(BlockDelta::ThinkingDelta { thinking }, out);
            }
            Piece::Text(text, _) => {
                self.within(Open::Text, || BlockReply::Text { text: String::new() }, out);
                self.delta(BlockDelta::TextDelta { text }, out);
            }
            Piece::Call(_, CallPart::Begin(name)) => {
                self.stop_block(out);
                self.start_block(Open::Call { told: false }, BlockReply::call(name, no_input()), out);
            }
            Piece::Call(_, CallPart::Arguments(more)) => {
                // What is no object comes at once.
                let begins = self.open == Some(Open::Call { told: false });
                let more =
                    if begins && !more.starts_with('{') { input(&more).get().to_owned() } else { more };
                self.open = Some(Open::Call { told: true });
                self.delta(BlockDelta::InputJsonDelta { partial_json: more }, out);
            }
            Piece::Call(_, CallPart::End) => self.stop_block(out),
            Piece::End { reason, stop, .. } => self.end = Some((reason, stop)),
            Piece::Failed(_) => {}
        }
    }

    fn end(&mut self, count: &UsageCount, out: &mut Frames) {
        self.stop_block(out);
        let (reason, stop) = self.end.take().unwrap_or((EndReason::Stop, None));
        let delta = MessageEnd { stop_reason: StopReason::new(reason, stop.as_ref()), stop_sequence: stop };
        MessageEvent::MessageDelta { delta, usage: Usage::new(count, self.marked) }.write(out);
        MessageEvent::MessageStop.write(out);
    }

    fn failed(&mut self, failure: &ApiError, out: &mut Frames) {
        MessageEvent::Error { error: error::body(failure).error }.write(out);
    }

    fn keepalive(&mut self, out: &mut Frames) {
        if self.began {
            MessageEvent::Ping.write(out);
        } else {
            self.start(PromptUsage { prompt_tokens: self.prompt_tokens, ..PromptUsage::default() }, out);
        }
    }

    fn silence(&self, usual: Option<Duration>) -> Option<Duration> {
        if self.began { usual } else { Some(usual.map_or(MOMENT, |usual| usual.min(MOMENT))) }
    }
}
