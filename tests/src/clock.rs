//! The boot clock, and what others tell the time by.

use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}

/// `CLOCK_BOOTTIME`, ns.
#[must_use]
pub fn boottime_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// What to add to `CLOCK_MONOTONIC` for `CLOCK_BOOTTIME`, ns: the time spent suspended. The
/// least of several readings, since the two clocks are read one after the other.
#[must_use]
pub fn monotonic_to_boottime_ns() -> u64 {
    (0..100)
        .map(|_| {
            let monotonic = nanoseconds(ClockId::Monotonic);
            boottime_ns().saturating_sub(monotonic)
        })
        .min()
        .unwrap_or(0)
}

/// Nanoseconds of one tick of `/proc/PID/stat`.
#[must_use]
pub fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}
