//! Counters and sizes. Sums over all tenants: nothing here tells one tenant about another.

use serde::Serialize;

/// A snapshot of the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CacheStats {
    /// Blocks in RAM.
    pub resident: TierStats,
    /// Blocks on disk; `None` without a disk tier.
    pub disk: Option<DiskStats>,
    /// Why there is no disk tier although there should be one.
    pub no_disk: Option<String>,
    /// Blocks that leases keep.
    pub pinned_blocks: u64,
    /// Blocks that a retention pins.
    pub retained_blocks: u64,
    /// Bytes of those.
    pub retained_bytes: u64,
    /// Blocks that were to be pinned beyond the share of the budget that pins may take, or a tenant's part of it.
    pub refused_pins: u64,
    /// Blocks whose pins, beyond their tenant's fair part of that share, ended early to make room for another tenant's.
    pub yielded_pins: u64,
    /// Calls of `lookup`.
    pub lookups: u64,
    /// Tokens found in RAM by lookups.
    pub resident_hit_tokens: u64,
    /// Tokens found on disk by lookups.
    pub disk_hit_tokens: u64,
    /// Tokens asked for by lookups.
    pub asked_tokens: u64,
    /// Lookups by the reason they ended.
    pub misses: MissStats,
    /// Blocks that left their last tier to make room.
    pub evicted_blocks: u64,
    /// Blocks that outlived their lifetime.
    pub expired_blocks: u64,
    /// Window parts that made room on disk.
    pub dropped_windows: u64,
    /// States of recurrent models.
    pub snapshots: SnapshotStats,
}

/// The snapshots of a recurrent model. What they take counts to the budgets of RAM and disk, and is at most a share of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SnapshotStats {
    /// In RAM.
    pub resident: u64,
    /// Bytes of those.
    pub resident_bytes: u64,
    /// Bytes they may take.
    pub resident_budget_bytes: u64,
    /// On disk, those that are in RAM too included.
    pub on_disk: u64,
    /// Allocated bytes of those.
    pub disk_bytes: u64,
    /// Bytes they may take.
    pub disk_budget_bytes: u64,
    /// In RAM, to be written when their conversation is idle.
    pub waiting: u64,
    /// Taken since the cache was opened.
    pub taken: u64,
    /// Of these, written to disk.
    pub written: u64,
    /// Copies that made room, in RAM or on disk.
    pub evicted: u64,
    /// Tokens whose blocks lookups found and could not use, because no snapshot lay there.
    pub no_state_tokens: u64,
}

/// Size of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TierStats {
    /// Blocks in it.
    pub blocks: u64,
    /// Tokens they hold.
    pub tokens: u64,
    /// Bytes they take; allocated bytes on disk.
    pub bytes: u64,
    /// Bytes they may take.
    pub budget_bytes: u64,
    /// Blocks that left it to make room, those that another tier kept included.
    pub evicted_blocks: u64,
}

/// The disk tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskStats {
    /// Blocks of this fingerprint that lookups can find.
    pub tier: TierStats,
    /// Blocks that lookups cannot find: of other fingerprints, or their parent is lost. They leave in one order with all others.
    pub stray_blocks: u64,
    /// Allocated bytes of those.
    pub stray_bytes: u64,
    /// Allocated bytes of everything else in the directory: quarantine, index, files that are not ours.
    pub other_bytes: u64,
    /// Blocks found damaged since the cache was opened.
    pub quarantined: u64,
    /// Writes.
    pub writes: WriteStats,
    /// Blocks that could not be read, by reason.
    pub read_failures: ReadFailureStats,
    /// Bytes read by restores.
    pub read_bytes: u64,
    /// Why blocks are not being written, or not being read, at the moment.
    pub degraded: Option<String>,
}

/// Blocks and snapshots on their way to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WriteStats {
    /// Waiting.
    pub queued_blocks: u64,
    /// Bytes waiting.
    pub queued_bytes: u64,
    /// Durable since the cache was opened.
    pub written_blocks: u64,
    /// Allocated bytes of those.
    pub written_bytes: u64,
    /// Not written because the queue or the disk budget was full.
    pub dropped_blocks: u64,
    /// Not written because the disk said no.
    pub failed_blocks: u64,
    /// Not written because the daily write budget is used up.
    pub over_daily_blocks: u64,
}

/// Lookups by the reason they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MissStats {
    /// All was known.
    pub nothing: u64,
    /// Nobody computed what follows.
    pub absent: u64,
    /// The prompt parts from the closest known one.
    pub diverged: u64,
    /// What follows had to make room.
    pub evicted: u64,
    /// What follows was damaged.
    pub quarantined: u64,
    /// What follows was computed under another fingerprint.
    pub other_fingerprint: u64,
    /// What follows was known, but not the state that the model needs there.
    pub no_state: u64,
    /// What follows outlived its lifetime.
    pub expired: u64,
    /// What follows is on disk and cannot be read at the moment.
    pub unreadable: u64,
}

/// Blocks that could not be read, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReadFailureStats {
    /// Evicted before they were read.
    pub gone: u64,
    /// The file system failed.
    pub io: u64,
    /// Damaged: length, header, format, checksum, fingerprint, identity.
    pub damaged: u64,
}

/// What [`PrefixCache::flush`](crate::PrefixCache::flush) reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlushOutcome {
    /// Every block that should be on disk is.
    Durable,
    /// The deadline came first.
    Late {
        /// Blocks still waiting.
        blocks: u64,
    },
    /// Some blocks could not be written.
    Incomplete {
        /// How many.
        blocks: u64,
        /// Why.
        reason: String,
    },
    /// There is no disk tier.
    NoDisk,
}
