//! Scripted conversations with known answers: what `eval` scores and `demo` asks. One JSON object a line; the
//! generator beside the embedded model writes them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Answer, Client};

/// A history and the turns to play after it.
#[derive(Clone, Debug, Deserialize)]
pub struct Conversation {
    /// Unique in its file.
    pub id: String,
    /// What it asks of a model: `fact`, `dense`, `chat`, ...
    pub task: String,
    /// Upper end of the prompt's length class in tokens.
    pub bucket: u64,
    /// Tools as the API takes them.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// Messages before the first turn.
    pub messages: Vec<Value>,
    /// What to ask, and what is right.
    pub turns: Vec<Turn>,
}

/// One turn.
#[derive(Clone, Debug, Deserialize)]
pub struct Turn {
    /// The question; `None` goes on after a tool's result.
    pub user: Option<String>,
    /// What is right.
    pub expect: Expect,
    /// The tool's result, when a call is expected.
    pub tool: Option<String>,
}

/// A right answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// This text, white space at its ends aside.
    Text(String),
    /// This call first; arguments compared as JSON.
    Call {
        /// The tool.
        name: String,
        /// Its arguments.
        arguments: Value,
    },
}

/// One turn as it went.
#[derive(Clone, Debug)]
pub struct Played {
    /// What came.
    pub answer: Answer,
    /// It was right.
    pub right: bool,
    /// It ended by itself and was not empty.
    pub ended: bool,
}

/// Answers longer than this count as not ended.
const MAX_ANSWER_TOKENS: u64 = 256;

impl Conversation {
    /// Reads one conversation a line.
    pub fn read_all(text: &str) -> anyhow::Result<Vec<Self>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(at, line)| {
                serde_json::from_str(line).map_err(|error| anyhow::anyhow!("line {}: {error}", at + 1))
            })
            .collect()
    }

    /// Plays every turn, greedy; the model's own answers become the history.
    pub fn play(&self, client: &Client) -> anyhow::Result<Vec<Played>> {
        let mut messages = self.messages.clone();
        let mut played = Vec::new();
        for turn in &self.turns {
            if let Some(user) = &turn.user {
                messages.push(json!({"role": "user", "content": user}));
            }
            let mut body = json!({"messages": messages, "temperature": 0, "max_tokens": MAX_ANSWER_TOKENS});
            if !self.tools.is_empty() {
                body["tools"] = json!(self.tools);
            }
            let answer = client.chat(body)?;
            messages.push(answer.message());
            if let (Some(result), Some(call)) = (&turn.tool, answer.tool_calls.first()) {
                messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": result}));
            }
            let right = turn.expect.accepts(&answer);
            let ended =
                answer.finish_reason != "length" && !(answer.text.is_empty() && answer.tool_calls.is_empty());
            let stuck = turn.tool.is_some() && answer.tool_calls.is_empty();
            played.push(Played { answer, right, ended });
            if stuck {
                // Without the call there is no result to go on with; the turns that needed it count as wrong.
                let lost = Played { answer: Answer::default(), right: false, ended: true };
                played.resize(self.turns.len(), lost);
                break;
            }
        }
        Ok(played)
    }
}

impl Expect {
    fn accepts(&self, answer: &Answer) -> bool {
        match self {
            Self::Text(text) => answer.tool_calls.is_empty() && answer.text.trim() == text.trim(),
            Self::Call { name, arguments } => answer.tool_calls.first().is_some_and(|call| {
                call.name == *name
                    && serde_json::from_str::<Value>(&call.arguments).is_ok_and(|found| found == *arguments)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ToolCall;
    use super::*;

    fn expect(text: &str) -> Expect {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_text_is_right_when_it_is_equal_but_for_the_space_around_it() {
        let answer = |text: &str| Answer { text: text.into(), ..Answer::default() };
        assert!(expect(r#"{"text":"BX-42."}"#).accepts(&answer(" BX-42.\n")));
        assert!(!expect(r#"{"text":"BX-42."}"#).accepts(&answer("BX-421.")));
    }

    #[test]
    fn a_call_is_right_when_name_and_arguments_are() {
        let call = |name: &str, arguments: &str| Answer {
            tool_calls: vec![ToolCall { id: "1".into(), name: name.into(), arguments: arguments.into() }],
            ..Answer::default()
        };
        let expected = expect(r#"{"call":{"name":"f","arguments":{"a":1,"b":"x"}}}"#);
        assert!(expected.accepts(&call("f", r#"{ "b": "x", "a": 1 }"#)));
        assert!(!expected.accepts(&call("g", r#"{"a":1,"b":"x"}"#)));
        assert!(!expected.accepts(&call("f", r#"{"a":2,"b":"x"}"#)));
        assert!(!expected.accepts(&call("f", "not JSON")));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Conversation::read_all("\n{\"id\": 3}\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2:"), "{error}");
    }
}
