//! One measured request.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Ask;
use crate::cli::client::{Answer, ClientError};

/// What one request did.
#[derive(Clone, Debug)]
pub struct Record {
    /// The scenario.
    pub scenario: &'static str,
    /// Which server, in the order of the command line.
    pub server: usize,
    /// Its place in the plan: the same request to another server has the same.
    pub place: usize,
    /// The table's row.
    pub row: String,
    /// The plot's series, and where in it.
    pub series: String,
    /// Where on the plot's horizontal axis.
    pub x: f64,
    /// The answer's length at most.
    pub max_tokens: u64,
    /// After the run's begin.
    pub began: Duration,
    /// After it was due.
    pub late: Duration,
    /// From the request to the end, whatever the end was.
    pub took: Duration,
    /// What came of it.
    pub outcome: Result<Answer, Failure>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it is counted under.
    pub kind: String,
    /// The whole story.
    pub text: String,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

impl Failure {
    /// A turn whose conversation broke before.
    pub fn after_failure() -> Self {
        let text = "a turn before it failed, so it was not sent".to_owned();
        Self { kind: "after a failed turn".into(), text }
    }
}

impl Record {
    /// A record of `ask` with nothing measured yet.
    pub fn new(scenario: &'static str, server: usize, place: usize, ask: &Ask, failure: Failure) -> Self {
        Self {
            scenario,
            server,
            place,
            row: ask.row.clone(),
            series: ask.series.clone(),
            x: ask.x,
            max_tokens: ask.max_tokens,
            began: Duration::ZERO,
            late: Duration::ZERO,
            took: Duration::ZERO,
            outcome: Err(failure),
        }
    }

    /// The answer has nothing in it.
    pub fn is_empty(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Answer::is_empty)
    }

    /// The answer ended before it was as long as it might be.
    pub fn is_early(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|answer| match answer.usage.completion_tokens {
            Some(tokens) => tokens < self.max_tokens,
            None => answer.finish_reason != "length",
        })
    }

    /// Everything that was measured.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "scenario": self.scenario, "server": self.server, "place": self.place, "row": self.row,
            "series": self.series, "x": self.x, "began_ms": ms(self.began), "late_ms": ms(self.late),
            "total_ms": ms(self.took),
        });
        match &self.outcome {
            Ok(answer) => {
                value["ttft_ms"] = json!(ms(answer.ttft));
                value["inter_token_ms"] = answer.gaps.iter().copied().map(ms).collect();
                value["prompt_tokens"] = json!(answer.usage.prompt_tokens);
                value["cached_tokens"] = json!(answer.usage.cached_tokens);
                value["output_tokens"] = json!(answer.usage.completion_tokens);
                value["finish_reason"] = json!(answer.finish_reason);
                value["text"] = json!(answer.text);
            }
            Err(failure) => value["error"] = json!({"kind": failure.kind, "text": failure.text}),
        }
        value
    }
}

/// What a failure says, on one line: of an error object in it the message alone.
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let message = text.find('{').and_then(|at| {
        let body: Value = serde_json::from_str(&text[at..]).ok()?;
        let message = body["error"]["message"].as_str().or(body["message"].as_str())?;
        Some(format!("{}{message}", &text[..at]))
    });
    let text = message.unwrap_or_else(|| text.to_owned());
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = words.chars().take(LONGEST).collect();
    if cut.len() < words.len() { cut + "…" } else { cut }
}

/// Milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_failure_is_one_short_line() {
        let body = r#"the server answered 429: {"error": {"message": "too many\nrequests", "code": 1}}"#;
        assert_eq!(one_line(body), "the server answered 429: too many requests");
        assert_eq!(one_line("no connection:\n  refused"), "no connection: refused");
        assert_eq!(one_line(&"x ".repeat(500)).chars().count(), 201);
    }
}
