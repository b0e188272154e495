//! Server-sent events: frames, their order, and what is said against silence.
//!
//! Order on the wire: what the shape opens with, at once; the pieces as they come; the shape's end. After a failure: an
//! error object, and nothing more.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::error::ApiError;
use super::generation::{Answers, Piece};
use super::usage::UsageCount;

/// How pieces look on one endpoint.
pub trait Shape {
    /// What is sent for each choice before anything is known.
    fn opening(&mut self, index: usize, out: &mut Frames);

    /// A piece of a choice; never a failure.
    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames);

    /// The end, after all choices went well.
    fn end(&mut self, count: &UsageCount, out: &mut Frames);

    /// The end, when one did not.
    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        out.data(&error.body());
    }

    /// What is sent into a silence.
    fn keepalive(&mut self, out: &mut Frames) {
        out.comment("keepalive");
    }

    /// The silence that is long enough; `usual` is the configured one, if any.
    fn silence(&self, usual: Option<Duration>) -> Option<Duration> {
        usual
    }
}

/// Events as bytes.
#[derive(Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// `data: {...}` and an empty line.
    pub fn data(&mut self, value: &impl Serialize) {
        self.0.extend(b"data: ");
        // Replies are plain structs of text and numbers, and writing to memory does not fail.
        if let Err(error) = serde_json::to_writer(&mut self.0, value) {
            tracing::error!(%error, "a chunk could not be written");
        }
        self.0.extend(b"\n\n");
    }

    /// An event with a name.
    pub fn event(&mut self, name: &str, value: &impl Serialize) {
        self.0.extend(b"event: ");
        self.0.extend(name.as_bytes());
        self.0.push(b'\n');
        self.data(value);
    }

    /// A line that clients skip.
    pub fn comment(&mut self, text: &str) {
        self.0.extend(b": ");
        self.0.extend(text.as_bytes());
        self.0.extend(b"\n\n");
    }

    /// How OpenAI's streams end.
    pub fn done(&mut self) {
        self.0.extend(b"data: [DONE]\n\n");
    }
}

/// What a stream needs to know besides its answers.
pub struct StreamPlan {
    /// Choices of the request.
    pub choices: usize,
    /// Adds up the usage.
    pub count: UsageCount,
    /// Silence before [`Shape::keepalive`].
    pub keepalive: Option<Duration>,
}

struct Writer<S> {
    shape: S,
    answers: Answers,
    keepalive: Option<Duration>,
    count: UsageCount,
    out: Frames,
    ended: bool,
}

/// Streams the answers. Dropping the response (the client left) drops them.
pub fn respond<S: Shape + 'static>(mut shape: S, answers: Answers, plan: StreamPlan) -> HttpResponse {
    let mut out = Frames::default();
    let StreamPlan { choices, count, keepalive } = plan;
    for index in 0..choices {
        shape.opening(index, &mut out);
    }
    let mut response = HttpResponse::Ok();
    count.warn(&mut response);
    let writer = Writer { shape, answers, keepalive, count, out, ended: false };
    let frames = stream::unfold(writer, |mut writer| async move {
        writer.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), writer))
    });
    response
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        // Proxies that buffer would turn a stream into one late answer.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames)
}

impl<S: Shape> Writer<S> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.0.is_empty() {
            if self.ended {
                return None;
            }
            let next = self.answers.next();
            let next = match self.shape.silence(self.keepalive) {
                None => next.await,
                Some(silence) => {
                    if let Ok(next) = tokio::time::timeout(silence, next).await {
                        next
                    } else {
                        self.shape.keepalive(&mut self.out);
                        break;
                    }
                }
            };
            self.take(next);
        }
        Some(std::mem::take(&mut self.out.0).into())
    }

    fn take(&mut self, next: Option<(usize, Piece)>) {
        match next {
            Some((_, Piece::Failed(failure))) => {
                // The other choices are dropped, and with them cancelled.
                self.answers = Answers::default();
                self.ended = true;
                self.shape.failed(&ApiError::Failed(failure), &mut self.out);
            }
            Some((index, piece)) => {
                self.count.note(index, &piece);
                self.shape.piece(index, piece, &mut self.out);
            }
            None => {
                self.ended = true;
                self.shape.end(&self.count, &mut self.out);
            }
        }
    }
}
