//! prefixd-cache: a tiered, content-addressed, crash-proof store of prompt prefix blocks.
//!
//! A prompt is cut into blocks of a fixed number of tokens. A block is named by its tokens and everything before them
//! ([`BlockKey`]), carries the KV bytes of those tokens ([`Payload`]) and lives in RAM, on disk or in both.
//! [`PrefixCache`] is the whole interface: one thread owns it, every call returns at once, and files are read and
//! written on threads of its own. `FORMAT.md` describes the bytes on disk.
//!
//! Order of the modules, which is the order of what may depend on what: `key`, `memory`, `payload`, `block`, `policy`, `tree`,
//! `snapshots`, `orphans`, `tier`, `disk`, `cache`; beside `cache`, `maintenance` looks after a store from outside.
//!
//! Invariant: nothing here knows of MLX, of HTTP or of an async runtime.
#![forbid(unsafe_code)]

/// The examples of `README.md`, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod block;
mod cache;
mod disk;
mod error;
mod ghosts;
mod key;
mod lookup;
pub mod maintenance;
mod memory;
mod options;
mod orphans;
mod payload;
mod policy;
mod restored;
mod retention;
mod snapshot;
mod snapshots;
mod stats;
mod tenants;
#[cfg(test)]
mod testing;
mod tier;
mod tree;
mod tuning;

pub use block::Block;
pub use cache::{Freed, Lease, Moved, Pinned, PrefixCache, PrefixSize};
pub use disk::try_directory;
pub use error::{CacheError, ReadError};
pub use key::{BlockKey, Fingerprint, Tenant};
pub use lookup::{Hit, Lookup, Miss, Reuse, SnapshotHit, Tier};
pub use memory::{Buffer, Bytes, Counted, Memory, Watch};
pub use options::{CacheOptions, DiskOptions};
pub use payload::{Part, Payload, TensorBytes};
pub use policy::{BlockFacts, CostAware, EvictionPolicy, Lru, Usage};
pub use restored::{Restored, RestoredBlock};
pub use retention::{Pin, Retention};
pub use safetensors::Dtype;
pub use snapshot::SnapshotKind;
pub use stats::{
    CacheStats, DiskStats, FlushOutcome, MissStats, ReadFailureStats, SnapshotStats, TierStats, WriteStats,
};
pub use tenants::TenantStats;
pub use tuning::{Tuning, WallClock};
