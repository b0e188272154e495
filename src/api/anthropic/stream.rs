//! A message as a stream of events.
//!
//! `message_start` comes when the prompt is computed, because it tells what of it was cached; until then silence is filled
//! with comments, after that with pings. Blocks never overlap.

use serde::Serialize;
use serde_json::json;

use super::error;
use super::reply::{BlockReply, MessageReply, StopReason, Usage, input, no_input};
use crate::api::error::ApiError;
use crate::api::generation::{EndReason, Piece};
use crate::api::sse::{Frames, Shape};
use crate::api::usage::{Detail, UsageCount};

/// The events of one message.
pub struct MessageEvents {
    model: String,
    marked: bool,
    began: bool,
    /// Blocks begun so far; the last is open while `open`.
    blocks: usize,
    open: bool,
    end: Option<(EndReason, Option<String>)>,
}

#[derive(Serialize)]
struct Start<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a MessageReply,
}

#[derive(Serialize)]
struct BlockStart {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    content_block: BlockReply,
}

#[derive(Serialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    delta: Delta<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Delta<'a> {
    TextDelta { text: &'a str },
    InputJsonDelta { partial_json: &'a str },
}

impl MessageEvents {
    /// For an answer of `model`; `marked` as [`Usage::new`] has it.
    pub fn new(model: String, marked: bool) -> Self {
        Self { model, marked, began: false, blocks: 0, open: false, end: None }
    }

    fn start_block(&mut self, block: BlockReply, out: &mut Frames) {
        let start = BlockStart { kind: "content_block_start", index: self.blocks, content_block: block };
        out.event("content_block_start", &start);
        self.blocks += 1;
        self.open = true;
    }

    fn delta(&self, delta: Delta<'_>, out: &mut Frames) {
        let index = self.blocks.saturating_sub(1);
        out.event("content_block_delta", &BlockDelta { kind: "content_block_delta", index, delta });
    }

    fn stop_block(&mut self, out: &mut Frames) {
        if std::mem::take(&mut self.open) {
            let index = self.blocks.saturating_sub(1);
            out.event("content_block_stop", &json!({"type": "content_block_stop", "index": index}));
        }
    }
}

impl Shape for MessageEvents {
    fn opening(&mut self, _: usize, _: &mut Frames) {}

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Started(_) => {
                let mut count = UsageCount::new(1, Detail::Brief);
                count.note(index, &piece);
                let message = MessageReply::new(self.model.clone(), Usage::new(&count, self.marked));
                out.event("message_start", &Start { kind: "message_start", message: &message });
                self.began = true;
                self.keepalive(out);
            }
            Piece::Text(text, _) => {
                if !self.open {
                    self.start_block(BlockReply::Text { text: String::new() }, out);
                }
                self.delta(Delta::TextDelta { text: &text }, out);
            }
            Piece::Call(_, call) => {
                self.stop_block(out);
                let input = input(&call);
                self.start_block(BlockReply::call(call.name, no_input()), out);
                self.delta(Delta::InputJsonDelta { partial_json: input.get() }, out);
                self.stop_block(out);
            }
            Piece::End { reason, stop, .. } => self.end = Some((reason, stop)),
            Piece::Failed(_) => {}
        }
    }

    fn end(&mut self, count: &UsageCount, out: &mut Frames) {
        self.stop_block(out);
        let (reason, stop) = self.end.take().unwrap_or((EndReason::Stop, None));
        let delta = json!({"stop_reason": StopReason::new(reason, stop.as_ref()), "stop_sequence": stop});
        let usage = Usage::new(count, self.marked);
        out.event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage}));
        out.event("message_stop", &json!({"type": "message_stop"}));
    }

    fn failed(&mut self, failure: &ApiError, out: &mut Frames) {
        out.event("error", &error::body(failure));
    }

    fn keepalive(&self, out: &mut Frames) {
        if self.began {
            out.event("ping", &json!({"type": "ping"}));
        } else {
            out.comment("keepalive");
        }
    }
}
