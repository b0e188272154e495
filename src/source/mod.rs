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
pub use hub::HubError;

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
    #[error(
        "`{0}` is neither a model directory (one with a config.json) nor a Hugging Face id (owner/name or owner/name@revision)"
    )]
    Unknown(String),
    /// The id is not in the cache, or not all of it, and the network is off.
    #[error(
        "the Hugging Face cache in {cache} lacks {missing} of {id}, and HF_HUB_OFFLINE forbids to fetch it"
    )]
    Offline {
        /// The id.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
        /// The files.
        missing: String,
    },
    /// The Hub did not give it.
    #[error("{id} could not be fetched from {hub}: {reason}")]
    Hub {
        /// The id.
        id: String,
        /// Who was asked.
        hub: String,
        /// Why not.
        reason: HubError,
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
    match hub::Id::read(text) {
        Some(id) if !dir.exists() => hub::fetch(&id, config),
        _ => Err(SourceError::Unknown(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> ModelsConfig {
        ModelsConfig {
            unpack_dir: dir.join("models"),
            hf_home: Some(dir.join("hf")),
            hf_token: None,
            hf_endpoint: None,
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

    #[test]
    fn an_id_is_found_in_the_cache_without_network_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert!(matches!(resolve(Some("org/tiny"), &config), Err(SourceError::Offline { .. })));
        let repo = dir.path().join("hf/hub/models--org--tiny");
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::create_dir_all(repo.join("snapshots/abc")).unwrap();
        std::fs::write(repo.join("refs/main"), "abc").unwrap();
        std::fs::write(repo.join("snapshots/abc/config.json"), "{}").unwrap();
        std::fs::write(repo.join("snapshots/abc/tokenizer.json"), "{}").unwrap();
        let part = resolve(Some("org/tiny"), &config).unwrap_err().to_string();
        assert!(part.contains("lacks model.safetensors of org/tiny"), "{part}");
        std::fs::write(repo.join("snapshots/abc/model.safetensors"), "").unwrap();
        let source = resolve(Some("org/tiny"), &config).unwrap();
        assert_eq!((source.name.as_str(), source.dir), ("org/tiny", repo.join("snapshots/abc")));
    }
}
