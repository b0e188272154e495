//! From a sequence's events to pieces of an answer: text, tool calls, log probabilities, the end.
//!
//! 1. Streamed and whole answers are made of the same pieces, so their texts are equal.
//! 2. A stop string, like everything that makes further tokens pointless, drops the stream: the row is free at the
//!    next step.
//! 3. An answer ends by [`Piece::End`] or [`Piece::Failed`], once.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prefixd_cache::Tenant;
use prefixd_engine::TokenChoice;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::ServedModel;
use super::metrics::Durations;
use crate::prompt::{
    CallCount, CallEnd, CallPart, Detokenizer, Held, StopFilter, Stopped, ThoughtFilter, ThoughtStart,
    TokenIndex, Told, ToolCallFormat, ToolText,
};
use crate::scheduler::{Event, Failure, FinishReason, PromptUsage, Stream};

/// What an answer is made of.
#[derive(Debug)]
pub enum Piece {
    /// The prompt is computed.
    Started(PromptUsage),
    /// What the model thinks before it answers.
    Thought(String),
    /// Text, and the tokens that are wholly told by now.
    Text(String, Vec<TokenLogprob>),
    /// A part of the call with that index. One without an end was cut off.
    Call(usize, CallPart),
    /// The end, and the tokens that no text told.
    End {
        /// Why.
        reason: EndReason,
        /// The stop string that ended it.
        stop: Option<String>,
        /// Tokens generated.
        completion_tokens: usize,
        /// Those of them that were thought.
        thought_tokens: usize,
        /// Tokens not told yet.
        logprobs: Vec<TokenLogprob>,
    },
    /// The end.
    Failed(Failure),
}

/// Why an answer ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// A stop token or a stop string.
    Stop,
    /// The token limit, or a call that was cut off.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// A token with its log probability and its rivals.
#[derive(Clone, Debug)]
pub struct TokenLogprob {
    /// The chosen token.
    pub chosen: Scored,
    /// The most probable tokens.
    pub top: Vec<Scored>,
    /// Characters of the answer before it.
    pub at_chars: usize,
    /// Bytes of the answer before it.
    at_bytes: usize,
}

/// A token, spelled out.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Its text; half characters are replaced, hidden tokens are named.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability, at least -9999 (JSON knows no infinity).
    pub logprob: f32,
}

/// How the text of an answer is treated.
#[derive(Clone, Debug, Default)]
pub struct AnswerOptions {
    /// Strings that end the answer.
    pub stops: Vec<String>,
    /// Tokens before a stop string counts.
    pub min_tokens: usize,
    /// Whether the answer begins with a thought.
    pub thought: ThoughtStart,
    /// The tools whose calls are looked for, names and schemas.
    pub tools: Vec<(String, Value)>,
    /// How many of them; the first ends the answer where there may be only one.
    pub calls: CallCount,
    /// Where a grammar makes calls of what begins as one.
    pub calls_are: Held,
    /// The answer goes on with the prompt's text instead of beginning its own.
    pub continues: bool,
}

/// Where an answer's own tokens are remembered when it has come to its end.
pub struct Record {
    pub token_index: TokenIndex,
    pub tenant: Tenant,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
}

/// One answer in the making. Dropping it cancels its sequence.
pub struct Answer {
    index: usize,
    model: Arc<ServedModel>,
    /// `None` once the answer has ended.
    events: Option<Stream>,
    detokenizer: Detokenizer,
    stop: StopFilter,
    stops: Vec<String>,
    /// Index of the stop string that came.
    stopped_by: Option<usize>,
    min_tokens: usize,
    thoughts: ThoughtFilter,
    thought_tokens: usize,
    /// A thought came, and no text after it yet.
    after_thought: bool,
    tools: Option<Box<dyn ToolCallFormat>>,
    /// Calls that are whole.
    calls: usize,
    /// The answer ended within a call.
    cut: bool,
    most_calls: CallCount,
    tokens: usize,
    durations: Arc<Durations>,
    /// When the last token came, or the answer began.
    last: Instant,
    /// Text decoded so far, and how much of it was let through.
    decoded: Extent,
    shown_bytes: usize,
    untold: VecDeque<TokenLogprob>,
    pieces: VecDeque<Piece>,
    /// The answer's tokens, and where they are remembered.
    record: Option<(Record, Vec<u32>)>,
}

#[derive(Clone, Copy, Default)]
struct Extent {
    bytes: usize,
    chars: usize,
}

impl Answer {
    /// The answer number `index` of its request.
    pub fn new(
        index: usize,
        model: Arc<ServedModel>,
        durations: Arc<Durations>,
        events: Stream,
        options: &AnswerOptions,
    ) -> Self {
        let tokenizer = &model.text.tokenizer;
        let detokenizer = if options.continues { tokenizer.continuation() } else { tokenizer.detokenizer() };
        let tools = (!options.tools.is_empty())
            .then(|| model.text.tool_syntax.reader(&options.tools, options.calls_are));
        Self {
            index,
            events: Some(events),
            detokenizer,
            stop: StopFilter::new(options.stops.clone()),
            stops: options.stops.clone(),
            stopped_by: None,
            min_tokens: options.min_tokens,
            thoughts: ThoughtFilter::new(options.thought),
            thought_tokens: 0,
            after_thought: false,
            tools,
            calls: 0,
            cut: false,
            most_calls: options.calls,
            tokens: 0,
            durations,
            last: Instant::now(),
            decoded: Extent::default(),
            shown_bytes: 0,
            untold: VecDeque::new(),
            pieces: VecDeque::new(),
            record: None,
            model,
        }
    }

    /// Remembers the answer's tokens at its end.
    pub fn remember(&mut self, record: Record) {
        self.record = Some((record, Vec::new()));
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            let event = self.events.as_mut()?.next().await?;
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started(usage) => {
                self.durations.note_prompt(&usage);
                self.pieces.push_back(Piece::Started(usage));
            }
            Event::Token(choice) => {
                self.tokens += 1;
                self.note_time();
                self.note_logprob(&choice);
                if let Some((_, tokens)) = &mut self.record {
                    tokens.push(choice.id);
                }
                let text = self.detokenizer.push(choice.id);
                let thinking = self.thoughts.inside();
                let stopped = self.decode(&text);
                let called = self.called_enough();
                if thinking || self.thoughts.inside() {
                    self.thought_tokens += 1;
                }
                if called && !stopped {
                    // The call is all of the answer, though no token has ended it.
                    self.record_end(FinishReason::Length, None);
                }
                if called || stopped {
                    self.end(EndReason::Stop, self.tokens);
                }
            }
            Event::Finished(finish) => {
                self.record_end(finish.reason, finish.stop_token);
                let rest = self.detokenizer.finish();
                let stopped = self.decode(&rest);
                if !stopped {
                    let held = self.stop.finish();
                    self.show(&held);
                    // Hidden tokens and held characters have no text of their own that could come.
                    self.shown_bytes = usize::MAX;
                }
                let length = finish.reason == FinishReason::Length && !stopped;
                self.end(if length { EndReason::Length } else { EndReason::Stop }, finish.completion_tokens);
            }
            Event::Failed(failure) => {
                self.events = None;
                self.pieces.push_back(Piece::Failed(failure));
            }
        }
    }

    /// Remembers an answer that came to its end, or to its length: then the next prompt ends it with a token of its own.
    fn record_end(&mut self, reason: FinishReason, stop_token: Option<u32>) {
        let Some((record, tokens)) = self.record.take() else { return };
        let text = &self.model.text;
        let possible: &[u32] = if reason == FinishReason::Length { &text.stop_tokens } else { &[] };
        for stop in stop_token.iter().chain(possible) {
            let answer = [&tokens[..], &[*stop]].concat();
            record.token_index.note(&text.tokenizer, &record.tenant, &record.prompt, &answer);
        }
    }

    fn note_time(&mut self) {
        let now = Instant::now();
        let after = now.duration_since(std::mem::replace(&mut self.last, now));
        if self.tokens == 1 {
            self.durations.note_first_token(after);
        } else {
            self.durations.note_token(after);
        }
    }

    /// True when a stop string came.
    fn decode(&mut self, text: &str) -> bool {
        self.decoded.bytes += text.len();
        self.decoded.chars += text.chars().count();
        if self.tokens < self.min_tokens {
            self.show(text);
            return false;
        }
        match self.stop.push(text) {
            Stopped::No(text) => {
                self.show(&text);
                false
            }
            Stopped::Yes { text, by } => {
                self.show(&text);
                self.stopped_by = Some(by);
                true
            }
        }
    }

    fn show(&mut self, text: &str) {
        self.shown_bytes += text.len();
        self.after_thought |= self.thoughts.inside();
        let told = self.thoughts.push(text);
        self.tell(told);
    }

    fn tell(&mut self, told: Vec<Told>) {
        for part in told {
            match part {
                Told::Text(text) => {
                    if std::mem::take(&mut self.after_thought) {
                        // Log probabilities are those of the answer alone.
                        let start = self.shown_bytes.saturating_sub(text.len());
                        self.untold.retain(|token| token.at_bytes >= start);
                    }
                    self.say(&text);
                }
                Told::Thought(text) => {
                    self.after_thought = true;
                    self.pieces.push_back(Piece::Thought(text));
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.tools {
            Some(tools) => {
                let found = tools.push(text);
                self.emit(found);
            }
            None if text.is_empty() => {}
            None => self.emit(vec![ToolText::Text(text.to_owned())]),
        }
    }

    fn emit(&mut self, found: Vec<ToolText>) {
        for item in found {
            let piece = match item {
                ToolText::Text(text) => Piece::Text(text, self.told()),
                ToolText::Call(part) => {
                    let index = self.calls;
                    self.calls += usize::from(part == CallPart::End);
                    Piece::Call(index, part)
                }
                ToolText::Cut => {
                    self.cut = true;
                    return;
                }
            };
            self.pieces.push_back(piece);
            if self.called_enough() {
                return;
            }
        }
    }

    fn end(&mut self, reason: EndReason, completion_tokens: usize) {
        self.events = None;
        let rest = self.thoughts.finish();
        self.tell(rest);
        let stop = self.stopped_by.and_then(|by| self.stops.get(by).cloned());
        let enough = self.called_enough();
        if let Some(tools) = self.tools.as_mut().filter(|_| !enough) {
            let end = match &stop {
                Some(stop) => CallEnd::Stop(stop),
                None if reason == EndReason::Length => CallEnd::Length,
                None => CallEnd::Model,
            };
            let rest = tools.finish(end);
            self.emit(rest);
        }
        let (reason, stop) = match reason {
            _ if self.cut => (EndReason::Length, None),
            EndReason::Stop if self.calls > 0 => (EndReason::ToolCalls, stop),
            reason => (reason, stop),
        };
        let logprobs = self.told();
        let thought_tokens = self.thought_tokens;
        self.pieces.push_back(Piece::End { reason, stop, completion_tokens, thought_tokens, logprobs });
    }

    /// No further call is wanted.
    fn called_enough(&self) -> bool {
        self.most_calls == CallCount::One && self.calls > 0
    }

    fn note_logprob(&mut self, choice: &TokenChoice) {
        let Some(logprob) = choice.logprob else { return };
        let chosen = self.score(choice.id, logprob);
        let top = choice.top.iter().map(|(id, logprob)| self.score(*id, *logprob)).collect();
        let Extent { bytes: at_bytes, chars: at_chars } = self.decoded;
        self.untold.push_back(TokenLogprob { chosen, top, at_chars, at_bytes });
    }

    /// Tokens whose text was let through, at least in part.
    fn told(&mut self) -> Vec<TokenLogprob> {
        let count = self.untold.iter().take_while(|token| token.at_bytes < self.shown_bytes).count();
        self.untold.drain(..count).collect()
    }

    fn score(&self, id: u32, logprob: f32) -> Scored {
        let tokenizer = &self.model.text.tokenizer;
        let bytes = tokenizer.token_bytes(id).to_vec();
        let text = if bytes.is_empty() {
            tokenizer.token_name(id).unwrap_or_default()
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Scored { text, bytes, logprob: logprob.max(-9999.0) }
    }
}

type Step = Pin<Box<dyn Future<Output = (Answer, Option<Piece>)>>>;

/// The answers of one request, as they come.
#[derive(Default)]
pub struct Answers {
    running: FuturesUnordered<Step>,
}

impl Answers {
    /// Adds one.
    pub fn push(&self, answer: Answer) {
        self.running.push(Box::pin(step(answer)));
    }

    /// The next piece of any answer, with the answer's index; `None` when all have ended. May be abandoned and asked
    /// again: nothing is lost.
    pub async fn next(&mut self) -> Option<(usize, Piece)> {
        loop {
            let (answer, piece) = self.running.next().await?;
            if let Some(piece) = piece {
                let index = answer.index;
                self.push(answer);
                return Some((index, piece));
            }
        }
    }
}

async fn step(mut answer: Answer) -> (Answer, Option<Piece>) {
    let piece = answer.next().await;
    (answer, piece)
}
