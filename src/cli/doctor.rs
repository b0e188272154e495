//! `prefixd doctor`: every start-up check by itself, with its result.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use prefixd_cache::{PrefixCache, Tuning};
use prefixd_engine::{Engine, EngineInfo, Gate};

use super::ServeArgs;
use crate::app::{cache_options, load_options, start_threads};
use crate::config::Config;
use crate::machine;
use crate::mlx::{LoadOptions, Mlx, MlxEngine, Proof, instruction_set, self_check};
use crate::prompt::{Conversation, Message, ModelText, Role};
use crate::source;

/// Results so far.
#[derive(Default)]
struct Report {
    failed: usize,
    warned: usize,
}

impl Report {
    fn note<T>(&mut self, what: &str, result: Result<(T, impl Display), impl Display>) -> Option<T> {
        match result {
            Ok((value, detail)) => {
                println!("ok    {what}: {detail}");
                Some(value)
            }
            Err(error) => {
                println!("FAIL  {what}: {error}");
                self.failed += 1;
                None
            }
        }
    }

    /// What lets the server run and will be missed.
    fn warn(&mut self, what: &str) {
        println!("WARN  {what}");
        self.warned += 1;
    }

    fn end(&self) -> String {
        let checks = if self.failed == 0 { "all checks passed" } else { "some checks failed" };
        match self.warned {
            0 => checks.to_owned(),
            1 => format!("{checks}, with a warning"),
            warned => format!("{checks}, with {warned} warnings"),
        }
    }
}

/// Runs every check that can run. False when one failed.
pub fn run(args: &ServeArgs) -> anyhow::Result<bool> {
    let mut report = Report::default();
    let config = Config::load(&args.overrides).map(|config| (config, "valid"));
    let Some(config) = report.note("configuration", config) else { return Ok(false) };
    if report.note("limits of this process", machine::claim().map(|()| ((), "enough"))).is_none() {
        return Ok(false);
    }
    start_threads(&config)?;
    let found = source::resolve(args.model(), &config.models).map(|source| {
        let detail = format!("{} in {}", source.name, source.dir.display());
        (source, detail)
    });
    let Some(source) = report.note("model files", found) else { return Ok(false) };
    let text = ModelText::open(&source.dir).map(|text| {
        let detail = format!("{} stop tokens", text.stop_tokens.len());
        (text, detail)
    });
    if let Some(text) = report.note("tokenizer and template files", text) {
        check_text(&mut report, &text);
    }
    let options = load_options(&config).map(|options| (options, config.kv_bits.clone()));
    if let Some(options) = report.note("KV setting", options) {
        let gate = Gate::spawn()?;
        let dir = source.dir.clone();
        if let Some(info) = check_model(&mut report, &gate, dir, options) {
            check_cache(&mut report, &config, &info);
        }
    }
    println!("{}", report.end());
    Ok(report.failed == 0)
}

fn check_text(report: &mut Report, text: &ModelText) {
    let round_trip = text.tokenizer.check().map(|trip| {
        let lossy: Vec<&str> = trip.lossy.iter().map(|(kind, _)| *kind).collect();
        let detail = if lossy.is_empty() {
            "exact".to_owned()
        } else {
            format!("spaces kept; lossy: {}", lossy.join(", "))
        };
        ((), detail)
    });
    report.note("tokenizer round trip", round_trip);
    text.concerns().iter().for_each(|concern| report.warn(concern));
    let Some(template) = &text.template else { return };
    let messages = vec![Message::text(Role::User, "Hello")];
    let hello = Conversation { messages, add_generation_prompt: true, ..Conversation::default() };
    let rendered = template.render(&hello).map_err(|error| error.to_string());
    let tokens = rendered
        .and_then(|prompt| text.tokenizer.encode_rendered(&prompt).map_err(|error| error.to_string()));
    report.note(
        "chat template",
        tokens.map(|tokens| ((), format!("\"Hello\" becomes {} tokens", tokens.len()))),
    );
}

/// A check that failed, as text: all that may leave the gate.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

type Line = (String, Result<String, Failed>);

/// Loads the model and checks it on the gate's thread.
fn check_model(report: &mut Report, gate: &Gate, dir: PathBuf, options: LoadOptions) -> Option<EngineInfo> {
    let (lines, info) = report
        .note("MLX", gate.run(move |mx| load_and_check(mx, &dir, options)).map(|found| (found, "runs")))?;
    for (what, result) in lines {
        report.note(&what, result.map(|detail| ((), detail)));
    }
    info
}

fn load_and_check(mx: &Mlx, dir: &Path, options: LoadOptions) -> (Vec<Line>, Option<EngineInfo>) {
    let failed = |error: &dyn Display| Failed(error.to_string());
    let threads = prefixd_blas::threads::count();
    let mut lines: Vec<Line> =
        vec![("processor".into(), Ok(format!("{}, {threads} threads", instruction_set())))];
    match MlxEngine::memory(mx, dir) {
        Ok(need) => lines.push(("memory".into(), Ok(need.to_string()))),
        Err(error) => lines.push(("memory".into(), Err(failed(&error)))),
    }
    let mut engine = match MlxEngine::load(mx, dir, options, &mut |_| {}) {
        Ok(engine) => engine,
        Err(error) => {
            lines.push(("weights".into(), Err(failed(&error))));
            return (lines, None);
        }
    };
    let info = engine.info().clone();
    let (arrays, settled) = engine.materialized();
    let materialized = if arrays == settled {
        Ok(format!("{arrays}"))
    } else {
        Err(Failed(format!("{settled} of {arrays}")))
    };
    let check = self_check(&mut engine, usize::MAX, &mut |_| ()).map_err(|error| failed(&error));
    let detail = check.map(|check| {
        format!(
            "{} tokens, distance {:.1e}, allowed {:.1e}",
            check.prompt_tokens, check.distance, check.tolerance
        )
    });
    // Loading has failed where one was too far off.
    lines.extend(engine.proofs().iter().map(|proof| {
        let Proof { layer, tokens, what, distance, allowed } = proof;
        let tokens = format!("{tokens} new token{}", if *tokens == 1 { "" } else { "s" });
        (
            format!("kernels, {what} of layer {layer}, {tokens}"),
            Ok(format!("{distance:.1e} from the definition, allowed {allowed:.1e}")),
        )
    }));
    lines.extend([
        ("weights".into(), Ok(format!("loaded on {}", info.backend))),
        ("materialized arrays".into(), materialized),
        ("chunked = one-shot, imported = computed".into(), detail),
    ]);
    (lines, Some(info))
}

fn check_cache(report: &mut Report, config: &Config, info: &EngineInfo) {
    let Some(cache) = &config.cache else {
        report.note("cache", Ok::<_, String>(((), "off")));
        return;
    };
    let tuning = Tuning { disk_is_optional: true, ..Tuning::default() };
    let opened = PrefixCache::open_tuned(cache_options(cache, info, config.block_tokens), tuning);
    let lost = opened.as_ref().ok().and_then(|cache| cache.stats().no_disk);
    if let Some(reason) = lost {
        report.warn(&format!("cache directory: blocks are kept in memory only: {reason}"));
        return;
    }
    let opened = opened.map(|cache| {
        let stats = cache.stats();
        let detail = match &stats.disk {
            None => "in memory only".to_owned(),
            Some(disk) => {
                format!("{} blocks of this model on disk, {} of others", disk.tier.blocks, disk.stray_blocks)
            }
        };
        ((), detail)
    });
    report.note("cache directory", opened);
}
