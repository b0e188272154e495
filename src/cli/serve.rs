//! `prefixd serve`: load, say that it is ready, serve.

use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use super::ServeArgs;
use super::child::READY;
use crate::app::App;
use crate::config::Config;
use crate::mlx::{LoadProgress, LoadStage};
use crate::source;

/// Serves until a signal.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.overrides)?;
    start_log(&config)?;
    let source = source::resolve(args.model(), &config.models)?;
    let bar = load_bar()?;
    let shown = bar.clone();
    let app = App::start(&config, &source, move |progress| show(&shown, progress))?;
    bar.finish_and_clear();
    app.run(|app| announce(&config, &source.name, app))?;
    Ok(())
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|error| anyhow::anyhow!("log.level is `{}`: {error}", config.log_level))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.init();
    }
    Ok(())
}

/// A bar over the bytes of the weights; nothing where standard error is no terminal.
pub(super) fn load_bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

pub(super) fn show(bar: &ProgressBar, progress: LoadProgress) {
    bar.set_message(match progress.stage {
        LoadStage::Digest => "checking weights",
        LoadStage::Weights => "loading weights",
    });
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.done_bytes);
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
