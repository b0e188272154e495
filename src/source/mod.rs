//! Where a model comes from: the embedded one, a directory, or the Hugging Face Hub.
//!
//! 1. What comes out is a directory with a `config.json`; of an id's copies in the cache, one with all its files.
//! 2. The network is used only for an id that the user named, and a whole copy of it in the cache does without.

mod embedded;
mod hub;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::config::ModelsConfig;

/// A model's directory and the name it is served under.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// Holds `config.json`, weights and tokenizer.
    pub dir: PathBuf,
    /// The name requests use.
    pub name: String,
    /// Removes the directory when the last copy of this is dropped.
    _temporary: Option<Arc<TempDir>>,
}

impl ModelSource {
    fn kept(dir: PathBuf, name: impl Into<String>) -> Self {
        Self { dir, name: name.into(), _temporary: None }
    }
}

/// Why a model could not be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither a directory nor an id.
    #[error("`{0}` is neither a model directory (one with a config.json) nor a Hugging Face id (owner/name)")]
    Unknown(String),
    /// The id is not in the cache and the network is off.
    #[error("{id} is not in the Hugging Face cache ({cache}) and HF_HUB_OFFLINE forbids to fetch it")]
    Offline {
        /// The id.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The cache holds a part of it and the network is off.
    #[error(
        "{id} is not whole in the Hugging Face cache, and HF_HUB_OFFLINE forbids to fetch the rest: {reason}"
    )]
    Incomplete {
        /// The id.
        id: String,
        /// What is missing.
        reason: String,
    },
    /// The Hub did not give it.
    #[error("{id} could not be fetched from the Hugging Face Hub: {reason}")]
    Hub {
        /// The id.
        id: String,
        /// What the client says.
        reason: String,
    },
    /// The embedded model could not be written to disk.
    #[error(
        "the embedded model could not be unpacked anywhere ({}); free one of these places, or name a model directory",
        tried.join("; ")
    )]
    Unpack {
        /// Where to, and what the file system said.
        tried: Vec<String>,
    },
}

/// Finds `model`: `None` is the embedded one.
pub fn resolve(model: Option<&str>, config: &ModelsConfig) -> Result<ModelSource, SourceError> {
    let Some(text) = model else { return embedded::unpack(&config.unpack_dir) };
    let dir = Path::new(text);
    if dir.join("config.json").is_file() {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let name =
            dir.file_name().map_or_else(|| text.to_owned(), |name| name.to_string_lossy().into_owned());
        return Ok(ModelSource::kept(dir, name));
    }
    match text.split_once('/') {
        Some((owner, name)) if is_id_part(owner) && is_id_part(name) && !dir.exists() => {
            hub::fetch(text, config)
        }
        _ => Err(SourceError::Unknown(text.to_owned())),
    }
}

fn is_id_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> ModelsConfig {
        ModelsConfig {
            unpack_dir: dir.join("models"),
            hf_home: Some(dir.join("hf")),
            hf_token: None,
            hf_offline: true,
        }
    }

    #[test]
    fn the_embedded_model_is_unpacked_once_and_mended_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let source = resolve(None, &config(dir.path())).unwrap();
        assert_eq!(source.name, "clerk");
        let weights = source.dir.join("model.safetensors");
        let bytes = std::fs::read(&weights).unwrap();
        std::fs::write(&weights, &bytes[..100]).unwrap();
        assert_eq!(resolve(None, &config(dir.path())).unwrap().dir, source.dir);
        assert_eq!(std::fs::read(&weights).unwrap(), bytes);
    }

    #[test]
    fn where_the_embedded_model_cannot_be_kept_it_is_unpacked_for_as_long_as_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        // A file in the place of a directory stops everyone, root included.
        std::fs::write(dir.path().join("models"), "").unwrap();
        let source = resolve(None, &config(dir.path())).unwrap();
        let (copy, unpacked) = (source.clone(), source.dir.clone());
        drop(source);
        assert!(unpacked.join("model.safetensors").is_file());
        drop(copy);
        assert!(!unpacked.exists());
    }

    #[test]
    fn a_directory_is_served_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tiny")).unwrap();
        std::fs::write(dir.path().join("tiny/config.json"), "{}").unwrap();
        let source = resolve(dir.path().join("tiny").to_str(), &config(dir.path())).unwrap();
        assert_eq!((source.name.as_str(), source.dir), ("tiny", dir.path().join("tiny")));
    }

    #[test]
    fn what_is_neither_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "nothing", "/no/such/place", "a/b/c", "../up"] {
            let error = resolve(Some(text), &config(dir.path())).unwrap_err();
            assert!(matches!(&error, SourceError::Unknown(found) if found == text), "{error}");
        }
    }

    /// A copy in the cache: the revision `commit`, with these files.
    fn cached(dir: &Path, commit: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let repo = dir.join("hf/hub/models--org--tiny");
        let snapshot = repo.join("snapshots").join(commit);
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(repo.join("refs/main"), commit).unwrap();
        files.iter().for_each(|(name, bytes)| std::fs::write(snapshot.join(name), bytes).unwrap());
        snapshot
    }

    const EMPTY: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
    const WHOLE: [(&str, &[u8]); 3] =
        [("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", EMPTY)];

    #[test]
    fn a_whole_copy_in_the_cache_does_without_the_network_and_a_part_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let offline = config(dir.path());
        assert!(matches!(resolve(Some("org/tiny"), &offline), Err(SourceError::Offline { .. })));
        for count in 0..WHOLE.len() {
            cached(dir.path(), "part", &WHOLE[..count]);
            let error = resolve(Some("org/tiny"), &offline).unwrap_err();
            let SourceError::Incomplete { reason, .. } = &error else { panic!("{error}") };
            assert!(reason.contains(WHOLE[count].0), "{reason}");
        }
        let snapshot = cached(dir.path(), "whole", &WHOLE);
        // A fetch of a newer revision that broke off leaves the older one to serve.
        cached(dir.path(), "newer", &WHOLE[..1]);
        let source = resolve(Some("org/tiny"), &offline).unwrap();
        assert_eq!((source.name.as_str(), source.dir), ("org/tiny", snapshot));
    }
}
