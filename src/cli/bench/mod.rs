//! `prefixd bench`: measures any OpenAI-compatible server over HTTP, or two side by side.
//!
//! Data flow: the command line ([`workload`]) and a salt give plans ([`scenario`], [`trace`], over [`text`]), which the
//! [`runner`] plays on its [`target`]s; each request becomes a [`record`], records become rows ([`stats`]) and pairs
//! ([`compare`]), and those a table, JSON ([`report`]) and an SVG ([`plot`]).
//!
//! 1. The workload is decided before the first request, by seed, salt, settings and the vocabulary's words per token.
//! 2. Only `/v1/chat/completions` as a stream of ordinary messages is asked for; what a server does not say is unknown.
//! 3. A failure is a figure: counted by kind, never retried, never left out.
//! 4. Time decides when a request is due, never whether it went well; every wait ends by a limit.

mod compare;
mod interrupt;
mod plan;
mod plot;
mod record;
mod report;
mod runner;
mod scenario;
mod stats;
mod table;
mod target;
mod text;
mod trace;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;

use super::child::ServerCommand;
use super::client::ClientOptions;
use super::progress::Progress;
use interrupt::Interrupt;
use plan::Plan;
use plot::Panel;
use report::Report;
use runner::Runner;
use scenario::{Planner, Scenario};
use stats::Row;
use target::Target;
use trace::Trace;
use workload::Workload;

/// What the table's columns mean.
const COLUMNS: &str = "\
Columns: prompt and cached tokens are means per answer as the server counts them, `-` where it does not. TTFT is the time \
to the first piece of text (or reasoning, or tool call), inter-token the time from one piece to the next. Output tokens/s are \
all answers' tokens over the time in which at least one request of the row ran. An answer is early when it is shorter than it \
might be (models end by themselves; see --ignore-eos), empty when there is nothing in it. Errors are never retried. The digest \
is BLAKE3 of the answers: equal for cold, warm and restored when the cache changes nothing. Ratios of --compare are the second \
server's figure over the first's, medians of the same request to both.";

/// What `bench` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = COLUMNS)]
pub struct BenchArgs {
    /// What to play; without it all but `trace`
    #[arg(value_name = "SCENARIO", value_enum)]
    scenarios: Vec<Scenario>,
    /// The server to measure (http://host:port); without it a server of our own is started on an empty cache
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Two servers side by side: every request goes to both, in turns, never at the same time (arrivals on a schedule
    /// are played whole on one and then on the other)
    #[arg(long, value_names = ["URL_A", "URL_B"], num_args = 2, conflicts_with = "url")]
    compare: Vec<String>,
    /// Model directory or Hugging Face id of our own server; without it the embedded model
    #[arg(long, conflicts_with_all = ["url", "compare"])]
    model: Option<String>,
    /// KV setting of our own server
    #[arg(long, conflicts_with_all = ["url", "compare"])]
    kv_bits: Option<String>,
    /// Rows in a batch of our own server
    #[arg(long, conflicts_with_all = ["url", "compare"])]
    max_batch: Option<usize>,
    /// Model name to put into requests, one per server; without it the one that the server lists
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    served_model: Vec<String>,
    /// Key sent as a bearer token
    #[arg(long, value_name = "KEY", env = "PREFIXD_BENCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// Ask for answers of full length (`ignore_eos`: prefixd and vLLM know it, others ignore it)
    #[arg(long)]
    ignore_eos: bool,
    /// Play the prompts of an earlier run again; without it they are new to every server, so that cold is cold
    #[arg(long)]
    salt: Option<String>,
    /// Tokens per word of the servers' vocabulary; without it the first server counts two short prompts
    #[arg(long, value_name = "RATE")]
    tokens_per_word: Option<f64>,
    #[command(flatten)]
    workload: Workload,
    /// Write everything measured, each request included
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Of a vocabulary that nobody counted: English words in most of them.
const TOKENS_PER_WORD: f64 = 1.3;

impl BenchArgs {
    /// What to play, each once.
    fn scenarios(&self) -> Vec<Scenario> {
        let named = if self.scenarios.is_empty() { &Scenario::DEFAULT[..] } else { &self.scenarios };
        let mut scenarios = Vec::new();
        for scenario in named {
            if !scenarios.contains(scenario) {
                scenarios.push(*scenario);
            }
        }
        scenarios
    }
}

/// Runs the bench. False when a request failed.
pub fn run(args: &BenchArgs) -> anyhow::Result<bool> {
    let scenarios = args.scenarios();
    let trace = match (&args.workload.trace, scenarios.contains(&Scenario::Trace)) {
        (Some(path), true) => Some(Trace::read(path)?),
        (None, false) => None,
        (None, true) => anyhow::bail!("the scenario `trace` needs --trace FILE"),
        (Some(_), false) => {
            anyhow::bail!("--trace is for the scenario `trace`, which is not among those named")
        }
    };
    let started = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let salt = args.salt.clone().unwrap_or_else(|| format!("{:016x}", rand::rng().random::<u64>()));
    let interrupt = Interrupt::listen()?;
    // Outlives the servers in it.
    let dir = tempfile::tempdir().context("no directory for the cache")?;
    let targets = targets(args, dir.path())?;
    let tokens_per_word = tokens_per_word(args, &targets, &salt)?;
    let planner = Planner {
        workload: &args.workload,
        salt: &salt,
        tokens_per_word,
        can_restart: targets.iter().all(Target::can_restart),
        trace: trace.as_ref(),
    };
    let plans: Vec<Plan> = scenarios.iter().map(|scenario| planner.plan(*scenario)).collect();
    let requests: usize = plans.iter().map(Plan::len).sum();
    let progress = Progress::of_things("");
    progress.set(0, (requests * targets.len()) as u64);
    let mut runner = Runner::new(targets, interrupt.clone(), progress.clone());
    for plan in &plans {
        progress.say(plan.scenario);
        runner.play(plan)?;
    }
    progress.end();

    let rows = stats::rows(&runner.records);
    let servers: Vec<String> = runner.targets.iter().map(|target| target.name.clone()).collect();
    let pairs = if servers.len() == 2 { compare::pairs(&rows, &runner.records) } else { Vec::new() };
    println!("{}\n{}", table::times(&rows, &servers), table::counts(&rows, &servers));
    if !pairs.is_empty() {
        println!("{}", table::side_by_side(&pairs, &servers));
    }
    let interrupted = interrupt.happened();
    println!("seed {}, salt {salt}", args.workload.seed);
    if interrupted {
        let (made, asked) = (runner.records.len(), requests * servers.len());
        println!("ended by Ctrl-C after {made} of {asked} requests; {} were under way", runner.unfinished);
    }
    for line in failures(&runner) {
        println!("{line}");
    }
    let workload = &args.workload;
    let report = Report {
        workload,
        salt: &salt,
        tokens_per_word,
        started: &started,
        runner: &runner,
        rows: &rows,
        pairs: &pairs,
        interrupted,
    };
    write(args, &report, &plans, &servers)?;
    Ok(rows.iter().all(|row: &Row| row.errors.is_empty()))
}

/// The servers that the command line names, or one of our own over `dir`.
fn targets(args: &BenchArgs, dir: &std::path::Path) -> anyhow::Result<Vec<Target>> {
    let timeout = Duration::from_secs(args.timeout.into());
    let options = ClientOptions { api_key: args.api_key.clone(), timeout };
    let urls: Vec<&String> = args.url.iter().chain(&args.compare).collect();
    let count = urls.len().max(1);
    let (names, expected) = (args.served_model.len(), args.served_model.is_empty());
    anyhow::ensure!(expected || names == count, "--served-model has {names} names; expected {count}");
    let mut targets = match urls[..] {
        [] => {
            let command = ServerCommand {
                model: args.model.clone(),
                cache_dir: dir.into(),
                kv_bits: args.kv_bits.clone(),
                max_batch: args.max_batch,
            };
            vec![Target::start(command, options)?]
        }
        [one] => vec![Target::connect("server", one, args.served_model.first().cloned(), options)?],
        [a, b, ..] => {
            let same = a.trim_end_matches('/') == b.trim_end_matches('/');
            anyhow::ensure!(!same, "--compare has {a} twice: one side would warm the cache of the other");
            let model = |at: usize| args.served_model.get(at).cloned();
            vec![
                Target::connect("A", a, model(0), options.clone())?,
                Target::connect("B", b, model(1), options)?,
            ]
        }
    };
    for target in &mut targets {
        target.ignore_eos = args.ignore_eos;
    }
    Ok(targets)
}

/// What the command line says or the first server counts. Every server has been asked something after this.
fn tokens_per_word(args: &BenchArgs, targets: &[Target], salt: &str) -> anyhow::Result<f64> {
    for target in targets {
        target.warm_up()?;
    }
    match args.tokens_per_word {
        Some(rate) => {
            anyhow::ensure!(
                (0.01..=100.0).contains(&rate),
                "--tokens-per-word is {rate}; expected 0.01 to 100"
            );
            Ok(rate)
        }
        None => Ok(targets[0].tokens_per_word(args.workload.seed, salt)?.unwrap_or(TOKENS_PER_WORD)),
    }
}

/// How many requests failed, and why: a line for each kind, with the words of its first failure.
fn failures(runner: &Runner) -> Vec<String> {
    let mut kinds = BTreeMap::<(&str, &str), (usize, &str)>::new();
    for record in &runner.records {
        if let Err(failure) = &record.outcome {
            let kind = (runner.targets[record.server].name.as_str(), failure.kind.as_str());
            kinds.entry(kind).or_insert((0, failure.text.as_str())).0 += 1;
        }
    }
    let all = runner.records.len();
    kinds
        .into_iter()
        .map(|((server, kind), (count, text))| {
            let text = record::one_line(text);
            format!("{count} of {all} requests failed ({server}, {kind}): {text}")
        })
        .collect()
}

/// Writes the files that were asked for.
fn write(args: &BenchArgs, report: &Report<'_>, plans: &[Plan], servers: &[String]) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.to_json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} could not be written", path.display()))?;
    }
    if let Some(path) = &args.svg {
        let panels: Vec<_> =
            plans.iter().map(|plan| Panel { scenario: plan.scenario, axis: plan.axis }).collect();
        let names = report.runner.targets.iter().map(|target| match &target.model {
            Some(model) => format!("{} = {} ({model})", target.name, target.url),
            None => format!("{} = {}", target.name, target.url),
        });
        let title = format!("prefixd bench, {}", report.started);
        let subtitle = format!(
            "{}; seed {}, answers up to {} tokens. A dot is a request, a line joins medians. Vertical axes are logarithmic.",
            names.collect::<Vec<_>>().join(", "),
            args.workload.seed,
            args.workload.max_tokens
        );
        let svg = plot::draw(&panels, &report.runner.records, servers, [&title, &subtitle])?;
        std::fs::write(path, svg).with_context(|| format!("{} could not be written", path.display()))?;
    }
    Ok(())
}
