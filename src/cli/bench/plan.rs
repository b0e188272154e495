//! What a scenario asks, decided before the first request: the same seed, salt and settings give the same plan.
//!
//! A plan is a list of rounds, one after the other. A conversation asks at most once in a round, so that what a request
//! needs, the answer before it, is there when the round begins.

use std::time::Duration;

use serde_json::Value;

/// All requests of one scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: &'static str,
    /// What the plot's horizontal axis shows, with its unit.
    pub axis: &'static str,
    /// One after the other.
    pub rounds: Vec<Round>,
}

/// Requests that run together.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// A new server process begins it.
    pub restart: bool,
    /// When each begins.
    pub pace: Pace,
    /// The requests, in the order they begin.
    pub asks: Vec<Ask>,
}

/// When the requests of a round begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as fewer than this many run.
    Clients(usize),
    /// Each when it is due, whatever still runs.
    Schedule,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// The conversation it goes on with; `None`: it stands alone.
    pub conversation: Option<usize>,
    /// Messages after those of the conversation so far.
    pub messages: Vec<Value>,
    /// Tools as the API takes them.
    pub tools: Vec<Value>,
    /// The answer's length at most.
    pub max_tokens: u64,
    /// After the round's begin, where the pace is a schedule.
    pub due: Duration,
    /// The table's row that it counts in.
    pub row: String,
    /// The plot's series that it is a point of.
    pub series: String,
    /// Where on the plot's horizontal axis.
    pub x: f64,
}

impl Plan {
    /// Number of requests to one server.
    pub fn len(&self) -> usize {
        self.rounds.iter().map(|round| round.asks.len()).sum()
    }
}

impl Round {
    /// Requests of which `clients` run together.
    pub fn closed(clients: usize, asks: Vec<Ask>) -> Self {
        Self { restart: false, pace: Pace::Clients(clients), asks }
    }

    /// The round in parts that two servers can play in turns: as many requests as run together. A schedule stays whole.
    pub fn parts(&self) -> Vec<&[Ask]> {
        match self.pace {
            Pace::Clients(clients) => self.asks.chunks(clients.max(1)).collect(),
            Pace::Schedule => vec![&self.asks],
        }
    }
}
