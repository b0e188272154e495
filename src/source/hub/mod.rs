//! Models by Hugging Face id, through the Hub's own client and in its own cache, which other programs share.
//!
//! 1. A snapshot that is complete in the cache is used as it is, without network: what is served does not change by itself.
//! 2. The files of a snapshot are of one commit, and a revision's name moves to it when all of them are there.
//! 3. Only files that this program reads are fetched.
//! 4. A transfer that broke off goes on where it ended, at once or at the next start.

mod error;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use super::{ModelSource, SourceError};
use crate::config::ModelsConfig;
pub use error::HubError;
use transfer::Transfer;

/// The revision that an id without one means.
const USUAL_REVISION: &str = "main";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What is read beside the weights.
const TEXTS: [&str; 6] =
    [CONFIG, TOKENIZER, "tokenizer_config.json", "generation_config.json", "chat_template.jinja", INDEX];

/// A model at a revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Id<'a> {
    /// `owner/name`.
    model: &'a str,
    /// A branch, a tag or a commit.
    revision: &'a str,
}

impl<'a> Id<'a> {
    /// Reads `owner/name` or `owner/name@revision`. `None`: it is neither.
    pub fn read(text: &'a str) -> Option<Self> {
        let (model, revision) = text.split_once('@').unwrap_or((text, USUAL_REVISION));
        let (owner, name) = model.split_once('/')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let part =
            |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain);
        // A revision may have several parts, as in refs/pr/1; it becomes a path, and must stay within its folder.
        (part(owner) && part(name) && revision.split('/').all(part)).then_some(Self { model, revision })
    }

    fn repo(&self) -> Repo {
        self.at(self.revision)
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.model.to_owned(), RepoType::Model, revision.to_owned())
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision {
            USUAL_REVISION => f.write_str(self.model),
            revision => write!(f, "{}@{revision}", self.model),
        }
    }
}

/// The directory of the snapshot of `id`, fetched when the cache does not hold all of it.
pub(super) fn fetch(id: &Id, config: &ModelsConfig) -> Result<ModelSource, SourceError> {
    let cache = config.hf_home.as_ref().map_or_else(Cache::default, |home| Cache::new(home.join("hub")));
    let cached = snapshot(&cache, &id.repo());
    let missing = cached.as_deref().map_or_else(|| vec![CONFIG.to_owned()], missing);
    let dir = match cached {
        Some(dir) if missing.is_empty() => dir,
        _ if config.hf_offline => {
            let cache = cache.path().clone();
            return Err(SourceError::Offline { id: id.to_string(), cache, missing: missing.join(", ") });
        }
        _ => download(id, &cache, config).map_err(|reason| {
            let hub = config.hf_endpoint.as_deref().unwrap_or("the Hugging Face Hub").to_owned();
            SourceError::Hub { id: id.to_string(), hub, reason }
        })?,
    };
    Ok(ModelSource::kept(dir, id.model))
}

/// The snapshot that the revision's name points to, or that of the commit it is.
fn snapshot(cache: &Cache, repo: &Repo) -> Option<PathBuf> {
    let files = cache.repo(repo.clone());
    let named = files.get(CONFIG).and_then(|path| path.parent().map(Path::to_owned));
    named.or_else(|| Some(files.pointer_path(repo.revision())).filter(|dir| dir.join(CONFIG).is_file()))
}

/// The files without which the snapshot in `dir` cannot be served. Another program may have fetched a part only.
fn missing(dir: &Path) -> Vec<String> {
    let mut needed = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
    needed.extend(weights(dir));
    needed.retain(|name| !dir.join(name).is_file());
    needed
}

/// The names of the weight files: those of the index, where there is one.
fn weights(dir: &Path) -> Vec<String> {
    let index = std::fs::read(dir.join(INDEX)).ok();
    let index: Option<Value> = index.and_then(|text| serde_json::from_slice(&text).ok());
    let map = index.as_ref().and_then(|index| index["weight_map"].as_object());
    let Some(map) = map else { return vec![WEIGHTS.to_owned()] };
    let mut names: Vec<String> = map.values().filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Fetches what the cache lacks: the texts first, so that a snapshot with weights is a whole one.
fn download(id: &Id, cache: &Cache, config: &ModelsConfig) -> Result<PathBuf, HubError> {
    let hub = Transfer::new(cache, config.hf_endpoint.clone(), config.hf_token.clone())?;
    let info = hub.info(&id.repo()).map_err(|error| match error {
        HubError::Model if id.revision != USUAL_REVISION && hub.info(&id.at(USUAL_REVISION)).is_ok() => {
            HubError::Revision(id.revision.to_owned())
        }
        error => error,
    })?;
    let listed: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let needed = |name: &str| {
        let top = || listed.iter().filter(|name| !name.contains('/')).copied().collect::<Vec<_>>().join(", ");
        let there = listed.contains(&name) && !name.contains('/');
        there.then_some(()).ok_or_else(|| HubError::Incomplete { missing: name.to_owned(), found: top() })
    };
    needed(CONFIG)?;
    needed(TOKENIZER)?;
    let commit = id.at(&info.sha);
    for name in TEXTS.into_iter().filter(|name| listed.contains(name)) {
        hub.get(&commit, name)?;
    }
    let dir = cache.repo(commit.clone()).pointer_path(&info.sha);
    let weights = weights(&dir);
    weights.iter().try_for_each(|name| needed(name))?;
    for name in &weights {
        hub.get(&commit, name)?;
    }
    let moved = cache.repo(id.repo()).create_ref(&info.sha);
    moved.map_err(|reason| HubError::Cache { dir: cache.path().clone(), reason })?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_name_a_revision() {
        let read = |text| Id::read(text).map(|id| (id.model, id.revision));
        assert_eq!(read("org/tiny"), Some(("org/tiny", "main")));
        assert_eq!(read("org/tiny@v1.0"), Some(("org/tiny", "v1.0")));
        assert_eq!(read("org/tiny@refs/pr/1"), Some(("org/tiny", "refs/pr/1")));
        for wrong in ["tiny", "org/tiny@", "org/tiny@../up", "org/tiny@a/../b", "a/b/c", "../up", "org/@v1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
