//! The clock that mlx-rs seeds its random state with, where the system is not Apple's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, in place of Mach's ticks since boot: a seed needs no unit.
#[unsafe(no_mangle)]
extern "C" fn mach_approximate_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(now.subsec_nanos()))
}
