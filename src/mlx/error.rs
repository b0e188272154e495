//! Why a model could not be loaded.

use std::path::PathBuf;

use crate::engine::EngineError;
use crate::mlx::kv::KvSettingError;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The model wants something that is not implemented.
    #[error("config.json: {key} is {found}; supported: {expected}")]
    Unsupported {
        /// Key of the configuration.
        key: &'static str,
        /// What it says.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The configuration contradicts itself.
    #[error("config.json: {0}")]
    Config(String),
    /// A tensor is missing, left over, or of another shape.
    #[error("weights: {0}")]
    Weights(String),
    /// The model cannot be served in this KV setting.
    #[error(transparent)]
    Kv(#[from] KvSettingError),
    /// MLX failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<mlx_rs::error::Exception> for LoadError {
    fn from(error: mlx_rs::error::Exception) -> Self {
        Self::Engine(error.into())
    }
}
