//! A file system that fails, or stops, where a test says.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{FileSystem, OsFileSystem};
use crate::testing::options;
use crate::{CacheOptions, DiskOptions, Lru, PrefixCache, Tuning};

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
    loose: Vec<(PathBuf, PathBuf)>,
}

pub(crate) struct FaultyFileSystem {
    fault: Mutex<Fault>,
    state: Mutex<State>,
    pub free_bytes: Mutex<Option<u64>>,
    pub reads: Mutex<ReadFault>,
    /// Where to keep a copy of the index as it was before each operation: the index, and the directory of copies.
    pub index_copies: Mutex<Option<(PathBuf, PathBuf)>>,
}

/// What happens to reads.
#[derive(Clone, Debug)]
pub(crate) enum ReadFault {
    None,
    Errno(i32),
    /// They do not come back until the sender is dropped.
    Stall(crossbeam_channel::Receiver<()>),
}

impl FaultyFileSystem {
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault: Mutex::new(fault),
            state: Mutex::default(),
            free_bytes: Mutex::new(None),
            reads: Mutex::new(ReadFault::None),
            index_copies: Mutex::new(None),
        })
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
        if let Some((index, copies)) = &*self.index_copies.lock()
            && !state.crashed
        {
            copy_files(index, &copies.join(step.to_string()))?;
        }
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

/// Copies a directory and what is below it.
pub(crate) fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
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

    fn open(&self, path: &Path) -> io::Result<File> {
        OsFileSystem.open(path)
    }

    fn read(&self, file: &mut File, into: &mut [u8]) -> io::Result<usize> {
        let fault = self.reads.lock().clone();
        match fault {
            ReadFault::None => {}
            ReadFault::Errno(code) => return Err(io::Error::from_raw_os_error(code)),
            // Stalls until the test lets go of the other end.
            ReadFault::Stall(held) => drop(held.recv()),
        }
        OsFileSystem.read(file, into)
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
    let tuning = Tuning { policy: Box::new(Lru), ..Tuning::default() };
    open_tuned_on(options, tuning, files)
}

pub(crate) fn open_tuned_on(
    options: CacheOptions,
    tuning: Tuning,
    files: &Arc<FaultyFileSystem>,
) -> PrefixCache {
    let files: Arc<dyn FileSystem> = Arc::clone(files) as Arc<dyn FileSystem>;
    PrefixCache::open_on(options, tuning, &files).unwrap()
}
