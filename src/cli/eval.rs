//! `prefixd eval`: plays scripted conversations through the server over HTTP and counts right answers.
//!
//! Each KV setting and batch size gets a server of its own on an empty cache, and plays everything in up to three
//! phases: cold, warm (the same again), and restored (again, by a new process over the same blocks). Answers must depend
//! neither on the cache nor on the batch, so `changed` counts those that differ from the setting's first phase.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use clap::ValueEnum;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::child::{Server, ServerCommand};
use super::conversation::{Conversation, Played};
use super::progress::Progress;
use super::table::Table;

/// The embedded model's small task file, always at hand.
const SMALL: &str = include_str!("../../models/clerk/tasks-small.jsonl");

/// What `eval` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct EvalArgs {
    /// Model directory or Hugging Face id; without it the embedded model
    #[arg(long)]
    model: Option<String>,
    /// Conversations, one JSON object a line; without it a small set that comes with the program
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// KV settings to compare
    #[arg(long, value_delimiter = ',', default_value = "k8v4")]
    kv_bits: Vec<String>,
    /// Phases to play, in order
    #[arg(long, value_delimiter = ',', default_value = "cold,warm,restored")]
    phases: Vec<Phase>,
    /// Numbers of conversations played at the same time, to compare
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// Print JSON lines instead of the table
    #[arg(long)]
    json: bool,
    /// Also write every answer beside the expected one, one JSON object a line
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
}

/// What the cache holds while a phase plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Nothing, at first.
    Cold,
    /// What the phase before computed.
    Warm,
    /// What the phase before wrote, read by a new process.
    Restored,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Restored => "restored",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
struct Score {
    turns: usize,
    right: usize,
    ended: usize,
    changed: usize,
    prompt_tokens: u64,
    cached_tokens: u64,
    ttft_ms: f64,
}

/// KV setting, batch, phase, task, bucket.
type Class = (String, usize, Phase, String, u64);

/// Plays everything. False when a phase changed an answer.
pub fn run(args: &EvalArgs) -> anyhow::Result<bool> {
    let text = match &args.tasks {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("{} could not be read", path.display()))?
        }
        None => SMALL.to_owned(),
    };
    let conversations = Conversation::read_all(&text)?;
    let settings = args.kv_bits.len() * args.batch.len();
    let plays = (conversations.len() * args.phases.len() * settings) as u64;
    let progress = Progress::of_things("starting the server");
    progress.set(0, plays);
    let mut answers = args
        .answers
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("{} could not be written", path.display())))
        .transpose()?
        .map(BufWriter::new);
    let mut scores = BTreeMap::<Class, Score>::new();
    for kv_bits in &args.kv_bits {
        let mut first = None;
        for batch in &args.batch {
            let setting = Setting { kv_bits, batch: usize::from(*batch) };
            let record = |phase, conversation: &Conversation, turns: &[Played]| match &mut answers {
                Some(file) => write_answers(file, setting, phase, conversation, turns),
                None => Ok(()),
            };
            setting.play(args, &conversations, &progress, &mut first, &mut scores, record)?;
        }
    }
    if let Some(file) = &mut answers {
        file.flush().context("the answers could not be written")?;
    }
    progress.end();
    report(args.json, &scores)?;
    Ok(scores.values().all(|score| score.changed == 0))
}

/// What one server is started with.
#[derive(Clone, Copy)]
struct Setting<'a> {
    kv_bits: &'a str,
    batch: usize,
}

impl Setting<'_> {
    /// Plays all phases. `first` is what the KV setting answered first, to compare with.
    fn play(
        self,
        args: &EvalArgs,
        conversations: &[Conversation],
        progress: &Progress,
        first: &mut Option<Vec<Vec<Played>>>,
        scores: &mut BTreeMap<Class, Score>,
        mut record: impl FnMut(Phase, &Conversation, &[Played]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let dir = tempfile::tempdir().context("no directory for the cache")?;
        let command = ServerCommand {
            model: args.model.clone(),
            cache_dir: dir.path().into(),
            kv_bits: Some(self.kv_bits.to_owned()),
            max_batch: Some(self.batch),
        };
        let mut server = Server::start(&command)?;
        for phase in &args.phases {
            if *phase == Phase::Restored {
                server.stop()?;
                server = Server::start(&command)?;
            }
            progress.say(format!("{} x{} {}", self.kv_bits, self.batch, phase.name()));
            let played = play_all(&server, conversations, self.batch, progress)?;
            for (at, (conversation, turns)) in conversations.iter().zip(&played).enumerate() {
                record(*phase, conversation, turns)?;
                let task = conversation.task.clone();
                let class = (self.kv_bits.to_owned(), self.batch, *phase, task, conversation.bucket);
                let score = scores.entry(class).or_default();
                for (turn, played) in turns.iter().enumerate() {
                    score.add(played, first.as_ref().map(|first| &first[at][turn]));
                }
            }
            first.get_or_insert(played);
        }
        server.stop()
    }
}

/// One line a turn: where it was asked, what was expected, and what came.
fn write_answers(
    file: &mut impl Write,
    setting: Setting<'_>,
    phase: Phase,
    conversation: &Conversation,
    turns: &[Played],
) -> anyhow::Result<()> {
    for (at, (turn, played)) in conversation.turns.iter().zip(turns).enumerate() {
        let line = json!({
            "kv": setting.kv_bits, "batch": setting.batch, "phase": phase, "id": conversation.id, "turn": at,
            "user": turn.user, "expected": turn.expect, "text": played.answer.text,
            "tool_calls": played.answer.tool_calls, "right": played.right, "ended": played.ended,
        });
        writeln!(file, "{line}").context("the answers could not be written")?;
    }
    Ok(())
}

/// Plays every conversation, `batch` at a time. Results in the conversations' order.
fn play_all(
    server: &Server,
    conversations: &[Conversation],
    batch: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<Vec<Played>>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![Vec::new(); conversations.len()]);
    let work = || -> anyhow::Result<()> {
        let client = server.client();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(conversation) = conversations.get(at) else { return Ok(()) };
            let played = conversation.play(&client).with_context(|| conversation.id.clone())?;
            results.lock()[at] = played;
            progress.add_one();
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..batch).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("a worker panicked"),
        })
    })?;
    Ok(results.into_inner())
}

impl Score {
    fn add(&mut self, played: &Played, first: Option<&Played>) {
        let answer = &played.answer;
        self.turns += 1;
        self.right += usize::from(played.right);
        self.ended += usize::from(played.ended);
        let differs = |first: &Played| {
            (&first.answer.text, &first.answer.tool_calls.len()) != (&answer.text, &answer.tool_calls.len())
        };
        self.changed += usize::from(first.is_some_and(differs));
        self.prompt_tokens += answer.usage.prompt_tokens.unwrap_or(0);
        self.cached_tokens += answer.usage.cached_tokens.unwrap_or(0);
        self.ttft_ms += answer.ttft.as_secs_f64() * 1e3;
    }
}

fn report(json: bool, scores: &BTreeMap<Class, Score>) -> anyhow::Result<()> {
    if json {
        for ((kv, batch, phase, task, bucket), score) in scores {
            let mut line = serde_json::to_value(score)?;
            line["kv"] = kv.as_str().into();
            line["batch"] = (*batch).into();
            line["phase"] = serde_json::to_value(phase)?;
            line["task"] = task.as_str().into();
            line["bucket"] = (*bucket).into();
            println!("{line}");
        }
        return Ok(());
    }
    // "up to" are tokens of the prompt.
    let heads =
        ["KV", "batch", "phase", "task", "up to", "turns", "right", "ended", "changed", "cached", "TTFT"];
    let mut table = Table::new(&heads, &[1, 4, 5, 6, 7, 8, 9, 10]);
    for ((kv, batch, phase, task, bucket), score) in scores {
        let share = |part: f64, whole: f64| format!("{:.0} %", 100.0 * part / whole.max(1.0));
        let turns = score.turns as f64;
        table.add([
            kv.clone(),
            batch.to_string(),
            phase.name().to_owned(),
            task.clone(),
            bucket.to_string(),
            score.turns.to_string(),
            share(score.right as f64, turns),
            share(score.ended as f64, turns),
            score.changed.to_string(),
            share(score.cached_tokens as f64, score.prompt_tokens as f64),
            format!("{:.0} ms", score.ttft_ms / turns.max(1.0)),
        ]);
    }
    println!("{table}");
    Ok(())
}
