//! Models by Hugging Face id, through the Hub's own client and cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_hub::Cache;
use hf_hub::api::sync::ApiBuilder;

use super::{ModelSource, SourceError};
use crate::config::ModelsConfig;
use crate::mlx::weight_files;

/// What the Hub gets to say which files there are, where a copy is in the cache.
const LOOK_UP: Duration = Duration::from_secs(10);

/// The directory of the snapshot of `id`: a whole copy in the cache, brought up to date where the Hub can be reached, else
/// fetched.
pub(super) fn fetch(id: &str, config: &ModelsConfig) -> Result<ModelSource, SourceError> {
    let cache = config.hf_home.as_ref().map_or_else(Cache::default, |home| Cache::new(home.join("hub")));
    let whole = whole_snapshot(id, &cache);
    let dir = match whole {
        Ok(dir) if config.hf_offline => dir,
        Err(None) if config.hf_offline => {
            return Err(SourceError::Offline { id: id.to_owned(), cache: cache.path().clone() });
        }
        Err(Some(reason)) if config.hf_offline => {
            return Err(SourceError::Incomplete { id: id.to_owned(), reason });
        }
        // Files that are there are not fetched again; a changed revision is.
        whole => match (download(id, cache, config.hf_token.clone(), whole.is_ok()), whole) {
            (Ok(dir), _) => dir,
            (Err(reason), Ok(dir)) => {
                tracing::warn!(
                    "{id} is served from the Hugging Face cache; the Hub could not be asked: {reason}"
                );
                dir
            }
            (Err(reason), Err(_)) => return Err(SourceError::Hub { id: id.to_owned(), reason }),
        },
    };
    Ok(ModelSource::kept(dir, id))
}

/// A snapshot in the cache with all its files: that of the main revision, else the newest. `Err` says what one lacks.
fn whole_snapshot(id: &str, cache: &Cache) -> Result<PathBuf, Option<String>> {
    let main = cache.model(id.to_owned()).get("config.json");
    let main = main.and_then(|path| path.parent().map(Path::to_owned));
    let snapshots = cache.path().join(format!("models--{}", id.replace('/', "--"))).join("snapshots");
    let mut others: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(snapshots)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort_unstable_by(|a, b| b.cmp(a));
    let mut lacks = None;
    for dir in main.into_iter().chain(others.into_iter().map(|(_, dir)| dir)) {
        match missing(&dir) {
            None => return Ok(dir),
            Some(reason) => lacks = lacks.or(Some(reason)),
        }
    }
    Err(lacks)
}

/// What a directory lacks of a model.
fn missing(dir: &Path) -> Option<String> {
    for name in ["config.json", "tokenizer.json"] {
        if !dir.join(name).is_file() {
            return Some(format!("{} is missing", dir.join(name).display()));
        }
    }
    weight_files(dir).err().map(|error| error.to_string())
}

/// Fetches what is missing. With a copy at hand, the Hub gets little time to answer.
fn download(id: &str, cache: Cache, token: Option<String>, copy: bool) -> Result<PathBuf, String> {
    let mut builder = ApiBuilder::from_cache(cache).with_progress(true);
    if token.is_some() {
        builder = builder.with_token(token);
    }
    let repo = Arc::new(builder.build().map_err(|error| error.to_string())?.model(id.to_owned()));
    let (sender, names) = std::sync::mpsc::channel();
    let asked = repo.clone();
    let ask = move || {
        // Whoever asked may have given up.
        sender.send(asked.info()).ok();
    };
    std::thread::Builder::new().name("hub".into()).spawn(ask).map_err(|error| error.to_string())?;
    let info = if copy {
        names.recv_timeout(LOOK_UP).map_err(|_| format!("no answer in {} s", LOOK_UP.as_secs()))?
    } else {
        names.recv().map_err(|error| error.to_string())?
    };
    for file in info.map_err(|error| error.to_string())?.siblings {
        if is_wanted(&file.rfilename) {
            repo.get(&file.rfilename).map_err(|error| error.to_string())?;
        }
    }
    let config = repo.get("config.json").map_err(|error| error.to_string())?;
    Ok(config.parent().map_or(config.clone(), Path::to_owned))
}

/// Weights in safetensors, tokenizer, template and configuration at the top of the repository.
fn is_wanted(name: &str) -> bool {
    let wanted = |ending: &str| Path::new(name).extension().is_some_and(|found| found == ending);
    !name.contains('/') && ["safetensors", "json", "jinja", "model"].into_iter().any(wanted)
}
