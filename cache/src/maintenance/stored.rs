//! One view of what lies in a store: blocks and snapshots alike stand behind a block, or at the start of a prompt.
//!
//! 1. Nothing stands behind a snapshot.
//! 2. A snapshot lies on the blocks that a prompt up to its place ends with: the one behind which it stands, or those that
//!    follow that one and begin with its tokens.

use prefixd_migrations::{Row, SnapshotRow, Window};

use crate::disk::codec::{Contents, Header};
use crate::disk::directory::{Listed, Listing};
use crate::disk::index::Change;
use crate::disk::load::Reading;
use crate::disk::open::{adopt, adopt_snapshot};
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::payload::Part;
use crate::tier::Expected;

/// The row of a block or of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored {
    Block(Row),
    Snapshot(SnapshotRow),
}

/// What rows of both kinds say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    /// The block that it stands behind.
    pub parent: Option<BlockKey>,
    /// Where its tokens begin: behind that block.
    pub start: u64,
    pub tokens: &'a [u32],
    /// Allocated bytes of all its files.
    pub bytes: u64,
    pub last_use_us: u64,
    pub pinned_until_us: u64,
}

impl Facts<'_> {
    pub fn end(&self) -> u64 {
        self.start + self.tokens.len() as u64
    }

    pub fn is_pinned(&self, now_us: u64) -> bool {
        self.pinned_until_us > now_us
    }
}

impl Stored {
    /// The row of a file that has none.
    pub fn adopt(header: &Header, listed: Listed) -> Self {
        match header.contents {
            Contents::Snapshot => Self::Snapshot(adopt_snapshot(header, listed)),
            Contents::Full { .. } | Contents::Window | Contents::All => Self::Block(adopt(header, listed)),
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        let (fingerprint, tenant, parent, tokens) = match self {
            Self::Block(row) => (row.fingerprint, row.tenant, row.parent, &row.tokens),
            Self::Snapshot(row) => (row.fingerprint, row.tenant, row.parent, &row.tokens),
        };
        let (start, bytes, last_use_us, pinned_until_us) = match self {
            Self::Block(row) => (row.start, row.all_bytes(), row.last_use_us, row.pinned_until_us),
            Self::Snapshot(row) => (row.start, row.allocated_bytes, row.last_use_us, row.pinned_until_us),
        };
        Facts {
            fingerprint: Fingerprint::from_bytes(fingerprint),
            tenant: Tenant::from_bytes(tenant),
            parent: parent.map(BlockKey::from_bytes),
            start,
            tokens,
            bytes,
            last_use_us,
            pinned_until_us,
        }
    }

    pub fn block(&self) -> Option<&Row> {
        match self {
            Self::Block(row) => Some(row),
            Self::Snapshot(_) => None,
        }
    }

    pub fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }

    /// Whether this snapshot lies on the block `key`.
    pub fn lies_on(&self, key: &BlockKey, block: &Row) -> bool {
        let Self::Snapshot(row) = self else { return false };
        let within = row.parent == block.parent
            && (row.fingerprint, row.tenant) == (block.fingerprint, block.tenant)
            && !row.tokens.is_empty()
            && block.tokens.starts_with(&row.tokens);
        within || (row.tokens.is_empty() && row.parent == Some(*key.as_bytes()))
    }

    /// The same, pinned until then.
    #[must_use]
    pub fn pinned(&self, pinned_until_us: u64) -> Self {
        match self.clone() {
            Self::Block(row) => Self::Block(Row { pinned_until_us, ..row }),
            Self::Snapshot(row) => Self::Snapshot(SnapshotRow { pinned_until_us, ..row }),
        }
    }

    /// The change that gives the index this row.
    pub fn put(&self, key: BlockKey) -> Change {
        match self {
            Self::Block(row) => Change::Put(key, row.encode()),
            Self::Snapshot(row) => Change::PutSnapshot(key, row.encode()),
        }
    }

    /// The part whose file says what it is; a block may have a window part beside it.
    pub fn part(&self) -> Part {
        match self {
            Self::Block(_) => Part::Full,
            Self::Snapshot(_) => Part::State,
        }
    }

    /// Reads all of it and checks every byte; returns how many those were.
    pub fn verify(&self, key: &BlockKey, reading: Reading<'_>) -> Result<u64, ReadError> {
        let Facts { fingerprint, tenant, parent, start, tokens, .. } = self.facts();
        let (start, tokens) = (start as usize, tokens.into());
        let expected = Expected { key: *key, fingerprint, tenant, parent, start, tokens };
        let loaded = match self {
            Self::Block(row) => reading.load(&expected, row.window != Window::Dropped),
            Self::Snapshot(_) => reading.load_snapshot(&expected),
        };
        loaded.map(|loaded| loaded.read_bytes).map_err(|failure| failure.error)
    }
}

/// The blocks and snapshots of a listing, in order of key.
pub(super) fn listed(listing: &Listing) -> Vec<(BlockKey, Part, Listed)> {
    let blocks = listing.blocks.iter().map(|(key, listed)| (*key, Part::Full, *listed));
    let snapshots = listing.snapshots.iter().map(|(key, listed)| (*key, Part::State, *listed));
    let mut all: Vec<_> = blocks.chain(snapshots).collect();
    all.sort_by_key(|(key, ..)| *key);
    all
}
