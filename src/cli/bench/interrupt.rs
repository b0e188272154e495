//! Ctrl-C: the run ends, and what was measured is reported.

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tokio::signal::unix::{SignalKind, signal};

/// Says whether the user has had enough.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// Nothing is ever sent: the channel closes at Ctrl-C.
    closed: Receiver<()>,
}

impl Interrupt {
    /// Waits for Ctrl-C from now on; a second one ends the process as usual.
    pub fn listen() -> anyhow::Result<Self> {
        let (sender, closed) = bounded(0);
        let (ready, is_ready) = bounded(1);
        let wait = move || {
            let heard = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| runtime.block_on(hear(sender, &ready)));
            if let Err(error) = heard {
                ready.send(Err(error)).ok();
            }
        };
        std::thread::Builder::new().name("interrupt".into()).spawn(wait)?;
        is_ready.recv().context("nobody listens for Ctrl-C")?.context("nobody listens for Ctrl-C")?;
        Ok(Self { closed })
    }

    /// One that happens when the returned sender is dropped.
    #[cfg(test)]
    pub fn by_hand() -> (Sender<()>, Self) {
        let (sender, closed) = bounded(0);
        (sender, Self { closed })
    }

    /// It has happened.
    pub fn happened(&self) -> bool {
        self.closed.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Something to select on: ready once it has happened.
    pub fn channel(&self) -> &Receiver<()> {
        &self.closed
    }
}

/// Closes the channel at the first Ctrl-C and ends the process at the second.
async fn hear(closes: Sender<()>, ready: &Sender<std::io::Result<()>>) -> std::io::Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    ready.send(Ok(())).ok();
    interrupts.recv().await;
    drop(closes);
    interrupts.recv().await;
    // 128 + SIGINT, as shells count.
    std::process::exit(130)
}
