//! How large the scenarios are: what the command line says about prompts, answers, clients and arrivals.

use std::path::PathBuf;

use clap::value_parser;
use serde::Serialize;

/// The settings of every scenario.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize)]
pub struct Workload {
    /// Seed of prompts and arrival times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Context lengths of `sweep`, in tokens
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "512,2048",
          value_parser = value_parser!(u32).range(32..))]
    pub contexts: Vec<u32>,
    /// Context length of the other scenarios, in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = value_parser!(u32).range(32..))]
    pub context: u32,
    /// Length of answers at most, in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// How often each scenario is played, with new prompts each time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Requests that run at the same time, in `agents`, `chat`, `phases`, `mixed` and traces without timestamps
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub clients: u16,
    /// Agents of `agents` and `phases`
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(2..=256))]
    pub agents: u16,
    /// Turns of `chat`, phases of `phases`, rounds of `mixed`
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(2..))]
    pub turns: u16,
    /// Requests of a wave of `staggered` and of a round of `mixed`
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = value_parser!(u16).range(3..))]
    pub requests: u16,
    /// Mean time between arrivals of `staggered`, in milliseconds (exponentially distributed)
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub gap_ms: u32,
    /// File that `trace` replays: one JSON object a line, see benches/TRACE.md
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Replay only the first N requests of the trace
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub trace_requests: Option<u32>,
    /// Replay the trace's arrivals this many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    pub trace_speed: f64,
    /// Multiply the trace's input and output lengths by this
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    pub trace_lengths: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if number > 0.0 && number <= 1e6 {
        Ok(number)
    } else {
        Err(format!("{number} is not in 0 < x <= 1000000"))
    }
}
