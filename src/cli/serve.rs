//! `prefixd serve`: load, say that it is ready, serve.

use std::io::{IsTerminal, Read};

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;

use super::ServeArgs;
use super::child::READY;
use super::progress::Progress;
use crate::app::{App, load_options, read_contexts};
use crate::config::Config;
use crate::machine;
use crate::mlx::{LoadProgress, LoadStage};
use crate::source;

/// What `serve` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeCommand {
    #[command(flatten)]
    args: ServeArgs,
    /// Check the settings and the files they name, and end
    #[arg(long)]
    check_config: bool,
}

/// Serves until a signal, or checks what it would serve with.
pub fn run(command: &ServeCommand) -> anyhow::Result<()> {
    let args = &command.args;
    let config = Config::load(&args.overrides)?;
    if command.check_config {
        log_filter(&config)?;
        load_options(&config)?;
        read_contexts(&config)?;
        println!("the configuration is valid");
        return Ok(());
    }
    start_log(&config)?;
    if args.until_input_ends {
        end_with_input()?;
    }
    machine::claim()?;
    let source = source::resolve(args.model(), &config.models)?;
    let progress = Progress::of_parts();
    let shown = progress.clone();
    let app = App::start(&config, &source, move |loaded| show(&shown, loaded));
    // Before an error is told, too.
    progress.end();
    let app = app?;
    app.run(|app| announce(&config, &source.name, app))?;
    Ok(())
}

/// Ends this process in order when nobody holds the other end of its standard input any more: whoever started it is gone.
fn end_with_input() -> std::io::Result<()> {
    let wait = || {
        let mut input = std::io::stdin().lock();
        let mut bytes = [0; 64];
        while input.read(&mut bytes).is_ok_and(|count| count > 0) {}
        let this = rustix::process::getpid();
        if let Err(error) = rustix::process::kill_process(this, rustix::process::Signal::TERM) {
            tracing::error!("the process that started this server is gone, and this one cannot end: {error}");
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(wait).map(drop)
}

fn log_filter(config: &Config) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter(&config.log_level))
        .map_err(|error| anyhow::anyhow!("log.level is `{}`: {error}", config.log_level))
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let mut log = tracing_subscriber::fmt()
        .with_env_filter(log_filter(config)?)
        .with_writer(std::io::stderr)
        .with_target(config.log_json);
    // Otherwise NO_COLOR decides, which it reads itself.
    if !std::io::stderr().is_terminal() {
        log = log.with_ansi(false);
    }
    if config.log_json {
        log.json().init();
    } else {
        log.init();
    }
    Ok(())
}

/// A level is that of our own events; frameworks are heard when something is wrong.
fn filter(level: &str) -> String {
    match level.trim().to_ascii_lowercase().as_str() {
        level @ ("info" | "debug") => format!("warn,prefixd={level},prefixd_cache={level}"),
        other => other.to_owned(),
    }
}

fn show(progress: &Progress, loaded: LoadProgress) {
    progress.say(match loaded.stage {
        LoadStage::Digest => "checking weights",
        LoadStage::Weights => "loading weights",
        LoadStage::Check => "checking the model",
    });
    progress.set(loaded.done, loaded.total);
}

/// The ready line, for people and for the programs that wait for it.
fn announce(config: &Config, name: &str, app: &App) {
    let (url, info) = (app.url(), app.info());
    println!("{READY}{url}");
    println!("  model    {name}, context {} tokens", info.context_tokens);
    println!("  backend  {}, KV {}", info.backend, info.kv_format);
    match &config.cache {
        None => println!("  cache    off"),
        Some(cache) => {
            let ram = ByteSize(cache.ram_bytes);
            match &cache.disk {
                None => println!("  cache    in memory only, {ram}"),
                Some(_) if app.no_disk().is_some() => {
                    println!("  cache    in memory only, {ram} (the warning says why)");
                }
                Some(disk) => {
                    let (dir, budget) = (disk.dir.display(), ByteSize(disk.budget_bytes));
                    println!(
                        "  cache    {dir} ({} blocks found; {ram} memory, {budget} disk)",
                        app.blocks_found()
                    );
                }
            }
        }
    }
    println!("  try      curl {url}/v1/chat/completions -H 'content-type: application/json' \\");
    println!(
        "             -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello, who are you?\"}}]}}'"
    );
}
