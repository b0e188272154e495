//! Whether the engine works: what it failed with, step after step, and when to try it again.
//!
//! One step that fails concerns its sequences. Several in a row, or a device that is lost, concern everybody: the server
//! says so and takes no requests, until a small step of its own succeeds.

use std::time::{Duration, Instant};

use prefixd_engine::{Engine, EngineError, RowWork, Wanted};

/// Steps in a row that fail before the engine counts as failing.
const LIMIT: u32 = 3;
/// How long to wait before a failing engine is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct EngineHealth {
    /// Failures since the last success.
    failures: u32,
    last: Option<EngineError>,
    /// When the engine is tried next.
    next_try: Option<Instant>,
}

impl EngineHealth {
    /// A step succeeded.
    pub fn note_success(&mut self) {
        *self = Self::default();
    }

    /// A step failed.
    pub fn note_failure(&mut self, error: EngineError, now: Instant) {
        self.failures += 1;
        self.last = Some(error);
        self.next_try = Some(now + TRY_AGAIN);
    }

    /// Why nothing can be served; `None` while something may be.
    pub fn reason(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        match last {
            EngineError::DeviceLost(_) => Some(last.to_string()),
            _ if self.failures >= LIMIT => {
                Some(format!("the engine failed {} times in a row, at last: {last}", self.failures))
            }
            _ => None,
        }
    }

    /// Tries a failing engine with one token when it is time. A lost device is not tried: it does not come back.
    pub fn try_again<E: Engine>(&mut self, engine: &mut E, now: Instant) {
        let lost = matches!(self.last, Some(EngineError::DeviceLost(_)));
        if lost || self.reason().is_none() || self.next_try.is_some_and(|at| now < at) {
            return;
        }
        let tried = engine.start().and_then(|mut row| {
            engine.step(&mut row, &[RowWork { row: 0, tokens: &[0], wanted: Wanted::Last }])
        });
        match tried {
            Ok(_) => {
                tracing::info!("the engine works again");
                self.note_success();
            }
            Err(error) => self.note_failure(error, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use prefixd_engine::sim::SimEngine;

    use super::*;

    #[test]
    fn an_engine_counts_as_failing_after_some_steps_and_works_again_when_one_succeeds() {
        let broken = Arc::new(AtomicBool::new(true));
        let switch = broken.clone();
        let mut engine = SimEngine::new(64, 1000, 8).with_hook(move |_| {
            let fails = switch.load(Ordering::Relaxed);
            if fails { Err(EngineError::Backend("planted".into())) } else { Ok(()) }
        });
        let (mut health, start) = (EngineHealth::default(), Instant::now());
        for _ in 1..LIMIT {
            health.note_failure(EngineError::Backend("planted".into()), start);
            assert_eq!(health.reason(), None);
        }
        health.note_failure(EngineError::Backend("planted".into()), start);
        assert!(health.reason().unwrap().contains("planted"));
        broken.store(false, Ordering::Relaxed);
        health.try_again(&mut engine, start);
        assert!(health.reason().is_some(), "it is not time yet");
        health.try_again(&mut engine, start + TRY_AGAIN);
        assert_eq!(health.reason(), None);
    }

    #[test]
    fn a_lost_device_fails_at_once_and_for_good() {
        let mut engine = SimEngine::new(64, 1000, 8);
        let (mut health, start) = (EngineHealth::default(), Instant::now());
        health.note_failure(EngineError::DeviceLost("unplugged".into()), start);
        health.try_again(&mut engine, start + 2 * TRY_AGAIN);
        assert!(health.reason().unwrap().contains("unplugged"));
    }
}
