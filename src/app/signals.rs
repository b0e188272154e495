//! The signals that stop the server.
//!
//! SIGTERM, Ctrl-C and SIGHUP stop it in the same way: a closed terminal ends what it started, and whoever waits for an answer
//! hears of it. Where SIGHUP was ignored when the program started (`nohup`), it stays ignored.

use std::mem::MaybeUninit;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Heard from the moment this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where it is ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Begins to listen.
    pub fn new() -> std::io::Result<Self> {
        let hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = hang_up => "SIGHUP",
        }
    }
}

/// What whoever started this program decided.
fn hang_up_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the present one to `action`, which is valid for it and, all zeroes, is
    // initialized whatever the call does.
    let (read, action) = unsafe {
        let read = libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr());
        (read, action.assume_init())
    };
    read == 0 && action.sa_sigaction == libc::SIG_IGN
}
