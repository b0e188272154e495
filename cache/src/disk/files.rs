//! The few file operations that durability is made of, behind a trait so that tests can fail or stop at each.
//!
//! 1. Nothing follows a symbolic link in the last part of a path; files are created with mode 0600, and only anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// What the eviction service does to files.
pub(crate) trait FileSystem: Send + Sync {
    /// Creates `path` with the parts one after another, makes it durable and returns the bytes allocated for it.
    fn write_synced(&self, path: &Path, parts: &[&[u8]]) -> io::Result<u64>;
    /// Moves a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a directory, mode 0700.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be allocated in the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Opens a file for reading; a symbolic link is an error (`ELOOP`).
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Fills `into` with the next bytes of an open file, or with what is left of it. Returns how many those are.
    fn read(&self, file: &mut File, into: &mut [u8]) -> io::Result<usize>;
}

/// The operating system's.
pub(crate) struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn write_synced(&self, path: &Path, parts: &[&[u8]]) -> io::Result<u64> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        Ok(allocated(&file.metadata()?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        create_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // NONBLOCK: a FIFO in a block's place must not stall the reader; it means nothing for regular files.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
    }

    fn read(&self, file: &mut File, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match file.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Creates a directory, mode 0700; its parent must exist.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Bytes the file system allocated.
pub(crate) fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
