//! What systemd is told of this process: that it is ready, that it stops, and that it lives.
//!
//! The names of systemd's socket and its limit are in the environment, where its own client reads them; where it set none,
//! nothing is said.

use std::io;

use prefixd_engine::Gate;
use sd_notify::NotifyState;

/// Requests are answered from now on.
pub fn ready() {
    say(NotifyState::Ready);
}

/// The process is on its way out.
pub fn stopping() {
    say(NotifyState::Stopping);
}

/// Says that the process lives, three times within the limit that systemd sets (`WatchdogSec`), as long as the scheduler
/// takes jobs: one that died or hangs is followed by silence, and systemd starts the service again.
pub fn watch(gate: Gate) -> io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let body = move || {
        while gate.run(|_| ()).is_ok() {
            say(NotifyState::Watchdog);
            std::thread::sleep(limit / 3);
        }
    };
    std::thread::Builder::new().name("prefixd-watchdog".into()).spawn(body).map(drop)
}

fn say(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
