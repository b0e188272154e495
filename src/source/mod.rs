//! Where a model comes from: the embedded one, a directory, or the Hugging Face Hub.
//!
//! 1. What comes out is a directory with a `config.json`; nothing here looks further into it.
//! 2. The network is used only for an id that the user named and the cache does not hold.

mod embedded;
mod hub;

use std::path::{Path, PathBuf};

use crate::config::ModelsConfig;

/// A model's directory and the name it is served under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSource {
    /// Holds `config.json`, weights and tokenizer.
    pub dir: PathBuf,
    /// The name requests use.
    pub name: String,
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
    /// The Hub did not give it.
    #[error("{id} could not be fetched from the Hugging Face Hub: {reason}")]
    Hub {
        /// The id.
        id: String,
        /// What the client says.
        reason: String,
    },
    /// The embedded model could not be written to disk.
    #[error("the embedded model could not be unpacked to {dir}: {reason}")]
    Unpack {
        /// Where to.
        dir: PathBuf,
        /// What the file system says.
        reason: std::io::Error,
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
        return Ok(ModelSource { dir, name });
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
        assert_eq!(resolve(None, &config(dir.path())).unwrap(), source);
        assert_eq!(std::fs::read(&weights).unwrap(), bytes);
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
        let source = resolve(Some("org/tiny"), &config).unwrap();
        assert_eq!((source.name.as_str(), source.dir), ("org/tiny", repo.join("snapshots/abc")));
    }
}
