//! Tells the log when the disk tier stops working, and when it works again.

use std::time::Duration;

use crate::scheduler::Handle;

/// Often enough for a log, rare enough to cost nothing.
const EVERY: Duration = Duration::from_secs(1);

/// Runs as long as the server does.
pub async fn disk(handle: Handle) {
    let mut told = None;
    loop {
        actix_web::rt::time::sleep(EVERY).await;
        let now = handle.status().cache.disk.and_then(|disk| disk.degraded);
        match (&told, &now) {
            (None, Some(reason)) => {
                tracing::warn!("the cache's disk tier fails, and blocks stay in memory meanwhile: {reason}");
            }
            (Some(_), None) => tracing::info!("the cache's disk tier works again"),
            _ => {}
        }
        told = now;
    }
}
