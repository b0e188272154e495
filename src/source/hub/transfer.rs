//! Files from the Hub into its cache: whole, resumed where they broke off, and shown while they come.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo};
use indicatif::ProgressBar;

use super::error::{HubError, may_pass, translate};

/// What is waited before a file is asked for again, when the last time brought nothing of it.
const WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// The client, the cache it fills, and whether it shows a token.
pub(super) struct Transfer {
    api: Api,
    cache: Cache,
    has_token: bool,
}

impl Transfer {
    /// A client of the Hub at `endpoint`, or at its usual address. Without `token` the one that the Hub's own tools keep
    /// beside the cache is shown.
    pub fn new(cache: &Cache, endpoint: Option<String>, token: Option<String>) -> Result<Self, HubError> {
        let token = token.or_else(|| cache.token());
        let has_token = token.is_some();
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_token(token);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let api = builder.build().map_err(|error| translate(&error, has_token, cache))?;
        Ok(Self { api, cache: cache.clone(), has_token })
    }

    /// The commit and the files of a revision.
    pub fn info(&self, repo: &Repo) -> Result<RepoInfo, HubError> {
        let info = self.api.repo(repo.clone()).info().map_err(|error| self.ours(&error))?;
        // It becomes part of a path.
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(HubError::Transfer(format!(
                "the Hub named a commit `{}`; expected a hash",
                info.sha
            )));
        }
        Ok(info)
    }

    /// Makes sure that the cache holds a file of a commit. What breaks off goes on at once as long as bytes come.
    pub fn get(&self, commit: &Repo, name: &str) -> Result<(), HubError> {
        if self.cache.repo(commit.clone()).get(name).is_some() {
            return Ok(());
        }
        let repo = self.api.repo(commit.clone());
        let mut waits = WAITS.into_iter();
        let mut arrived = 0;
        loop {
            let mut part = PathBuf::new();
            let error = match self.attempt(commit, &repo, name, &mut part) {
                Ok(()) => return Ok(()),
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(self.ours(&error)),
            };
            let now = length(&part);
            if now > arrived {
                tracing::warn!(file = name, bytes = now, %error, "the transfer broke off; going on from there");
                arrived = now;
            } else if let Some(wait) = waits.next() {
                tracing::warn!(file = name, %error, "no answer; asking again");
                std::thread::sleep(wait);
            } else {
                return Err(self.ours(&error));
            }
        }
    }

    /// One request for a file, or for what `part`, which is named here, does not hold of it.
    fn attempt(&self, commit: &Repo, repo: &ApiRepo, name: &str, part: &mut PathBuf) -> Result<(), ApiError> {
        let about = self.api.metadata(&repo.url(name))?;
        let (expected, blob) = (about.size() as u64, self.cache.repo(commit.clone()).blob_path(about.etag()));
        *part = blob.with_extension("part");
        if length(part) >= expected {
            // Nothing is left to ask for, and the client would ask.
            remove(part)?;
        }
        tracing::info!(file = name, bytes = expected, "fetching");
        let bar = ProgressBar::new(expected);
        let link = repo.download_with_progress(name, bar.clone())?;
        bar.finish_and_clear();
        let found = length(&blob);
        if found == expected {
            return Ok(());
        }
        // The client takes the end of a connection for the end of the file.
        remove(&link)?;
        if found < expected {
            fs::rename(&blob, &*part)?;
        } else {
            remove(&blob)?;
        }
        let reason = format!("{name}: {found} bytes arrived, expected {expected}");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason).into())
    }

    fn ours(&self, error: &ApiError) -> HubError {
        translate(error, self.has_token, &self.cache)
    }
}

/// Bytes of a file; 0 where there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
