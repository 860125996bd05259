//! The two clocks of the process: a steady one for machines, Unix time for people.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Unix time in milliseconds of a moment of the steady clock.
pub(crate) fn unix_ms_of(moment: Instant) -> u64 {
    let age = Instant::now().saturating_duration_since(moment).as_millis();
    unix_ms().saturating_sub(u64::try_from(age).unwrap_or(u64::MAX))
}
