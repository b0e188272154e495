//! `prefixd cache`: looking at and after the store of prefix blocks. What it does is in `prefixd_cache::maintenance`;
//! here are the words for it.

mod print;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use prefixd_cache::maintenance::{Collection, Inspector, Purpose};
use prefixd_cache::{Fingerprint, Pin};

use super::progress::Progress;
use crate::config::{Config, Overrides, Size};
use print::Output;

/// What `cache` is told.
#[derive(Clone, Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
    /// Where the prefix blocks are
    #[arg(long, env = "PREFIXD_CACHE_DIR", value_name = "DIR", global = true)]
    cache_dir: Option<PathBuf>,
    /// A configuration file
    #[arg(long, env = "PREFIXD_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum CacheCommand {
    /// List the blocks, chain by chain, and the snapshots
    Ls {
        /// Only those whose fingerprint starts with these digits
        #[arg(long, value_name = "DIGITS")]
        fingerprint: Option<String>,
        /// At most so many blocks, and as many snapshots
        #[arg(long, value_name = "BLOCKS")]
        limit: Option<usize>,
    },
    /// Show the store as a whole
    Stat,
    /// Show one block or snapshot: its place, its tensors, its tokens
    Show {
        /// The key of either, or its first digits
        key: String,
    },
    /// Read every byte and check every checksum
    Verify,
    /// Remove what no request can use: orphans, expired blocks, the quarantine
    Gc {
        /// Remove the blocks and snapshots of every other model, too; the model's fingerprint, or its first digits
        #[arg(long, value_name = "FINGERPRINT")]
        only: Option<String>,
        /// Remove the coldest blocks and snapshots until the others fit, such as 10GB
        #[arg(long, value_name = "SIZE", value_parser = bytes)]
        budget: Option<u64>,
        /// Leave the quarantine
        #[arg(long)]
        keep_quarantine: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove everything
    Clear,
    /// Keep from eviction: a block, all before it, and the snapshot that a prompt up to it goes on from
    Pin {
        /// The key of the block or of the snapshot, or its first digits
        key: String,
        /// How long, such as 90m or 12h; without it until `unpin`
        #[arg(long = "for", value_name = "TIME")]
        time: Option<jiff::SignedDuration>,
    },
    /// Take a pin back
    Unpin {
        /// The key of the block or of the snapshot, or its first digits
        key: String,
    },
    /// Copy blocks and snapshots into a store of their own, which another machine can import or serve from
    Export {
        /// The directory to copy to
        dir: PathBuf,
        /// Keys, or their first digits, of the last blocks of chains, or of snapshots; none: everything
        keys: Vec<String>,
    },
    /// Take in the blocks and snapshots of another store, each verified
    Import {
        /// The directory to copy from
        dir: PathBuf,
    },
    /// Make the index anew from the headers of all files
    Rebuild,
}

/// Runs a command. False when `verify` found something, or `import` and `export` refused something.
pub fn run(args: &CacheArgs) -> anyhow::Result<bool> {
    let dir = store_dir(args)?;
    let out = Output { json: args.json };
    match &args.command {
        CacheCommand::Ls { fingerprint, limit } => {
            let store = open(&dir, Purpose::Read)?;
            let (mut blocks, mut snapshots) = (store.blocks(), store.snapshots());
            if let Some(digits) = fingerprint {
                let digits = digits.to_ascii_lowercase();
                blocks.retain(|block| block.fingerprint.starts_with(&digits));
                snapshots.retain(|snapshot| snapshot.fingerprint.starts_with(&digits));
            }
            let found = (blocks.len(), snapshots.len());
            blocks.truncate(limit.unwrap_or(found.0));
            snapshots.truncate(limit.unwrap_or(found.1));
            out.listed(&blocks, &snapshots, found, store.used_by())?;
        }
        CacheCommand::Stat => out.summary(&open(&dir, Purpose::Read)?.summary())?,
        CacheCommand::Show { key } => {
            let store = open(&dir, Purpose::Read)?;
            let key = store.find(key)?;
            let detail = store.show(&key).with_context(|| format!("the file of {key}"))?;
            out.detail(&detail)?;
        }
        CacheCommand::Verify => {
            let mut store = open(&dir, Purpose::Read)?;
            let progress = Progress::of_things("checking files");
            let report = store.verify(&mut |done, total| progress.set(done, total));
            progress.end();
            let report = report?;
            out.verified(&report, store.used_by())?;
            return Ok(report.damaged.is_empty() && report.unreadable.is_empty());
        }
        CacheCommand::Gc { only, budget, keep_quarantine, dry_run } => {
            let mut store = open(&dir, Purpose::Change)?;
            let only = only.as_deref().map(|digits| fingerprint(&store, digits)).transpose()?;
            let wanted = Collection {
                only,
                budget_bytes: *budget,
                keep_quarantine: *keep_quarantine,
                dry_run: *dry_run,
            };
            out.collected(&store.collect(&wanted)?, *dry_run)?;
        }
        CacheCommand::Clear => out.cleared(&open(&dir, Purpose::Change)?.clear()?)?,
        CacheCommand::Pin { key, time } => {
            let pin = match time {
                None => Pin::Forever,
                Some(time) => Pin::For(Duration::try_from(*time).context("--for must not lie in the past")?),
            };
            set_pin(&dir, key, pin, out)?;
        }
        CacheCommand::Unpin { key } => set_pin(&dir, key, Pin::None, out)?,
        CacheCommand::Export { dir: to, keys } => {
            let store = open(&dir, Purpose::Read)?;
            let keys = keys.iter().map(|key| store.find(key)).collect::<Result<Vec<_>, _>>()?;
            let progress = Progress::of_things("exporting");
            let report = store.export(to, &keys, &mut |done, total| progress.set(done, total));
            progress.end();
            let report = report?;
            out.transferred("exported", &report)?;
            return Ok(report.refused.is_empty());
        }
        CacheCommand::Import { dir: from } => {
            // The first thing a new machine does may be an import.
            std::fs::create_dir_all(dir.join("blocks"))
                .with_context(|| format!("creating {}", dir.display()))?;
            let mut store = open(&dir, Purpose::Change)?;
            let progress = Progress::of_things("importing");
            let report = store.import(from, &mut |done, total| progress.set(done, total));
            progress.end();
            let report = report?;
            out.transferred("imported", &report)?;
            return Ok(report.refused.is_empty());
        }
        CacheCommand::Rebuild => {
            let progress = Progress::of_things("reading headers");
            let store = Inspector::rebuild(&dir, &mut |done, total| progress.set(done, total));
            progress.end();
            let store = store?;
            out.summary(&store.summary())?;
        }
    }
    Ok(true)
}

/// The directory that is named, or that a server would use.
fn store_dir(args: &CacheArgs) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &args.cache_dir {
        return Ok(dir.clone());
    }
    let overrides = Overrides { config: args.config.clone(), ..Overrides::default() };
    let disk = Config::load(&overrides)?.cache.and_then(|cache| cache.disk);
    Ok(disk.context("this configuration keeps nothing on disk; name a directory with --cache-dir")?.dir)
}

fn open(dir: &Path, purpose: Purpose) -> anyhow::Result<Inspector> {
    let progress = Progress::of_things("reading headers");
    let store = Inspector::open(dir, purpose, &mut |done, total| progress.set(done, total));
    progress.end();
    Ok(store?)
}

fn set_pin(dir: &Path, digits: &str, pin: Pin, out: Output) -> anyhow::Result<()> {
    let mut store = open(dir, Purpose::Change)?;
    let key = store.find(digits)?;
    store.pin(&key, pin)?;
    out.detail(&store.show(&key).with_context(|| format!("the file of {key}"))?)
}

/// A size that is no share of anything.
fn bytes(text: &str) -> Result<u64, String> {
    match text.parse()? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Share(_) => Err(format!("`{text}` is a share; expected a size such as 10GB")),
    }
}

/// The fingerprint that begins with these digits.
fn fingerprint(store: &Inspector, digits: &str) -> anyhow::Result<Fingerprint> {
    let digits = digits.to_ascii_lowercase();
    if let Some(whole) = Fingerprint::from_hex(&digits) {
        return Ok(whole);
    }
    let summary = store.summary();
    let mut found = summary.fingerprints.iter().filter(|model| model.fingerprint.starts_with(&digits));
    let first = found.next().and_then(|model| Fingerprint::from_hex(&model.fingerprint));
    let first = first.with_context(|| {
        format!(
            "no model's fingerprint begins with {digits:?}; `prefixd cache stat` shows those that are here"
        )
    })?;
    anyhow::ensure!(
        found.next().is_none(),
        "several models' fingerprints begin with {digits:?}; give more digits"
    );
    Ok(first)
}
