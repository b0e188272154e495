//! A blocking client of the chat endpoint of any OpenAI-compatible server: one request, streamed, timed, limited in time.

mod answer;
mod error;
mod sse;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use answer::Answer;
#[cfg(test)]
pub use answer::{ToolCall, Usage};
pub use error::ClientError;
use sse::SseDecoder;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Talks to one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    api_key: Option<String>,
}

/// What a client is given besides an address.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// What a request may take, from its connection to the end of its answer.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    /// No key; an hour, which a long prompt may take on a slow machine.
    fn default() -> Self {
        Self { api_key: None, timeout: Duration::from_hours(1) }
    }
}

impl Client {
    /// A client of the server at `url` (`http://host:port`, with or without `/v1`).
    pub fn new(url: &str, options: ClientOptions) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(options.timeout))
            .build();
        let url = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        Self { agent: config.new_agent(), url, api_key: options.api_key }
    }

    /// Ids of the models that the server names.
    pub fn models(&self) -> Result<Vec<String>, ClientError> {
        let mut request = self.agent.get(format!("{}/v1/models", self.url));
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.call()?;
        let text = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            return Err(ClientError::Status { status: response.status().as_u16(), text });
        }
        let body: Value = serde_json::from_str(&text)
            .map_err(|error| ClientError::Malformed(format!("/v1/models is not JSON: {error}")))?;
        let ids = body["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Sends `body` to `/v1/chat/completions` as a stream and reads it to its end.
    ///
    /// # Errors
    /// The transport's error, the server's error object, or a stream that ends without `[DONE]`.
    pub fn chat(&self, mut body: Value) -> Result<Answer, ClientError> {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let body = body.to_string();
        let mut request = self
            .agent
            .post(format!("{}/v1/chat/completions", self.url))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream");
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let began = Instant::now();
        let response = request.send(body)?;
        let status = response.status();
        if !status.is_success() {
            let text = response.into_body().read_to_string().unwrap_or_else(|error| error.to_string());
            return Err(ClientError::Status { status: status.as_u16(), text });
        }
        read(response.into_body().into_reader(), began)
    }
}

/// Reads a stream up to `[DONE]`.
fn read(mut stream: impl Read, began: Instant) -> Result<Answer, ClientError> {
    let mut decoder = SseDecoder::default();
    let mut reading = Reading { began, answer: Answer::default(), last: None };
    let mut buffer = [0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer)?;
        let now = Instant::now();
        for event in decoder.feed(&buffer[..count]) {
            if reading.take(&event, now)? {
                return Ok(reading.finish(now));
            }
        }
        if count == 0 {
            let last = decoder.finish().map(|event| reading.take(&event, now)).transpose()?;
            return if last == Some(true) { Ok(reading.finish(now)) } else { Err(ClientError::Cut) };
        }
    }
}

/// An answer that is not whole yet.
struct Reading {
    began: Instant,
    answer: Answer,
    /// When the last delta came.
    last: Option<Instant>,
}

impl Reading {
    /// Adds one event. True when it was the end.
    fn take(&mut self, event: &[u8], now: Instant) -> Result<bool, ClientError> {
        if event.trim_ascii() == b"[DONE]" {
            return Ok(true);
        }
        let chunk: Value = serde_json::from_slice(event).map_err(|error| {
            let shown: String = String::from_utf8_lossy(event).chars().take(80).collect();
            ClientError::Malformed(format!("an event is not JSON: {error}: {shown}"))
        })?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(ClientError::Stream(error.to_string()));
        }
        if self.answer.take(&chunk) {
            match self.last.replace(now) {
                None => self.answer.ttft = now - self.began,
                Some(last) => self.answer.gaps.push(now - last),
            }
        }
        Ok(false)
    }

    fn finish(mut self, now: Instant) -> Answer {
        self.answer.total = now - self.began;
        if self.last.is_none() {
            self.answer.ttft = self.answer.total;
        }
        self.answer
    }
}
