//! A file system that fails, or stops, where a test says.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{FileSystem, OsFileSystem};
use crate::testing::options;
use crate::{CacheOptions, DiskOptions, Lru, PrefixCache};

/// What happens to operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every change fails with this error code.
    Errno(i32),
    /// The machine stops at this operation, counted from 0: it and all after it do nothing. What was renamed but not yet
    /// synced is lost.
    CrashAt(usize),
}

#[derive(Debug, Default)]
struct State {
    steps: usize,
    crashed: bool,
    /// Renames that no directory sync has made durable: from, to.
    loose: Vec<(std::path::PathBuf, std::path::PathBuf)>,
}

pub(crate) struct FaultyFileSystem {
    fault: Mutex<Fault>,
    state: Mutex<State>,
    pub free_bytes: Mutex<Option<u64>>,
}

impl FaultyFileSystem {
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault: Mutex::new(fault), state: Mutex::default(), free_bytes: Mutex::new(None) })
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// Operations so far.
    pub fn steps(&self) -> usize {
        self.state.lock().steps
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let step = state.steps;
        state.steps += 1;
        match *self.fault.lock() {
            Fault::None => Ok(()),
            Fault::Errno(code) => Err(io::Error::from_raw_os_error(code)),
            Fault::CrashAt(at) if step < at => Ok(()),
            Fault::CrashAt(_) => {
                if !state.crashed {
                    state.crashed = true;
                    for (from, to) in state.loose.drain(..) {
                        std::fs::rename(to, from)?;
                    }
                }
                Err(io::Error::other("the machine stopped"))
            }
        }
    }
}

impl FileSystem for FaultyFileSystem {
    fn write_synced(&self, path: &Path, parts: &[&[u8]]) -> io::Result<u64> {
        if let Err(error) = self.step() {
            // Half of it may be there.
            let half: Vec<u8> = parts.concat();
            drop(std::fs::write(path, &half[..half.len() / 2]));
            return Err(error);
        }
        OsFileSystem.write_synced(path, parts)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        OsFileSystem.rename(from, to)?;
        self.state.lock().loose.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        OsFileSystem.sync_dir(dir)?;
        self.state.lock().loose.retain(|(_, to)| to.parent() != Some(dir));
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        OsFileSystem.create_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsFileSystem.remove(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.free_bytes.lock().map_or_else(|| OsFileSystem.free_bytes(dir), Ok)
    }
}

/// Options with a disk tier that has room for everything a test writes.
pub(crate) fn disk_options(dir: &Path) -> CacheOptions {
    let disk = DiskOptions {
        dir: dir.to_owned(),
        budget_bytes: 1 << 30,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 20,
        readers: 2,
    };
    CacheOptions { disk: Some(disk), ..options(1 << 20) }
}

pub(crate) fn open(dir: &Path) -> PrefixCache {
    PrefixCache::open(disk_options(dir)).unwrap()
}

pub(crate) fn open_on(options: CacheOptions, files: &Arc<FaultyFileSystem>) -> PrefixCache {
    PrefixCache::open_on(options, Box::new(Lru), Arc::clone(files) as Arc<dyn FileSystem>).unwrap()
}
