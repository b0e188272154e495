//! Opening a store: lock, index, and the two brought into agreement with the files.
//!
//! 1. The files decide: a row without its file goes, a file without its row is read and gets one, a file that is not
//!    what its name says goes to quarantine.

use std::path::Path;
use std::sync::Arc;

use prefixd_migrations::Row;

use crate::disk::directory::{Directory, Listed};
use crate::disk::files::FileSystem;
use crate::disk::index::{Change, Index};
use crate::disk::load::load_header;
use crate::error::{CacheError, ReadError};
use crate::key::BlockKey;

/// An opened store.
pub(crate) struct Opened {
    pub directory: Arc<Directory>,
    pub index: Index,
    /// Every block on disk.
    pub rows: Vec<(BlockKey, Row)>,
    /// Allocated bytes of what is neither a block nor the index.
    pub other_bytes: u64,
    pub quarantined: u64,
}

pub(crate) fn open(dir: &Path, files: &dyn FileSystem) -> Result<Opened, CacheError> {
    let directory = Arc::new(Directory::open(dir)?);
    let index = Index::open(&directory.index())?;
    let failed = |reason| CacheError::Index { path: directory.index(), reason };
    let mut listing = directory.list()?;
    let (mut rows, mut changes, mut quarantined) = (Vec::new(), Vec::new(), 0);
    for (key, row) in index.rows().map_err(failed)?.0 {
        match listing.blocks.get(&key) {
            Some(listed) if listed.file_bytes == row.file_bytes => {
                rows.push((key, Row { allocated_bytes: listed.allocated_bytes, ..row }));
                listing.blocks.remove(&key);
            }
            // Another length than the row says: the header decides, as for a file without a row.
            _ => changes.push(Change::Remove(key)),
        }
    }
    let mut bad: Vec<BlockKey> = listing.impostors;
    for (key, listed) in listing.blocks {
        match load_header(&directory.path(&key), &key) {
            Ok(header) => {
                let row = adopt(&header, listed);
                changes.push(Change::Put(key, row.encode()));
                rows.push((key, row));
            }
            // Another build's block, or one that cannot be read now: it stays, unused, and is counted.
            Err(ReadError::Format { .. } | ReadError::Io(_)) => listing.other_bytes += listed.allocated_bytes,
            Err(ReadError::Gone) => {}
            Err(_) => bad.push(key),
        }
    }
    for key in bad {
        let bytes = directory.quarantine_block(files, &key).map_err(|source| {
            crate::disk::directory::io_error("quarantining", &directory.path(&key), source)
        })?;
        listing.other_bytes += bytes;
        quarantined += 1;
    }
    index.apply(&changes).map_err(failed)?;
    Ok(Opened { directory, index, rows, other_bytes: listing.other_bytes, quarantined })
}

/// The row of a file that has none. Its uses are not known: it counts as used once, when it was written.
fn adopt(header: &crate::disk::codec::Header, listed: Listed) -> Row {
    Row {
        fingerprint: *header.fingerprint.as_bytes(),
        tenant: *header.tenant.as_bytes(),
        parent: header.parent.map(|parent| *parent.as_bytes()),
        start: header.start as u64,
        file_bytes: listed.file_bytes,
        allocated_bytes: listed.allocated_bytes,
        full_bytes: header.full_bytes(),
        last_use_us: listed.modified_us,
        reuse: 1.0,
        hits: 0,
        tokens: header.tokens.clone(),
    }
}
