//! The command line: what a user can say, and which part of the program answers.

mod bench;
mod cache;
mod child;
mod client;
mod conversation;
mod demo;
mod doctor;
mod eval;
mod models;
mod progress;
mod serve;
mod shell;
mod table;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// An LLM server on MLX that never computes the same prompt prefix twice.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeCommand,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model (what happens without a command, too)
    Serve(serve::ServeCommand),
    /// Check a model and this machine without serving
    Doctor(ServeArgs),
    /// List what can be served: families, weight formats, call and thought syntaxes
    Models,
    /// Look at and after the stored prefix blocks
    Cache(cache::CacheArgs),
    /// Show one long prompt cold, warm and after a restart
    Demo(demo::DemoArgs),
    /// Score scripted conversations over HTTP: cold, warm and restored
    Eval(eval::EvalArgs),
    /// Measure any OpenAI-compatible server over HTTP, or two side by side
    Bench(Box<bench::BenchArgs>),
    /// Print a shell's completions of this command line
    Completions(shell::CompletionsArgs),
    /// Write manual pages and completions into a folder
    Manual(shell::ManualArgs),
}

/// The model and the settings it is served with.
#[derive(Clone, Debug, Args)]
struct ServeArgs {
    /// Model directory or Hugging Face id; without it the embedded model
    #[arg(value_name = "MODEL", conflicts_with = "model_flag")]
    model: Option<String>,
    /// The same as MODEL
    #[arg(long = "model", env = "PREFIXD_MODEL", value_name = "MODEL", id = "model_flag")]
    model_flag: Option<String>,
    /// End when standard input does: for programs that start a server of their own
    #[arg(long, hide = true)]
    until_input_ends: bool,
    #[command(flatten)]
    overrides: Overrides,
}

impl ServeArgs {
    fn model(&self) -> Option<&str> {
        self.model.as_deref().or(self.model_flag.as_deref())
    }
}

/// Runs what the command line asks for.
pub fn run() -> anyhow::Result<bool> {
    let cli = Cli::parse();
    let fine = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args).map(|()| true)?,
        Command::Doctor(args) => doctor::run(&args)?,
        Command::Models => {
            models::run();
            true
        }
        Command::Cache(args) => cache::run(&args)?,
        Command::Demo(args) => demo::run(&args)?,
        Command::Eval(args) => eval::run(&args)?,
        Command::Bench(args) => bench::run(&args)?,
        Command::Completions(args) => {
            shell::completions(&args);
            true
        }
        Command::Manual(args) => shell::manual(&args).map(|()| true)?,
    };
    Ok(fine)
}
