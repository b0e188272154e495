//! What a cache is opened with.

use std::path::PathBuf;

use crate::key::Fingerprint;

/// Settings of a [`PrefixCache`](crate::PrefixCache).
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Identity of everything that decides the bytes of a block besides its tokens.
    pub fingerprint: Fingerprint,
    /// Tokens per whole block; at least 1.
    pub block_tokens: usize,
    /// RAM budget of the resident tier in bytes. Blocks pinned by leases that are nowhere else may exceed it.
    pub resident_bytes: u64,
    /// The disk tier; `None` keeps blocks in RAM only.
    pub disk: Option<DiskOptions>,
}

/// Settings of the disk tier.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The store's directory; created, mode 0700, when missing. One process at a time.
    pub dir: PathBuf,
    /// Disk budget in allocated bytes; everything found in the directory counts. 0: a share of a file system that does not
    /// tell its size.
    pub budget_bytes: u64,
    /// Bytes of the filesystem that stay free whatever the budget says.
    pub free_floor_bytes: u64,
    /// Bytes that may wait to be written. What comes on top stays in RAM only and is counted.
    pub write_queue_bytes: u64,
    /// Threads that read blocks; 0 counts as 1.
    pub readers: usize,
}
