//! One streamed answer, put together from its chunks, and when they came.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// One streamed answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The text, all deltas together.
    pub text: String,
    /// What a thinking model said before it.
    pub reasoning: String,
    /// Tool calls as the deltas describe them.
    pub tool_calls: Vec<ToolCall>,
    /// `stop`, `length`, `tool_calls`; empty when the server named none.
    pub finish_reason: String,
    /// From the request to the first text or tool call; to the end when there was none.
    pub ttft: Duration,
    /// From one delta with text or a tool call to the next.
    pub gaps: Vec<Duration>,
    /// From the request to the end.
    pub total: Duration,
    /// What the server counted.
    pub usage: Usage,
}

/// Tokens as the server counted them; `None`: it did not say.
// The names are OpenAI's.
#[allow(clippy::struct_field_names)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
}

/// One call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// More calls than this in one answer are no answer.
const MAX_CALLS: usize = 1024;

impl Answer {
    /// Adds one chunk. True when it brought text or a part of a tool call.
    pub fn take(&mut self, chunk: &Value) -> bool {
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            self.usage = Usage {
                prompt_tokens: usage["prompt_tokens"].as_u64(),
                cached_tokens: usage["prompt_tokens_details"]["cached_tokens"].as_u64(),
                completion_tokens: usage["completion_tokens"].as_u64(),
            };
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut self.finish_reason);
        }
        let delta = &choice["delta"];
        let text = delta["content"].as_str().unwrap_or_default();
        self.text.push_str(text);
        // Two names are in use for the same thing.
        let reasoning = delta["reasoning_content"].as_str().or_else(|| delta["reasoning"].as_str());
        let reasoning = reasoning.unwrap_or_default();
        self.reasoning.push_str(reasoning);
        let calls = delta["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        for delta in calls {
            let index = (delta["index"].as_u64().unwrap_or(0) as usize).min(MAX_CALLS);
            while self.tool_calls.len() <= index {
                self.tool_calls.push(ToolCall::default());
            }
            let call = &mut self.tool_calls[index];
            call.id.push_str(delta["id"].as_str().unwrap_or_default());
            call.name.push_str(delta["function"]["name"].as_str().unwrap_or_default());
            call.arguments.push_str(delta["function"]["arguments"].as_str().unwrap_or_default());
        }
        !text.is_empty() || !reasoning.is_empty() || !calls.is_empty()
    }

    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.tool_calls.is_empty()
    }

    /// Milliseconds per token after the first, by the server's count or else by deltas; `None`: there is one at most.
    pub fn per_token_ms(&self) -> Option<f64> {
        let deltas = self.gaps.len() as u64;
        let further = self.usage.completion_tokens.map_or(deltas, |tokens| tokens.saturating_sub(1));
        let took = self.total.saturating_sub(self.ttft).as_secs_f64() * 1e3;
        (further > 0 && !self.is_empty()).then(|| took / further as f64)
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
