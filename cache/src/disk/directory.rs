//! The store's directory: who may use it, what lies where, and what else is in it.
//!
//! ```text
//! LOCK                               held by the process that uses the store
//! blocks/<2 hex>/<key>.safetensors   the blocks: the truth
//! index/                             sled, derived from the blocks
//! tmp/                               files being written; emptied when the store is opened
//! quarantine/                        files that were found damaged
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

const SUFFIX: &str = ".safetensors";

/// An opened, locked store directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// Dropping it releases the lock.
    _lock: File,
}

/// A block file as a listing sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub file_bytes: u64,
    pub allocated_bytes: u64,
    /// Last change, microseconds since 1970.
    pub modified_us: u64,
}

/// Everything in the directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub blocks: HashMap<BlockKey, Listed>,
    /// Things with a block's name that are not regular files.
    pub impostors: Vec<BlockKey>,
    /// Allocated bytes of everything that is neither a block nor the index.
    pub other_bytes: u64,
}

impl Directory {
    /// Creates what is missing, checks what is there and takes the lock.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(dir).map_err(|source| io_error("creating", dir, source))?;
        let root = dir.canonicalize().map_err(|source| io_error("resolving", dir, source))?;
        own_dir(&root)?;
        let lock = lock(&root)?;
        let directory = Self { root, _lock: lock };
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

    pub fn path(&self, key: &BlockKey) -> PathBuf {
        self.shard(key).join(format!("{key}{SUFFIX}"))
    }

    /// Moves a block's file out of the way, under a name that is not taken, and returns its allocated bytes.
    pub fn quarantine_block(&self, files: &dyn FileSystem, key: &BlockKey) -> io::Result<u64> {
        let from = self.path(key);
        let bytes = files::allocated(&fs::symlink_metadata(&from)?);
        let to = (0..u32::MAX)
            .map(|number| self.quarantine().join(format!("{key}.{number}")))
            .find(|to| fs::symlink_metadata(to).is_err())
            .ok_or_else(|| io::Error::other("no free name in quarantine"))?;
        files.rename(&from, &to)?;
        files.sync_dir(&self.shard(key))?;
        Ok(bytes)
    }

    /// Lists the directory without following links.
    pub fn list(&self) -> Result<Listing, CacheError> {
        let mut listing = Listing::default();
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
                match self.block_at(&path) {
                    Some(key) if metadata.is_file() => {
                        let modified_us =
                            (metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1_000).max(0);
                        let (file_bytes, modified_us) = (metadata.len(), modified_us.cast_unsigned());
                        listing.blocks.insert(key, Listed { file_bytes, allocated_bytes, modified_us });
                    }
                    Some(key) => listing.impostors.push(key),
                    None if path == self.index() => {}
                    None => {
                        listing.other_bytes += allocated_bytes;
                        if metadata.is_dir() {
                            pending.push(path);
                        }
                    }
                }
            }
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

    /// The key of the block whose place `path` is.
    fn block_at(&self, path: &Path) -> Option<BlockKey> {
        let key = BlockKey::from_hex(path.file_name()?.to_str()?.strip_suffix(SUFFIX)?)?;
        (self.path(&key) == path).then_some(key)
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
