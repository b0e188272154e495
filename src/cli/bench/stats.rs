//! The requests of one table row on one server, counted and measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::record::{Record, ms};

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// Its name in it.
    #[serde(rename = "row")]
    pub name: String,
    /// Which server.
    pub server: usize,
    /// Requests made.
    pub requests: usize,
    /// Answers that came to their end.
    pub answered: usize,
    /// Of these, answers with nothing in them.
    pub empty: usize,
    /// Of these, answers shorter than they might be.
    pub early: usize,
    /// Failures by kind.
    pub errors: BTreeMap<String, usize>,
    /// Time to the first token.
    pub ttft_ms: Option<Quantiles>,
    /// Time between deltas that bring something.
    pub inter_token_ms: Option<Quantiles>,
    /// Time to the end.
    pub end_to_end_ms: Option<Quantiles>,
    /// Tokens of all prompts; `None`: the server does not say. The same below.
    pub prompt_tokens: Option<u64>,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: Option<u64>,
    /// Tokens of all answers.
    pub output_tokens: Option<u64>,
    /// Time in which at least one of the requests ran.
    pub busy_ms: f64,
    /// Tokens of all answers over that time.
    pub output_tokens_per_s: Option<f64>,
    /// How late a request was sent at most.
    pub late_ms: f64,
    /// BLAKE3 of the answers in the plan's order, failures included.
    pub digest: String,
}

/// A distribution in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Values in it.
    pub count: u64,
    /// Half are at most this.
    pub p50: f64,
    /// 95 of 100 are.
    pub p95: f64,
    /// 99 of 100 are.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
}

impl Quantiles {
    /// Of durations, to three digits; `None`: there are none.
    pub fn of(values: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new(3).ok()?;
        for value in values {
            // It grows as it needs to: nothing is lost.
            histogram.record(u64::try_from(value.as_micros()).unwrap_or(u64::MAX / 4)).ok()?;
        }
        let at = |share| histogram.value_at_quantile(share) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: histogram.max() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
        })
    }
}

/// The rows of `records`, in the order of plans, each row once per server.
pub fn rows(records: &[Record]) -> Vec<Row> {
    let mut classes = Vec::<(&'static str, &str, usize)>::new();
    let mut ordered: Vec<&Record> = records.iter().collect();
    ordered.sort_by_key(|record| (record.place, record.server));
    // Scenarios in the order played, which places alone do not tell.
    let mut scenarios = Vec::new();
    for record in records.iter().filter(|record| !record.scenario.is_empty()) {
        if !scenarios.contains(&record.scenario) {
            scenarios.push(record.scenario);
        }
    }
    for scenario in scenarios {
        for record in ordered.iter().filter(|record| record.scenario == scenario) {
            let class = (scenario, record.row.as_str(), record.server);
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
    }
    let of = |(scenario, row, server): (&'static str, &str, usize)| {
        let own = ordered.iter().copied();
        let own = own.filter(|record| {
            (record.scenario, record.row.as_str(), record.server) == (scenario, row, server)
        });
        Row::of(&own.collect::<Vec<_>>(), scenario, row, server)
    };
    classes.into_iter().map(of).collect()
}

impl Row {
    fn of(records: &[&Record], scenario: &'static str, row: &str, server: usize) -> Self {
        let answers = || records.iter().filter_map(|record| record.outcome.as_ref().ok());
        let mut errors = BTreeMap::new();
        for failure in records.iter().filter_map(|record| record.outcome.as_ref().err()) {
            *errors.entry(failure.kind.clone()).or_default() += 1;
        }
        let sum = |tokens: &mut dyn Iterator<Item = Option<u64>>| {
            tokens.flatten().fold(None, |sum, tokens| Some(sum.unwrap_or(0) + tokens))
        };
        let output_tokens = sum(&mut answers().map(|answer| answer.usage.completion_tokens));
        let busy = busy(records);
        Self {
            scenario,
            name: row.to_owned(),
            server,
            requests: records.len(),
            answered: answers().count(),
            empty: records.iter().filter(|record| record.is_empty()).count(),
            early: records.iter().filter(|record| record.is_early()).count(),
            errors,
            ttft_ms: Quantiles::of(answers().filter(|answer| !answer.is_empty()).map(|answer| answer.ttft)),
            inter_token_ms: Quantiles::of(answers().flat_map(|answer| answer.gaps.iter().copied())),
            end_to_end_ms: Quantiles::of(answers().map(|answer| answer.total)),
            prompt_tokens: sum(&mut answers().map(|answer| answer.usage.prompt_tokens)),
            cached_tokens: sum(&mut answers().map(|answer| answer.usage.cached_tokens)),
            output_tokens,
            busy_ms: ms(busy),
            output_tokens_per_s: output_tokens
                .filter(|_| !busy.is_zero())
                .map(|tokens| tokens as f64 / busy.as_secs_f64()),
            late_ms: ms(records.iter().map(|record| record.late).max().unwrap_or_default()),
            digest: digest(records),
        }
    }
}

/// Time in which at least one of `records` ran.
fn busy(records: &[&Record]) -> Duration {
    let mut spans: Vec<_> = records.iter().map(|record| (record.began, record.began + record.took)).collect();
    spans.sort_unstable();
    let (mut total, mut end) = (Duration::ZERO, Duration::ZERO);
    for (from, to) in spans {
        total += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    total
}

/// Of what was answered, in order: text, reasoning and calls with their lengths, or that there was no answer.
fn digest(records: &[&Record]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut take = |part: &str| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    for record in records {
        match &record.outcome {
            Ok(answer) => {
                take("answer");
                take(&answer.text);
                take(&answer.reasoning);
                for call in &answer.tool_calls {
                    // Ids are drawn at random.
                    take(&call.name);
                    take(&call.arguments);
                }
            }
            Err(_) => take("no answer"),
        }
    }
    hash.finalize().to_hex().to_string()
}

#[cfg(test)]
#[path = "stats_tests.rs"]
pub mod tests;
