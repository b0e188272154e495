//! Opening a store: lock, index, and the two brought into agreement with the files.
//!
//! 1. The files decide: a row without its file goes, a file without its row is read and gets one, a file that is not
//!    what its name says goes to quarantine.
//! 2. Snapshots likewise. Whether the blocks before one are there does not matter: it is of use again when they are.
//! 3. A window part without its block, or whose row says that it was dropped, is removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use prefixd_migrations::{DEFAULT_PRIORITY, Row, SnapshotRow, Window};

use crate::disk::codec::{Contents, Header};
use crate::disk::directory::{Directory, Listed, Listing, io_error};
use crate::disk::files::FileSystem;
use crate::disk::index::{Change, Index};
use crate::disk::load::Reading;
use crate::error::{CacheError, ReadError};
use crate::key::BlockKey;
use crate::memory::Memory;
use crate::payload::Part;
use crate::tier::Written;

/// An opened store.
pub(crate) struct Opened {
    pub directory: Arc<Directory>,
    pub index: Index,
    /// Every block on disk.
    pub rows: Vec<(BlockKey, Row)>,
    /// Every snapshot on disk.
    pub snapshots: Vec<(BlockKey, SnapshotRow)>,
    /// What lies there beside the blocks.
    pub listing: Listing,
    pub quarantined: u64,
    pub written: Written,
}

/// How far opening is: files looked at, of how many.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

pub(crate) fn open(dir: &Path, files: &dyn FileSystem, progress: Progress<'_>) -> Result<Opened, CacheError> {
    let directory = Arc::new(Directory::open(dir)?);
    let index = Index::open(&directory.index())?;
    let failed = |reason| CacheError::Index { path: directory.index(), reason };
    let mut listing = directory.list()?;
    let mut found = std::mem::take(&mut listing.blocks);
    let mut windows_to_remove: Vec<BlockKey> = listing.orphans.drain().map(|(key, _)| key).collect();
    let (mut rows, mut changes, mut quarantined) = (Vec::new(), Vec::new(), 0_u64);
    for (key, row) in index.rows().map_err(failed)? {
        match found.get(&key).and_then(|listed| agreed(row, listed)) {
            Some(row) => {
                let listed = found.remove(&key);
                let leftover = matches!(row.window, Window::None | Window::Inside | Window::Dropped);
                if leftover && listed.is_some_and(|listed| listed.window.is_some()) {
                    windows_to_remove.push(key);
                }
                rows.push((key, row));
            }
            // Another length than the row says: the header decides, as for a file without a row.
            None => changes.push(Change::Remove(key)),
        }
    }
    let mut bad = std::mem::take(&mut listing.impostors);
    let mut found_snapshots = std::mem::take(&mut listing.snapshots);
    let mut snapshots = Vec::new();
    for (key, row) in index.snapshots().map_err(failed)? {
        match found_snapshots.get(&key).filter(|listed| listed.file_bytes == row.file_bytes) {
            Some(listed) => {
                let row = SnapshotRow { allocated_bytes: listed.allocated_bytes, ..row };
                found_snapshots.remove(&key);
                snapshots.push((key, row));
            }
            None => changes.push(Change::Remove(key)),
        }
    }
    let total = (found.len() + found_snapshots.len()) as u64;
    let reading = Reading { directory: &directory, files, memory: &Memory::default() };
    for (done, (key, listed)) in found.into_iter().enumerate() {
        progress(done as u64, total);
        match reading.header(&key, Part::Full) {
            Ok(header) => {
                let row = adopt(&header, listed);
                if row.window == Window::None && listed.window.is_some() {
                    windows_to_remove.push(key);
                }
                changes.push(Change::Put(key, row.encode()));
                rows.push((key, row));
            }
            // Another build's block, or one that cannot be read now: it stays, unused, and is counted.
            Err(ReadError::Format { .. } | ReadError::Io(_)) => listing.other_bytes += listed.all_bytes(),
            Err(ReadError::Gone) => {}
            Err(_) => {
                bad.push((key, Part::Full));
                if listed.window.is_some() {
                    bad.push((key, Part::Window));
                }
            }
        }
    }
    let done = total - found_snapshots.len() as u64;
    for (at, (key, listed)) in found_snapshots.into_iter().enumerate() {
        progress(done + at as u64, total);
        match reading.header(&key, Part::State) {
            Ok(header) => {
                let row = adopt_snapshot(&header, listed);
                changes.push(Change::PutSnapshot(key, row.encode()));
                snapshots.push((key, row));
            }
            Err(ReadError::Format { .. } | ReadError::Io(_)) => listing.other_bytes += listed.allocated_bytes,
            Err(ReadError::Gone) => {}
            Err(_) => bad.push((key, Part::State)),
        }
    }
    progress(total, total);
    quarantined += bad.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len() as u64;
    for (key, part) in bad {
        let quarantining = |source| io_error("quarantining", &directory.path(&key, part), source);
        let bytes = directory.quarantine_file(files, &key, part).map_err(quarantining)?;
        listing.other_bytes += bytes;
        listing.quarantine_bytes += bytes;
        listing.quarantine_files += 1;
    }
    index.apply(&changes).map_err(failed)?;
    for key in windows_to_remove {
        let path = directory.path(&key, Part::Window);
        files.remove(&path).map_err(|source| io_error("removing", &path, source))?;
    }
    let written = index.written();
    Ok(Opened { directory, index, rows, snapshots, listing, quarantined, written })
}

/// The row, if the files are those that it describes.
fn agreed(row: Row, listed: &Listed) -> Option<Row> {
    if row.file_bytes != listed.file_bytes {
        return None;
    }
    let window = match (row.window, listed.window) {
        (Window::Apart { file_bytes, .. }, Some((found, allocated_bytes))) if found == file_bytes => {
            Window::Apart { file_bytes, allocated_bytes }
        }
        (Window::Apart { .. }, _) => return None,
        (other, _) => other,
    };
    Some(Row { allocated_bytes: listed.allocated_bytes, window, ..row })
}

/// The row of a file that has none. Its uses are not known: it counts as used once, when it was written.
pub(crate) fn adopt(header: &Header, listed: Listed) -> Row {
    let window = match (header.contents, listed.window) {
        (Contents::Full { window: true }, Some((file_bytes, allocated_bytes))) => {
            Window::Apart { file_bytes, allocated_bytes }
        }
        (Contents::Full { window: true }, None) => Window::Dropped,
        (Contents::All, _) if header.tensors.iter().any(|tensor| tensor.part == Part::Window) => {
            Window::Inside
        }
        _ => Window::None,
    };
    Row {
        fingerprint: *header.fingerprint.as_bytes(),
        tenant: *header.tenant.as_bytes(),
        parent: header.parent.map(|parent| *parent.as_bytes()),
        start: header.start as u64,
        file_bytes: listed.file_bytes,
        allocated_bytes: listed.allocated_bytes,
        last_use_us: listed.modified_us,
        reuse: 1.0,
        hits: 0,
        window,
        priority: DEFAULT_PRIORITY,
        pinned_until_us: 0,
        ttl_us: 0,
        tokens: header.tokens.clone(),
    }
}

/// The row of a snapshot's file that has none.
pub(crate) fn adopt_snapshot(header: &Header, listed: Listed) -> SnapshotRow {
    SnapshotRow {
        fingerprint: *header.fingerprint.as_bytes(),
        tenant: *header.tenant.as_bytes(),
        parent: header.parent.map(|parent| *parent.as_bytes()),
        start: header.start as u64,
        file_bytes: listed.file_bytes,
        allocated_bytes: listed.allocated_bytes,
        last_use_us: listed.modified_us,
        pinned_until_us: 0,
        tokens: header.tokens.clone(),
    }
}
