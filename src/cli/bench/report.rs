//! A run as it is kept: what was asked of whom, the rows, the pairs, and every single request.

use serde::Serialize;
use serde_json::{Value, json};

use super::compare::Pair;
use super::record::Record;
use super::runner::Runner;
use super::stats::Row;
use super::workload::Workload;

/// Changes when a field changes its meaning.
const FORMAT: u32 = 1;

/// Everything that a run found.
pub struct Report<'a> {
    /// The settings.
    pub workload: &'a Workload,
    /// What made the prompts new: with it the same run can be made again.
    pub salt: &'a str,
    /// Of the servers' vocabulary, as counted.
    pub tokens_per_word: f64,
    /// RFC 3339.
    pub started: &'a str,
    /// What was played.
    pub runner: &'a Runner,
    /// The table's rows.
    pub rows: &'a [Row],
    /// Two servers side by side; empty with one.
    pub pairs: &'a [Pair],
    /// Ctrl-C ended it.
    pub interrupted: bool,
}

#[derive(Serialize)]
struct Server<'a> {
    name: &'a str,
    url: &'a str,
    model: Option<&'a str>,
    ignore_eos: bool,
}

impl Report<'_> {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let servers = self.runner.targets.iter().map(|target| Server {
            name: &target.name,
            url: &target.url,
            model: target.model.as_deref(),
            ignore_eos: target.ignore_eos,
        });
        json!({
            "format": FORMAT,
            "prefixd": env!("CARGO_PKG_VERSION"),
            "started": self.started,
            "interrupted": self.interrupted,
            "unfinished": self.runner.unfinished,
            "servers": servers.collect::<Vec<_>>(),
            "workload": self.workload,
            "salt": self.salt,
            "tokens_per_word": self.tokens_per_word,
            "rows": self.rows,
            "pairs": self.pairs,
            "requests": self.runner.records.iter().map(Record::to_json).collect::<Vec<_>>(),
        })
    }
}
