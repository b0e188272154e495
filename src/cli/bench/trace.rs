//! A recorded trace, as `benches/TRACE.md` defines it: requests as lengths and block hashes, or as whole messages.
//!
//! A hash stands for a block of 512 tokens, as in the Mooncake traces: equal hashes become equal text, so requests share
//! the prefixes that the recorded ones shared.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plan::{Ask, Pace, Round};
use super::scenario::Planner;

/// Tokens of the block that one hash stands for.
const BLOCK: u64 = 512;

/// Arrivals later than this are no arrivals, and would not fit a clock.
const CENTURY_S: f64 = 3.2e9;

/// Recorded requests, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    requests: Vec<Recorded>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    /// Arrival, milliseconds after the trace's begin.
    timestamp: Option<f64>,
    /// Tokens of the prompt.
    input_length: Option<u64>,
    /// Tokens of the answer.
    output_length: Option<u64>,
    /// One per block of the prompt.
    #[serde(default)]
    hash_ids: Vec<u64>,
    /// The prompt itself.
    #[serde(default)]
    messages: Vec<Value>,
    /// Its tools.
    #[serde(default)]
    tools: Vec<Value>,
}

impl Trace {
    /// Reads a file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the trace {} could not be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("the trace {}", path.display()))
    }

    /// Reads one request a line.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut requests = Vec::<Recorded>::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let request: Recorded = serde_json::from_str(line).with_context(|| format!("line {}", at + 1))?;
            request.check(requests.last()).with_context(|| format!("line {}", at + 1))?;
            requests.push(request);
        }
        anyhow::ensure!(!requests.is_empty(), "no request in it");
        Ok(Self { requests })
    }

    /// What the plot's axis shows, and the round.
    pub fn rounds(&self, planner: &Planner<'_>) -> (&'static str, Vec<Round>) {
        let workload = planner.workload;
        let count = workload.trace_requests.map_or(usize::MAX, |count| count as usize);
        let timed = self.requests[0].timestamp.is_some();
        let asks = self.requests.iter().take(count).enumerate().map(|(at, request)| {
            let seconds = (request.timestamp.unwrap_or(0.0) / 1e3 / workload.trace_speed).min(CENTURY_S);
            let answer = request.output_length.map_or(u64::from(workload.max_tokens), |tokens| {
                ((tokens as f64 * workload.trace_lengths).round() as u64).max(1)
            });
            Ask {
                messages: request.messages(planner),
                tools: request.tools.clone(),
                max_tokens: answer,
                due: Duration::from_secs_f64(seconds),
                row: "requests".into(),
                series: "requests".into(),
                x: if timed { seconds } else { at as f64 + 1.0 },
                ..Ask::default()
            }
        });
        let pace = if timed { Pace::Schedule } else { Pace::Clients(usize::from(workload.clients)) };
        let round = Round { restart: false, pace, asks: asks.collect() };
        (if timed { "arrival, seconds" } else { "request, in order" }, vec![round])
    }
}

impl Recorded {
    fn check(&self, before: Option<&Self>) -> anyhow::Result<()> {
        match (self.input_length, self.messages.is_empty()) {
            (None, true) => {
                anyhow::bail!("neither messages nor input_length; expected one of them");
            }
            (Some(_), false) => {
                anyhow::bail!("messages and input_length; expected one of them");
            }
            (None, false) => anyhow::ensure!(self.hash_ids.is_empty(), "hash_ids without input_length"),
            (Some(length), true) => {
                let (found, expected) = (self.hash_ids.len() as u64, length.div_ceil(BLOCK));
                anyhow::ensure!(length > 0, "input_length is 0; expected at least 1");
                anyhow::ensure!(
                    found == expected,
                    "{found} hash_ids; expected {expected}, one per {BLOCK} tokens of input_length {length}"
                );
                anyhow::ensure!(self.tools.is_empty(), "tools without messages");
            }
        }
        if let Some(timestamp) = self.timestamp {
            let fits = (0.0..CENTURY_S * 1e3).contains(&timestamp);
            anyhow::ensure!(fits, "timestamp is {timestamp}; expected milliseconds from 0");
        }
        let Some(before) = before else { return Ok(()) };
        match (before.timestamp, self.timestamp) {
            (Some(before), Some(own)) if own < before => {
                anyhow::bail!("timestamp {own} after {before}; expected the order of arrival");
            }
            (Some(_), None) | (None, Some(_)) => {
                anyhow::bail!("some lines have a timestamp and some have none; expected all or none");
            }
            _ => Ok(()),
        }
    }

    fn messages(&self, planner: &Planner<'_>) -> Vec<Value> {
        let Some(length) = self.input_length else { return self.messages.clone() };
        let blocks = self.hash_ids.iter().enumerate().map(|(at, hash)| {
            let tokens = BLOCK.min(length - at as u64 * BLOCK) as f64 * planner.workload.trace_lengths;
            // Written whole and then cut, so that a block's beginning is the same however much of it is used.
            let whole = planner.words(BLOCK as f64 * planner.workload.trace_lengths);
            let text = planner.writer(&format!("trace block {hash}")).words(whole);
            text.split_inclusive(' ').take(planner.words(tokens)).collect::<String>()
        });
        vec![json!({"role": "user", "content": blocks.collect::<Vec<_>>().join(" ")})]
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
