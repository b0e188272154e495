//! The scenarios: who asks what, when.
//!
//! | scenario | what it asks |
//! |---|---|
//! | `sweep` | each context length cold, again (warm), and, where the server can be restarted, again after a restart |
//! | `staggered` | prompts of their own that arrive while others are computed and answered |
//! | `agents` | one agent, then others that share its long system prompt, then a second turn of all |
//! | `chat` | conversations turn by turn; the model's own answers become their history |
//! | `phases` | several agents with contexts of their own, in turns, phase after phase; a later phase extends an earlier one |
//! | `mixed` | new prompts, shared system prompts and chats, shuffled |

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::plan::{Ask, Pace, Plan, Round};
use super::text::Writer;
use super::trace::Trace;
use super::workload::Workload;

/// A scenario by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Context lengths cold, warm, and restored by a new process (a server of its own only)
    Sweep,
    /// Staggered arrivals of new prompts
    Staggered,
    /// Agents that share a long system prompt
    Agents,
    /// Conversations turn by turn
    Chat,
    /// Several agents with contexts of their own, in interleaved phases
    Phases,
    /// A recorded trace (--trace)
    Trace,
    /// New prompts, shared prompts and chats, shuffled
    Mixed,
}

/// Tokens of a question after a long context.
const QUESTION: u32 = 24;
/// Tokens of a chat's later turns.
const TURN: u32 = 48;

/// Makes plans.
pub struct Planner<'a> {
    /// How large they are.
    pub workload: &'a Workload,
    /// Makes the prompts new to every server.
    pub salt: &'a str,
    /// Of the servers' vocabulary.
    pub tokens_per_word: f64,
    /// The servers can be restarted.
    pub can_restart: bool,
    /// What `trace` replays.
    pub trace: Option<&'a Trace>,
}

impl Scenario {
    /// What is played when none is named.
    pub const DEFAULT: [Self; 6] =
        [Self::Sweep, Self::Staggered, Self::Agents, Self::Chat, Self::Phases, Self::Mixed];
}

impl Planner<'_> {
    /// The plan of a scenario.
    pub fn plan(&self, scenario: Scenario) -> Plan {
        let (scenario, axis, rounds) = match scenario {
            Scenario::Sweep => ("sweep", "context, tokens", self.sweep()),
            Scenario::Staggered => ("staggered", "arrival, seconds", self.staggered()),
            Scenario::Agents => ("agents", "agent", self.agents()),
            Scenario::Chat => ("chat", "turn", self.chat()),
            Scenario::Phases => ("phases", "phase", self.phases()),
            Scenario::Trace => {
                let trace = self.trace.map(|trace| trace.rounds(self)).unwrap_or_default();
                ("trace", trace.0, trace.1)
            }
            Scenario::Mixed => ("mixed", "request, in order", self.mixed()),
        };
        Plan { scenario, axis, rounds }
    }

    /// A writer of a part of this run.
    pub fn writer(&self, part: &str) -> Writer {
        Writer::new(self.workload.seed, self.salt, part)
    }

    /// Words that make about so many tokens.
    pub fn words(&self, tokens: f64) -> usize {
        (tokens / self.tokens_per_word).round().max(1.0) as usize
    }

    fn text(&self, part: &str, tokens: u32) -> String {
        self.writer(part).words(self.words(f64::from(tokens)))
    }

    /// A long text and a question: what begins a conversation.
    fn opening(&self, part: &str, tokens: u32) -> Vec<Value> {
        let context = self.text(part, tokens.saturating_sub(QUESTION).max(1));
        vec![json!({"role": "system", "content": context}), self.says(&format!("{part}, question"), QUESTION)]
    }

    fn says(&self, part: &str, tokens: u32) -> Value {
        let text = self.writer(part).words(self.words(f64::from(tokens)));
        json!({"role": "user", "content": text})
    }

    fn ask(&self, conversation: Option<usize>, messages: Vec<Value>, row: &str, x: f64) -> Ask {
        let max_tokens = u64::from(self.workload.max_tokens);
        let (row, series) = (row.to_owned(), row.to_owned());
        Ask { conversation, messages, max_tokens, row, series, x, ..Ask::default() }
    }

    fn closed(&self, asks: Vec<Ask>) -> Round {
        Round::closed(usize::from(self.workload.clients), asks)
    }

    fn sweep(&self) -> Vec<Round> {
        let ask = |phase: &str, length: u32, repeat: u32| {
            let messages = self.opening(&format!("sweep {repeat} of {length}"), length);
            let ask = self.ask(None, messages, &format!("{phase} {length}"), f64::from(length));
            Ask { series: phase.to_owned(), ..ask }
        };
        let each = || {
            let lengths = self.workload.contexts.iter().copied();
            lengths.flat_map(|length| (0..self.workload.repeats).map(move |repeat| (length, repeat)))
        };
        let mut rounds = Vec::new();
        for (length, repeat) in each() {
            rounds.push(Round::closed(1, vec![ask("cold", length, repeat)]));
            rounds.push(Round::closed(1, vec![ask("warm", length, repeat)]));
        }
        if self.can_restart {
            let asks = each().map(|(length, repeat)| ask("restored", length, repeat)).collect();
            rounds.push(Round { restart: true, ..Round::closed(1, asks) });
        }
        rounds
    }

    fn staggered(&self) -> Vec<Round> {
        let wave = |repeat: u32| {
            let mut arrivals = self.writer(&format!("staggered {repeat} arrivals"));
            let mut due_ms = 0.0;
            let asks = (0..self.workload.requests).map(|at| {
                let part = format!("staggered {repeat}, request {at}");
                let ask =
                    self.ask(None, self.opening(&part, self.workload.context), "arrivals", due_ms / 1e3);
                let ask = Ask { due: Duration::from_secs_f64(due_ms / 1e3), ..ask };
                due_ms -= f64::from(self.workload.gap_ms) * (1.0 - arrivals.share()).ln();
                ask
            });
            Round { restart: false, pace: Pace::Schedule, asks: asks.collect() }
        };
        (0..self.workload.repeats).map(wave).collect()
    }

    fn agents(&self) -> Vec<Round> {
        let agents = usize::from(self.workload.agents);
        let mut rounds = Vec::new();
        for repeat in 0..self.workload.repeats as usize {
            let shared = self.text(&format!("agents {repeat}, shared"), self.workload.context);
            let first_turn = |agent: usize, row| {
                let task = self.says(&format!("agents {repeat}, task of {agent}"), TURN);
                let messages = vec![json!({"role": "system", "content": shared}), task];
                self.ask(Some(repeat * agents + agent), messages, row, agent as f64 + 1.0)
            };
            let second_turn = |agent: usize| {
                let messages = vec![self.says(&format!("agents {repeat}, second task of {agent}"), TURN)];
                self.ask(Some(repeat * agents + agent), messages, "second turn", agent as f64 + 1.0)
            };
            rounds.push(self.closed(vec![first_turn(0, "first agent")]));
            rounds.push(self.closed((1..agents).map(|agent| first_turn(agent, "other agents")).collect()));
            rounds.push(self.closed((0..agents).map(second_turn).collect()));
        }
        rounds
    }

    fn chat(&self) -> Vec<Round> {
        let turn = |turn: u16| {
            let asks = (0..self.workload.repeats as usize).map(|chat| {
                let ask =
                    self.turn("chat", chat, turn, self.ask(None, vec![], &format!("turn {}", turn + 1), 0.0));
                Ask { series: "all".into(), x: f64::from(turn + 1), ..ask }
            });
            self.closed(asks.collect())
        };
        (0..self.workload.turns).map(turn).collect()
    }

    /// `ask` as turn `turn` of a conversation: the first brings the context, later ones a little text.
    fn turn(&self, scenario: &str, conversation: usize, turn: u16, ask: Ask) -> Ask {
        let messages = if turn == 0 {
            self.opening(&format!("{scenario} {conversation}"), self.workload.context)
        } else {
            vec![self.says(&format!("{scenario} {conversation}, turn {turn}"), TURN)]
        };
        Ask { conversation: Some(conversation), messages, ..ask }
    }

    fn phases(&self) -> Vec<Round> {
        let agents = usize::from(self.workload.agents);
        let mut rounds = Vec::new();
        for repeat in 0..self.workload.repeats as usize {
            for phase in 0..self.workload.turns {
                // Another agent begins each phase.
                let order = (0..agents).map(|at| (at + usize::from(phase)) % agents);
                let asks = order.map(|agent| {
                    let ask = self.ask(None, vec![], &format!("phase {}", phase + 1), 0.0);
                    let ask = self.turn("phases", repeat * agents + agent, phase, ask);
                    Ask { series: "all".into(), x: f64::from(phase + 1), ..ask }
                });
                rounds.push(self.closed(asks.collect()));
            }
        }
        rounds
    }

    fn mixed(&self) -> Vec<Round> {
        let shared = self.text("mixed, shared", self.workload.context);
        let requests = usize::from(self.workload.requests);
        let mut begun = 0.0;
        let mut round = |turn: u16| {
            let mut order: Vec<usize> = (0..requests).collect();
            let mut random = self.writer(&format!("mixed {turn}, order"));
            for at in (1..requests).rev() {
                order.swap(at, random.below(at + 1));
            }
            let asks = order.into_iter().map(|at| {
                begun += 1.0;
                let part = format!("mixed {turn}, request {at}");
                match at % 3 {
                    0 => self.ask(None, self.opening(&part, self.workload.context), "new", begun),
                    1 => {
                        let system = json!({"role": "system", "content": shared});
                        self.ask(None, vec![system, self.says(&part, TURN)], "shared", begun)
                    }
                    _ => self.turn("mixed", at, turn, self.ask(None, vec![], "chat", begun)),
                }
            });
            self.closed(asks.collect())
        };
        (0..self.workload.turns).map(&mut round).collect()
    }
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
pub mod tests;
