//! The store's directory: who may use it, what lies where, and what else is in it.
//!
//! ```text
//! LOCK                                      held by the process that uses the store
//! blocks/<2 hex>/<key>.safetensors          the blocks: the truth
//! blocks/<2 hex>/<key>.window.safetensors   their window parts, where they have one
//! blocks/<2 hex>/<key>.state.safetensors    the snapshots
//! index/                                    sled, derived from the blocks
//! tmp/                                      files being written; emptied when the store is opened
//! quarantine/                               files that were found damaged
//! ```
//!
//! 1. Directories are real ones, mode 0700: a symbolic link in the place of one is refused.
//! 2. One process at a time.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::disk::files::{self, FileSystem};
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::payload::Part;

const SUFFIX: &str = ".safetensors";
/// Enough to find a file system full, or a limit on the size of files that blocks would not fit under.
const TRIAL_BYTES: usize = 1 << 16;
const WINDOW_SUFFIX: &str = ".window.safetensors";
const STATE_SUFFIX: &str = ".state.safetensors";
/// Every kind of file that a key may have, in the order in which they are removed: a block file without its window part is
/// whole in itself, the other way round it is nothing.
pub(crate) const PARTS: [Part; 3] = [Part::Window, Part::Full, Part::State];

/// An opened, locked store directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// Dropping it releases the lock; `None` when the directory is only looked at.
    _lock: Option<File>,
}

/// A block file as a listing sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub file_bytes: u64,
    pub allocated_bytes: u64,
    /// Last change, microseconds since 1970.
    pub modified_us: u64,
    /// Length and allocated bytes of the window part.
    pub window: Option<(u64, u64)>,
}

impl Listed {
    /// Allocated bytes of both files.
    pub fn all_bytes(&self) -> u64 {
        self.allocated_bytes + self.window.map_or(0, |(_, allocated_bytes)| allocated_bytes)
    }
}

/// Everything in the directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub blocks: HashMap<BlockKey, Listed>,
    /// Those without a window part.
    pub snapshots: HashMap<BlockKey, Listed>,
    /// Things with the name of a block, a window part or a snapshot that are not regular files.
    pub impostors: Vec<(BlockKey, Part)>,
    /// Window parts without their block: length and allocated bytes.
    pub orphans: HashMap<BlockKey, (u64, u64)>,
    /// Allocated bytes of quarantined files.
    pub quarantine_bytes: u64,
    /// Quarantined files.
    pub quarantine_files: u64,
    /// Allocated bytes of everything that is no block, no snapshot and not the index; the quarantine included.
    pub other_bytes: u64,
}

impl Directory {
    /// Creates what is missing, checks what is there and takes the lock.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(dir).map_err(|source| {
            let path = dir.to_owned();
            match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => CacheError::Layout {
                    path,
                    found: "not a directory, or lies below a file",
                    expected: "a directory",
                },
                _ => io_error("creating", dir, source),
            }
        })?;
        let root = dir.canonicalize().map_err(|source| io_error("resolving", dir, source))?;
        own_dir(&root)?;
        let lock = lock(&root)?;
        let directory = Self { root, _lock: Some(lock) };
        for dir in [directory.blocks(), directory.tmp(), directory.quarantine()] {
            if let Err(source) = files::create_dir(&dir)
                && source.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(io_error("creating", &dir, source));
            }
            own_dir(&dir)?;
        }
        directory.empty_tmp()?;
        Ok(directory)
    }

    /// Writes a file as long as a small block's, and removes it.
    pub fn try_writing(&self) -> Result<(), CacheError> {
        let path = self.tmp().join("trial");
        let failed = |source| io_error("writing", &path, source);
        let written = fs::write(&path, vec![0; TRIAL_BYTES]).and_then(|()| File::open(&path)?.sync_all());
        // What was written of it has to go in any case.
        let removed = fs::remove_file(&path);
        written.and(removed).map_err(failed)
    }

    /// Opens a store that is there already to read its blocks, without the lock: another process may be using it.
    pub fn look(dir: &Path) -> Result<Self, CacheError> {
        let failed = |source| io_error("opening", dir, source);
        let root = dir.canonicalize().map_err(failed)?;
        let blocks = root.join("blocks");
        let metadata =
            fs::symlink_metadata(&blocks).map_err(|source| io_error("opening", &blocks, source))?;
        if !metadata.is_dir() {
            let found = if metadata.is_symlink() { "a symbolic link" } else { "not a directory" };
            return Err(CacheError::Layout { path: blocks, found, expected: "a directory of blocks" });
        }
        Ok(Self { root, _lock: None })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The directory a block's file lies in.
    pub fn shard(&self, key: &BlockKey) -> PathBuf {
        self.blocks().join(&key.to_string()[..2])
    }

    /// Where the file of a block's part is.
    pub fn path(&self, key: &BlockKey, part: Part) -> PathBuf {
        let suffix = match part {
            Part::Full => SUFFIX,
            Part::Window => WINDOW_SUFFIX,
            Part::State => STATE_SUFFIX,
        };
        self.shard(key).join(format!("{key}{suffix}"))
    }

    /// Where a file lies while it is written.
    pub fn tmp_path(&self, key: &BlockKey, copy: u64) -> PathBuf {
        self.tmp().join(format!("{key}.{copy}"))
    }

    /// Allocated bytes of a key's files.
    pub fn allocated_bytes(&self, key: &BlockKey) -> u64 {
        PARTS
            .iter()
            .filter_map(|part| fs::symlink_metadata(self.path(key, *part)).ok())
            .map(|metadata| files::allocated(&metadata))
            .sum()
    }

    /// Moves a block's files out of the way, under names that are not taken, and returns their allocated bytes.
    pub fn quarantine_block(&self, files: &dyn FileSystem, key: &BlockKey) -> io::Result<u64> {
        let mut bytes = 0;
        for part in PARTS {
            bytes += self.quarantine_file(files, key, part)?;
        }
        files.sync_dir(&self.shard(key))?;
        Ok(bytes)
    }

    /// Moves one file out of the way, if it is there; its allocated bytes.
    pub fn quarantine_file(&self, files: &dyn FileSystem, key: &BlockKey, part: Part) -> io::Result<u64> {
        let from = self.path(key, part);
        let bytes = match fs::symlink_metadata(&from) {
            Ok(metadata) => files::allocated(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let name = match part {
            Part::Full => key.to_string(),
            Part::Window => format!("{key}.window"),
            Part::State => format!("{key}.state"),
        };
        let to = (0..u32::MAX)
            .map(|number| self.quarantine().join(format!("{name}.{number}")))
            .find(|to| fs::symlink_metadata(to).is_err())
            .ok_or_else(|| io::Error::other("no free name in quarantine"))?;
        files.rename(&from, &to)?;
        Ok(bytes)
    }

    /// Lists the directory without following links.
    pub fn list(&self) -> Result<Listing, CacheError> {
        let mut listing = Listing::default();
        let quarantine = self.quarantine();
        let mut pending = vec![self.root.clone()];
        while let Some(dir) = pending.pop() {
            let failed = |source| io_error("listing", &dir, source);
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = entry.path();
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(io_error("looking at", &path, source)),
                };
                let allocated_bytes = files::allocated(&metadata);
                let listed = || {
                    let modified_us = (metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1_000).max(0);
                    let (file_bytes, modified_us) = (metadata.len(), modified_us.cast_unsigned());
                    Listed { file_bytes, allocated_bytes, modified_us, window: None }
                };
                match self.block_at(&path) {
                    Some((key, Part::Full)) if metadata.is_file() => {
                        listing.blocks.insert(key, listed());
                    }
                    Some((key, Part::State)) if metadata.is_file() => {
                        listing.snapshots.insert(key, listed());
                    }
                    Some((key, Part::Window)) if metadata.is_file() => {
                        listing.orphans.insert(key, (metadata.len(), allocated_bytes));
                    }
                    Some(impostor) => listing.impostors.push(impostor),
                    None if path == self.index() => {}
                    None => {
                        listing.other_bytes += allocated_bytes;
                        if metadata.is_dir() {
                            pending.push(path);
                        } else if dir == quarantine {
                            listing.quarantine_files += 1;
                            listing.quarantine_bytes += allocated_bytes;
                        }
                    }
                }
            }
        }
        for (key, listed) in &mut listing.blocks {
            listed.window = listing.orphans.remove(key);
        }
        Ok(listing)
    }

    /// Allocated bytes of the index.
    pub fn index_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut pending = vec![self.index()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if let Ok(metadata) = entry.metadata() {
                    bytes += files::allocated(&metadata);
                    if metadata.is_dir() {
                        pending.push(entry.path());
                    }
                }
            }
        }
        bytes
    }

    /// The block, and the part of it, whose place `path` is.
    fn block_at(&self, path: &Path) -> Option<(BlockKey, Part)> {
        let name = path.file_name()?.to_str()?;
        let stem = |suffix, part| name.strip_suffix(suffix).map(|text| (text, part));
        let (text, part) = stem(WINDOW_SUFFIX, Part::Window)
            .or_else(|| stem(STATE_SUFFIX, Part::State))
            .or_else(|| stem(SUFFIX, Part::Full))?;
        let key = BlockKey::from_hex(text)?;
        (self.path(&key, part) == path).then_some((key, part))
    }

    fn empty_tmp(&self) -> Result<(), CacheError> {
        let tmp = self.tmp();
        for entry in fs::read_dir(&tmp).map_err(|source| io_error("listing", &tmp, source))?.flatten() {
            fs::remove_file(entry.path()).map_err(|source| io_error("removing", &entry.path(), source))?;
        }
        Ok(())
    }
}

fn own_dir(dir: &Path) -> Result<(), CacheError> {
    let metadata = fs::symlink_metadata(dir).map_err(|source| io_error("looking at", dir, source))?;
    if !metadata.is_dir() {
        let found = if metadata.is_symlink() { "a symbolic link" } else { "not a directory" };
        return Err(CacheError::Layout { path: dir.to_owned(), found, expected: "a directory" });
    }
    if metadata.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|source| io_error("setting mode 0700 on", dir, source))?;
    }
    Ok(())
}

fn lock(root: &Path) -> Result<File, CacheError> {
    let path = root.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(|source| io_error("opening", &path, source))?;
    match file.try_lock() {
        Ok(()) => {
            // For the message that a second process shows; the lock itself is the kernel's.
            let written = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
            written.map_err(|source| io_error("writing", &path, source))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file.take(64).read_to_string(&mut holder);
            let holder = if read.is_ok() && !holder.is_empty() { holder.trim_end() } else { "unknown" };
            Err(CacheError::Locked { dir: root.to_owned(), holder: holder.to_owned() })
        }
        Err(TryLockError::Error(source)) => Err(io_error("locking", &path, source)),
    }
}

pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> CacheError {
    CacheError::Io { doing, path: path.to_owned(), source }
}
