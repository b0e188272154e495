//! Traffic as coding agents make it, generated: long prompts that grow turn by turn, shared beginnings, pauses.
//!
//! The shape follows public traces of agent sessions: in the median 105k tokens in and 720 new; nearly all of a prompt
//! was seen before; one reuse in seven comes after a minute, one in twenty after five. The same seed gives the same trace.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::replay::{BLOCK_TOKENS, Request};

/// What is generated.
#[derive(Clone, Copy, Debug)]
pub struct AgentTraffic {
    /// People at work.
    pub users: usize,
    /// Length of the trace.
    pub hours: f64,
    /// Agent programs: each has a system prompt and tools that all of its users share.
    pub programs: usize,
    pub seed: u64,
}

impl Default for AgentTraffic {
    fn default() -> Self {
        Self { users: 16, hours: 4.0, programs: 3, seed: 1 }
    }
}

/// Tokens of an agent program's system prompt and tools.
const SYSTEM_TOKENS: usize = 30_000;
/// Tokens of a user's project notes, which begin each of the user's sessions.
const PROJECT_TOKENS: usize = 30_000;
/// A session that gets longer is summed up and goes on from there.
const COMPACT_TOKENS: usize = 190_000;
/// Tokens of such a summary.
const SUMMARY_TOKENS: usize = 8_000;
/// New tokens of a turn: the median, and the spread of its logarithm.
const TURN_TOKENS: f64 = 720.0;
const TURN_SPREAD: f64 = 1.75;

/// One growing prompt.
#[derive(Clone)]
struct Context {
    /// Ids of whole blocks.
    whole: Vec<u32>,
    tokens: usize,
}

struct Generator {
    rng: ChaCha8Rng,
    next_id: u32,
}

impl AgentTraffic {
    /// The requests, in order of time.
    pub fn requests(&self) -> Vec<Request> {
        let mut generator = Generator { rng: ChaCha8Rng::seed_from_u64(self.seed), next_id: 0 };
        let empty = Context { whole: Vec::new(), tokens: 0 };
        let programs: Vec<Context> =
            (0..self.programs).map(|_| generator.longer(&empty, SYSTEM_TOKENS)).collect();
        let helper = generator.longer(&empty, SYSTEM_TOKENS / 4);
        let mut requests = Vec::new();
        for user in 0..self.users {
            let project = generator.longer(&programs[user % self.programs], PROJECT_TOKENS);
            generator.work(&project, &helper, self.hours * 3_600.0, &mut requests);
        }
        requests.sort_by_key(|request| request.at_ms);
        requests
    }
}

impl Generator {
    /// One user's sessions, one after another.
    fn work(&mut self, project: &Context, helper: &Context, until_s: f64, requests: &mut Vec<Request>) {
        let mut now_s = self.rng.random_range(0.0..600.0);
        while now_s < until_s {
            let mut context = project.clone();
            for _ in 0..self.rng.random_range(10..120) {
                let new = self.turn_tokens();
                context = self.longer(&context, new);
                if context.tokens > COMPACT_TOKENS {
                    context = self.longer(project, SUMMARY_TOKENS);
                }
                requests.push(self.request(now_s, &context));
                now_s += self.pause_s();
                if self.rng.random_bool(0.02) {
                    now_s = self.help(helper, now_s, requests);
                }
                if now_s >= until_s {
                    return;
                }
            }
            now_s += self.rng.random_range(60.0..1_800.0);
        }
    }

    /// A helper agent: a short session of its own while its caller waits.
    fn help(&mut self, helper: &Context, begin_s: f64, requests: &mut Vec<Request>) -> f64 {
        let task = self.rng.random_range(1_000..6_000);
        let (mut context, mut now_s) = (self.longer(helper, task), begin_s);
        for _ in 0..self.rng.random_range(3..15) {
            requests.push(self.request(now_s, &context));
            let new = self.turn_tokens();
            context = self.longer(&context, new);
            now_s += self.rng.random_range(2.0..15.0);
        }
        now_s
    }

    /// Log-normal, by the sum of twelve.
    fn turn_tokens(&mut self) -> usize {
        let normal = (0..12).map(|_| self.rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        (TURN_TOKENS * (TURN_SPREAD * normal).exp()).clamp(20.0, 60_000.0) as usize
    }

    /// Until the next request of a session.
    fn pause_s(&mut self) -> f64 {
        match self.rng.random_range(0..100) {
            0..85 => self.rng.random_range(3.0..60.0),
            85..95 => self.rng.random_range(60.0..300.0),
            _ => self.rng.random_range(300.0..3_600.0),
        }
    }

    /// What follows a context: blocks that were full stay, new ones get new ids.
    fn longer(&mut self, context: &Context, new_tokens: usize) -> Context {
        let tokens = context.tokens + new_tokens;
        let mut whole = context.whole.clone();
        while whole.len() < tokens / BLOCK_TOKENS {
            whole.push(self.id());
        }
        Context { whole, tokens }
    }

    fn request(&mut self, at_s: f64, context: &Context) -> Request {
        let mut blocks = context.whole.clone();
        if !context.tokens.is_multiple_of(BLOCK_TOKENS) {
            blocks.push(self.id());
        }
        Request { at_ms: (at_s * 1e3) as u64, tokens: context.tokens, blocks }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}

/// Medians of a trace, in words.
pub fn shape(requests: &[Request]) -> String {
    let mut lengths: Vec<usize> = requests.iter().map(|request| request.tokens).collect();
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or_default();
    let hours = requests.last().map_or(0.0, |last| last.at_ms as f64 / 3_600e3);
    format!("{} requests in {hours:.1} h, {median} tokens in the median", requests.len())
}
