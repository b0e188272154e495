//! Models by Hugging Face id, through the Hub's own client and cache.

use std::path::{Path, PathBuf};

use hf_hub::Cache;
use hf_hub::api::sync::ApiBuilder;

use super::{ModelSource, SourceError};
use crate::config::ModelsConfig;

/// The directory of the snapshot of `id`, fetched when the cache does not hold it.
pub(super) fn fetch(id: &str, config: &ModelsConfig) -> Result<ModelSource, SourceError> {
    let cache = config.hf_home.as_ref().map_or_else(Cache::default, |home| Cache::new(home.join("hub")));
    let cached =
        cache.model(id.to_owned()).get("config.json").and_then(|path| path.parent().map(Path::to_owned));
    let dir = match cached {
        Some(dir) if config.hf_offline => dir,
        None if config.hf_offline => {
            return Err(SourceError::Offline { id: id.to_owned(), cache: cache.path().clone() });
        }
        // Files that are there are not fetched again; a changed revision is.
        _ => download(id, cache, config.hf_token.clone())
            .map_err(|error| SourceError::Hub { id: id.to_owned(), reason: error.to_string() })?,
    };
    Ok(ModelSource { dir, name: id.to_owned() })
}

fn download(id: &str, cache: Cache, token: Option<String>) -> Result<PathBuf, hf_hub::api::sync::ApiError> {
    let mut builder = ApiBuilder::from_cache(cache).with_progress(true);
    if token.is_some() {
        builder = builder.with_token(token);
    }
    let repo = builder.build()?.model(id.to_owned());
    for file in repo.info()?.siblings {
        if is_wanted(&file.rfilename) {
            repo.get(&file.rfilename)?;
        }
    }
    let config = repo.get("config.json")?;
    Ok(config.parent().map_or(config.clone(), Path::to_owned))
}

/// Weights in safetensors, tokenizer, template and configuration at the top of the repository.
fn is_wanted(name: &str) -> bool {
    let wanted = |ending: &str| Path::new(name).extension().is_some_and(|found| found == ending);
    !name.contains('/') && ["safetensors", "json", "jinja", "model"].into_iter().any(wanted)
}
