//! Why the Hub did not give a model, in words that say what to do.

use std::io;
use std::path::PathBuf;

use hf_hub::Cache;
use hf_hub::api::sync::ApiError;

/// Why the Hub did not give a model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Asked without a token. The Hub answers so for what does not exist, too.
    #[error(
        "it does not exist, or it is private or gated (401); check the name, or put a token that may read it into HF_TOKEN"
    )]
    NoToken,
    /// The token is none that the Hub knows.
    #[error(
        "the token, from HF_TOKEN or the file `token` in HF_HOME, was not accepted (401); make a new one"
    )]
    Token,
    /// The token's owner has no access.
    #[error(
        "access to it was not granted to this token (403); ask for it on the model's page, then try again"
    )]
    Gated,
    /// No such model.
    #[error("there is no such model (404); check owner and name")]
    Model,
    /// The model is there, the revision is not.
    #[error("it has no revision `{0}` (404); expected a branch, a tag or a whole commit hash")]
    Revision(String),
    /// The repository is not a model that can be served.
    #[error("it has no {missing}, which is needed; it has {found}")]
    Incomplete {
        /// The file.
        missing: String,
        /// The files at its top.
        found: String,
    },
    /// Another process is at it.
    #[error("another process is fetching it ({0} is locked); try again when it is done")]
    Locked(PathBuf),
    /// The cache could not be written.
    #[error("the cache in {dir} could not be written: {reason}")]
    Cache {
        /// The cache.
        dir: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// Nothing came, or not all of it.
    #[error("{0}; what has arrived is kept, and the next try goes on from there")]
    Transfer(String),
}

/// Whether asking again may help.
pub(super) fn may_pass(error: &ApiError) -> bool {
    match error {
        ApiError::RequestError(error) => !matches!(**error, ureq::Error::StatusCode(400..=407 | 409..=428)),
        ApiError::IoError(error) => !is_of_the_disk(error),
        ApiError::InvalidResume => true,
        _ => false,
    }
}

/// The client's error as ours.
pub(super) fn translate(error: &ApiError, has_token: bool, cache: &Cache) -> HubError {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(401) if has_token => HubError::Token,
            ureq::Error::StatusCode(401) => HubError::NoToken,
            ureq::Error::StatusCode(403) => HubError::Gated,
            ureq::Error::StatusCode(404) => HubError::Model,
            ureq::Error::StatusCode(code) => {
                HubError::Transfer(format!("the Hub answered with status {code}"))
            }
            ref error => HubError::Transfer(error.to_string()),
        },
        ApiError::LockAcquisition(path) => HubError::Locked(path.clone()),
        ApiError::IoError(error) if is_of_the_disk(error) => HubError::Cache {
            dir: cache.path().clone(),
            reason: io::Error::new(error.kind(), error.to_string()),
        },
        ApiError::IoError(error) => HubError::Transfer(error.to_string()),
        ApiError::MissingHeader(name) | ApiError::InvalidHeader(name) => {
            HubError::Transfer(format!("the Hub's answer has no usable header {name}; is HF_ENDPOINT a Hub?"))
        }
        error => HubError::Transfer(error.to_string()),
    }
}

/// The client reports the connection and the disk alike.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        error.kind(),
        AlreadyExists
            | FileTooLarge
            | IsADirectory
            | NotADirectory
            | NotFound
            | PermissionDenied
            | QuotaExceeded
            | ReadOnlyFilesystem
            | StorageFull
    )
}
