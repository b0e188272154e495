//! Plays plans and keeps what happened.
//!
//! One thread decides and waits, for results, due times or Ctrl-C; each request has a thread of its own, which ends by the
//! client's time limit at the latest. Two servers are played in turns, part by part of a round, the other one first each
//! time, and never at the same time.

use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use super::interrupt::Interrupt;
use super::plan::{Ask, Pace, Plan};
use super::record::{Failure, Record};
use super::target::Target;
use crate::cli::client::{Answer, ClientError};
use crate::cli::progress::Progress;

/// Requests in flight at most; what is due beyond it is sent late, and says so.
const MAX_IN_FLIGHT: usize = 512;

/// The servers, and everything measured so far.
pub struct Runner {
    /// One or two.
    pub targets: Vec<Target>,
    /// In the order in which requests ended.
    pub records: Vec<Record>,
    /// Requests that were under way at Ctrl-C.
    pub unfinished: usize,
    interrupt: Interrupt,
    progress: Progress,
    begin: Instant,
    /// Parts played, which decides who is first.
    parts: usize,
}

/// What a request's thread reports.
struct Ended {
    at: usize,
    began: Instant,
    took: Duration,
    outcome: Result<Answer, ClientError>,
}

impl Runner {
    /// A runner that has played nothing.
    pub fn new(targets: Vec<Target>, interrupt: Interrupt, progress: Progress) -> Self {
        let begin = Instant::now();
        Self { targets, records: Vec::new(), unfinished: 0, interrupt, progress, begin, parts: 0 }
    }

    /// Plays a plan to its end or to Ctrl-C.
    pub fn play(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.targets.iter_mut().for_each(Target::begin);
        let mut place = 0;
        for round in &plan.rounds {
            if round.restart && !self.interrupt.happened() {
                let restarted = self.targets.iter_mut().try_for_each(|target| {
                    target.restart()?;
                    target.warm_up()
                });
                // Ctrl-C reaches the child as well.
                if !self.interrupt.happened() {
                    restarted.context("the server could not be restarted")?;
                }
            }
            for part in round.parts() {
                for turn in 0..self.targets.len() {
                    if self.interrupt.happened() {
                        return Ok(());
                    }
                    let server = (turn + self.parts) % self.targets.len();
                    self.play_part(plan.scenario, server, round.pace, part, place)?;
                }
                self.parts += 1;
                place += part.len();
            }
        }
        Ok(())
    }

    /// Plays requests that run together on one server. `place` is the first one's.
    fn play_part(
        &mut self,
        scenario: &'static str,
        server: usize,
        pace: Pace,
        asks: &[Ask],
        place: usize,
    ) -> anyhow::Result<()> {
        // Room for all of them: a request's thread never waits for us, not even after Ctrl-C.
        let (sender, ended) = bounded(asks.len());
        let clients = if let Pace::Clients(clients) = pace { clients.max(1) } else { MAX_IN_FLIGHT };
        let begin = Instant::now();
        let due = |ask: &Ask| if pace == Pace::Schedule { begin + ask.due } else { begin };
        let (mut next, mut running) = (0, 0);
        while next < asks.len() || running > 0 {
            while let Some(ask) = asks.get(next).filter(|ask| running < clients && due(ask) <= Instant::now())
            {
                if self.send(server, next, ask, &sender)? {
                    running += 1;
                } else {
                    let failure = Failure::after_failure();
                    self.keep(Record::new(scenario, server, place + next, ask, failure));
                }
                next += 1;
            }
            let wait = match asks.get(next) {
                Some(ask) if running < clients => after(due(ask).saturating_duration_since(Instant::now())),
                _ if running == 0 => continue,
                _ => never(),
            };
            match self.wait(&ended, &wait) {
                Step::Due => {}
                Step::Interrupted => {
                    self.unfinished += running;
                    return Ok(());
                }
                Step::Ended(found) => {
                    running -= 1;
                    let ask = &asks[found.at];
                    self.targets[server].answered(ask, found.outcome.as_ref().ok());
                    let failure = Failure::after_failure();
                    let late = if pace == Pace::Schedule {
                        found.began.saturating_duration_since(due(ask))
                    } else {
                        Duration::ZERO
                    };
                    self.keep(Record {
                        began: found.began - self.begin,
                        late,
                        took: found.took,
                        outcome: found.outcome.map_err(Failure::from),
                        ..Record::new(scenario, server, place + found.at, ask, failure)
                    });
                }
            }
        }
        Ok(())
    }

    fn wait(&self, ended: &Receiver<Ended>, due: &Receiver<Instant>) -> Step {
        select! {
            recv(ended) -> found => match found {
                Ok(found) => Step::Ended(Box::new(found)),
                // Not reachable: we hold a sender.
                Err(_) => Step::Interrupted,
            },
            recv(due) -> _ => Step::Due,
            recv(self.interrupt.channel()) -> _ => Step::Interrupted,
        }
    }

    /// Starts a request. False when its conversation has broken.
    fn send(&mut self, server: usize, at: usize, ask: &Ask, ended: &Sender<Ended>) -> anyhow::Result<bool> {
        let target = &mut self.targets[server];
        let Some(body) = target.body(ask) else { return Ok(false) };
        let (client, ended) = (target.client(), ended.clone());
        let work = move || {
            let began = Instant::now();
            let asked = std::panic::AssertUnwindSafe(|| client.chat(body));
            let outcome = std::panic::catch_unwind(asked)
                .unwrap_or_else(|_| Err(ClientError::Malformed("the client panicked".into())));
            // Nobody waits for it after Ctrl-C.
            ended.send(Ended { at, began, took: began.elapsed(), outcome }).ok();
        };
        std::thread::Builder::new()
            .name("bench-request".into())
            .spawn(work)
            .context("no thread for a request")?;
        Ok(true)
    }

    fn keep(&mut self, record: Record) {
        self.records.push(record);
        self.progress.add_one();
    }
}

/// What the runner waited for.
enum Step {
    Ended(Box<Ended>),
    Due,
    Interrupted,
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
