//! What can go wrong: opening a store ([`CacheError`]) and reading one block of it ([`ReadError`]).

use std::io;
use std::path::PathBuf;

/// Why a cache could not be opened. Once open, nothing fails: the disk tier degrades and says why.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A setting that cannot work.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// Another process owns the directory.
    #[error("cache directory {} is in use by another process ({holder}); stop it or choose another --cache-dir", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says about its holder.
        holder: String,
    },
    /// The directory, or something that should be a directory or file of the store, is something else.
    #[error("{} is {found}, expected {expected}", path.display())]
    Layout {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What should be there.
        expected: &'static str,
    },
    /// A file operation failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The budget is a share of a file system that does not tell its size.
    #[error("the file system of {} does not tell its size, so that a share of it is nothing; give the disk budget in bytes", dir.display())]
    NoSize {
        /// The directory.
        dir: PathBuf,
    },
    /// The index was written by a newer build, or cannot be used and cannot be replaced.
    #[error("block index in {}: {reason}", path.display())]
    Index {
        /// The index directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl CacheError {
    /// Whether the cache could do its work without the directory: it is sound as far as one can see, and cannot be written.
    pub fn leaves_memory(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Index { .. } | Self::NoSize { .. })
    }
}

/// Why a stored block cannot be used. Always a miss, never a failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It left its last tier before it was read.
    #[error("block is gone: it was evicted before it was read")]
    Gone,
    /// The file system failed. The file stays.
    #[error("reading the block file: {0}")]
    Io(String),
    /// It is not a regular file of this store: a symbolic link, a directory.
    #[error("block file is not a regular file")]
    NotAFile,
    /// Too short, too long, or lengths that contradict each other.
    #[error("block file is {found} bytes long, expected {expected}")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The header cannot be read.
    #[error("block header: {0}")]
    Header(String),
    /// Written in a format that this build does not know.
    #[error("block format {found}, expected {expected}")]
    Format {
        /// What the header says.
        found: String,
        /// What this build reads.
        expected: u32,
    },
    /// Bytes changed since they were written.
    #[error("checksum of {0} does not match")]
    Checksum(String),
    /// Computed by another model, template or KV setting.
    #[error("block was computed under another fingerprint")]
    Fingerprint,
    /// The file holds another block than its name says.
    #[error("block holds other tokens, another parent or another tenant than its key says")]
    Identity,
}

impl ReadError {
    /// Whether the file itself is bad, and not only unreachable.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Gone | Self::Io(_))
    }
}
