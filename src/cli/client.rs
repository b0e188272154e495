//! A blocking client of the chat endpoint, as `demo` and `eval` need it: one request, streamed, timed.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Talks to one server.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

/// One streamed answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The text, all deltas together.
    pub text: String,
    /// Tool calls as the deltas describe them.
    pub tool_calls: Vec<ToolCall>,
    /// `stop`, `length`, `tool_calls`.
    pub finish_reason: String,
    /// From the request to the first text or tool call.
    pub ttft: Duration,
    /// From the request to the end.
    pub total: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

/// One call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

impl Client {
    /// A client of the server at `url` (`http://host:port`).
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.new_agent(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Sends `body` to `/v1/chat/completions` as a stream and reads it to its end.
    ///
    /// # Errors
    /// The transport's error, the server's error object, or a stream that ends without `[DONE]`.
    pub fn chat(&self, mut body: Value) -> anyhow::Result<Answer> {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let began = Instant::now();
        let response = self
            .agent
            .post(format!("{}/v1/chat/completions", self.url))
            .header("content-type", "application/json")
            .send(body.to_string())?;
        let status = response.status();
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        if !status.is_success() {
            let text: String = lines.map_while(Result::ok).collect();
            anyhow::bail!("the server answered {status}: {text}");
        }
        let mut answer = Answer::default();
        let mut first = None;
        loop {
            let line = lines.next().ok_or_else(|| anyhow::anyhow!("the stream ended without [DONE]"))??;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                break;
            }
            let chunk: Value = serde_json::from_str(data)?;
            if let Some(error) = chunk.get("error") {
                anyhow::bail!("the stream failed: {error}");
            }
            if answer.take(&chunk) {
                first.get_or_insert_with(|| began.elapsed());
            }
        }
        answer.total = began.elapsed();
        answer.ttft = first.unwrap_or(answer.total);
        Ok(answer)
    }
}

impl Answer {
    /// Adds one chunk. True when it brought text or a part of a tool call.
    fn take(&mut self, chunk: &Value) -> bool {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            self.prompt_tokens = number(&usage["prompt_tokens"]);
            self.completion_tokens = number(&usage["completion_tokens"]);
            self.cached_tokens = number(&usage["prompt_tokens_details"]["cached_tokens"]);
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut self.finish_reason);
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        self.text.push_str(text);
        let calls = choice["delta"]["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        for delta in calls {
            let index = number(&delta["index"]) as usize;
            while self.tool_calls.len() <= index {
                self.tool_calls.push(ToolCall::default());
            }
            let call = &mut self.tool_calls[index];
            call.id.push_str(delta["id"].as_str().unwrap_or_default());
            call.name.push_str(delta["function"]["name"].as_str().unwrap_or_default());
            call.arguments.push_str(delta["function"]["arguments"].as_str().unwrap_or_default());
        }
        !text.is_empty() || !calls.is_empty()
    }

    /// The answer as the history's next message.
    pub fn message(&self) -> Value {
        let calls: Vec<Value> = self
            .tool_calls
            .iter()
            .map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            })
            .collect();
        if calls.is_empty() {
            json!({"role": "assistant", "content": self.text})
        } else {
            let content = if self.text.is_empty() { Value::Null } else { json!(self.text) };
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
    }
}
