//! Server-sent events: the frames, their order, and comments against silence.
//!
//! Order on the wire: one opening chunk per choice at once, the pieces as they come, the usage when asked for, `[DONE]`.
//! After a failure: an error object, and nothing more.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::error::ApiError;
use super::generation::{Answers, Piece};
use super::openai::UsageCount;

const DONE: &[u8] = b"data: [DONE]\n\n";
const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// How pieces look on one endpoint.
pub trait Shape {
    /// What is sent for each choice before anything is known.
    fn opening(&self, index: usize) -> Option<Frame>;

    /// A piece of a choice.
    fn piece(&self, index: usize, piece: Piece) -> Option<Frame>;

    /// The usage, after all choices.
    fn usage(&self, count: &UsageCount) -> Frame;
}

/// One event's bytes.
pub struct Frame(Vec<u8>);

impl Frame {
    /// `data: {...}` and an empty line.
    pub fn data(value: &impl Serialize) -> Self {
        let mut bytes = b"data: ".to_vec();
        // Replies are plain structs of text and numbers, and writing to memory does not fail.
        if let Err(error) = serde_json::to_writer(&mut bytes, value) {
            tracing::error!(%error, "a chunk could not be written");
        }
        bytes.extend(b"\n\n");
        Self(bytes)
    }
}

/// What a stream needs to know besides its answers.
pub struct StreamPlan {
    /// Choices of the request.
    pub choices: usize,
    /// Choices per prompt.
    pub per_prompt: usize,
    /// A usage chunk is wanted.
    pub include_usage: bool,
    /// Silence before a comment.
    pub keepalive: Option<Duration>,
}

struct Writer<S> {
    shape: S,
    answers: Answers,
    plan: StreamPlan,
    count: UsageCount,
    out: Vec<u8>,
    ended: bool,
}

/// Streams the answers. Dropping the response (the client left) drops them.
pub fn respond<S: Shape + 'static>(shape: S, answers: Answers, plan: StreamPlan) -> HttpResponse {
    let mut out = Vec::new();
    for Frame(bytes) in (0..plan.choices).filter_map(|index| shape.opening(index)) {
        out.extend(bytes);
    }
    let count = UsageCount::new(plan.per_prompt);
    let writer = Writer { shape, answers, plan, count, out, ended: false };
    let frames = stream::unfold(writer, |mut writer| async move {
        writer.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), writer))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        // Proxies that buffer would turn a stream into one late answer.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames)
}

impl<S: Shape> Writer<S> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() {
            if self.ended {
                return None;
            }
            let next = self.answers.next();
            let next = match self.plan.keepalive {
                None => next.await,
                Some(silence) => match tokio::time::timeout(silence, next).await {
                    Ok(next) => next,
                    Err(_) => return Some(Bytes::from_static(KEEPALIVE)),
                },
            };
            self.take(next);
        }
        Some(std::mem::take(&mut self.out).into())
    }

    fn take(&mut self, next: Option<(usize, Piece)>) {
        match next {
            Some((_, Piece::Failed(failure))) => {
                // The other choices are dropped, and with them cancelled.
                self.answers = Answers::default();
                self.ended = true;
                self.frame(Frame::data(&ApiError::Failed(failure).body()));
            }
            Some((index, piece)) => {
                self.count.note(index, &piece);
                if let Some(frame) = self.shape.piece(index, piece) {
                    self.frame(frame);
                }
            }
            None => {
                self.ended = true;
                if self.plan.include_usage {
                    self.frame(self.shape.usage(&self.count));
                }
                self.out.extend(DONE);
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        self.out.extend(frame.0);
    }
}
