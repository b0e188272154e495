//! What the system lets this process have: open files, memory, threads, sizes of files.
//!
//! Looked at before anything is started: what lacks them later is a library deep inside, and it panics, hangs or is killed.

use std::io;
use std::sync::mpsc;

use bytesize::ByteSize;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Files that a server needs open to serve a few clients.
const FEWEST_FILES: u64 = 64;
/// As many as are asked for, where the system would give them.
const MOST_FILES: u64 = 10_240;
/// Memory that the smallest model takes up, most of it mapped and never touched.
const LEAST_MEMORY: u64 = 2_000_000_000;
/// Threads of a server: workers, blocking work, readers, products of matrices.
const THREADS: usize = 32;

/// What there is too little of.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Open files.
    #[error("this process may have {found} files open (ulimit -n); expected at least {FEWEST_FILES}")]
    Files {
        /// The limit.
        found: u64,
    },
    /// Address space.
    #[error(
        "this process may map {} of memory (ulimit -v); expected at least {}",
        ByteSize(*found),
        ByteSize(LEAST_MEMORY)
    )]
    Memory {
        /// The limit in bytes.
        found: u64,
    },
    /// Threads.
    #[error(
        "this process may start {started} threads, expected at least {THREADS}: {reason} \
         (ulimit -u, the container's limit of processes, or memory)"
    )]
    Threads {
        /// How many there were.
        started: usize,
        /// The system's words.
        reason: io::Error,
    },
}

/// Takes what the system gives, and says what is too little.
pub fn claim() -> Result<(), MachineError> {
    raise_files();
    if let Some(found) = getrlimit(Resource::Nofile).current.filter(|found| *found < FEWEST_FILES) {
        return Err(MachineError::Files { found });
    }
    if let Some(found) = getrlimit(Resource::As).current.filter(|found| *found < LEAST_MEMORY) {
        return Err(MachineError::Memory { found });
    }
    start_threads(THREADS)?;
    survive_long_files();
    Ok(())
}

/// Connections are files, and shells allow few.
fn raise_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MOST_FILES, |maximum| maximum.min(MOST_FILES));
    if current.is_some_and(|current| current < wanted) {
        // Fewer will do; too few are told.
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).ok();
    }
}

/// Starts so many threads at once and ends them.
fn start_threads(count: usize) -> Result<(), MachineError> {
    let mut running = Vec::with_capacity(count);
    let mut failed = None;
    while failed.is_none() && running.len() < count {
        let (end, ended) = mpsc::channel::<()>();
        match std::thread::Builder::new().name("trial".into()).spawn(move || ended.recv().ok()) {
            Ok(thread) => running.push((end, thread)),
            Err(reason) => failed = Some(reason),
        }
    }
    let started = running.len();
    for (end, thread) in running {
        drop(end);
        // It does nothing that could fail.
        thread.join().ok();
    }
    failed.map_or(Ok(()), |reason| Err(MachineError::Threads { started, reason }))
}

/// A file that would grow beyond the limit (ulimit -f) is an error of its write, not the end of the process: what handles
/// the signal once handles it as long as the process lives.
fn survive_long_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let handled = runtime.map(|runtime| {
        runtime.block_on(async { signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop) })
    });
    if let Err(error) | Ok(Err(error)) = handled {
        tracing::warn!("a file that grows beyond the limit (ulimit -f) will end this process: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_were_started_for_trial_are_gone_again() {
        let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        start_threads(40).unwrap();
        let before = threads();
        start_threads(40).unwrap();
        assert!(threads() < before + 40);
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_gives() {
        raise_files();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert!(current.is_none_or(|current| current >= maximum.unwrap_or(MOST_FILES).min(MOST_FILES)));
    }
}
