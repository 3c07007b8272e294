//! Boot time to the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::Boottime;

/// How often the offset is measured again: the wall clock is slewed and stepped.
const EVERY: Duration = Duration::from_secs(10);

/// Turns readings of `CLOCK_BOOTTIME` into times since 1970 by one offset.
///
/// All times of a start go through the same offset, so that their differences stay exact.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    boot_unix_ns: u64,
    measured: Boottime,
}

impl WallClock {
    /// Measures the offset.
    #[must_use]
    pub fn new() -> Self {
        // The wall clock is read between two readings of the boot clock; the tightest of a
        // few pairs is the one that nothing interrupted.
        let (_, boot_unix_ns, measured) = (0..5)
            .map(|_| {
                let before = Boottime::now();
                let wall = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let gap = Boottime::now().since(before).0;
                let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
                (gap, wall.saturating_sub(before.0 + gap / 2), before)
            })
            .min()
            .unwrap_or_default();
        Self {
            boot_unix_ns,
            measured,
        }
    }

    /// Measures again if the last time is long ago.
    pub fn keep(&mut self) {
        if Boottime::now().since(self.measured).as_duration() >= EVERY {
            *self = Self::new();
        }
    }

    /// Nanoseconds since 1970 at `time`.
    #[must_use]
    pub const fn unix_ns(&self, time: Boottime) -> u64 {
        self.boot_unix_ns.saturating_add(time.0)
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now_on_both_clocks() {
        let clock = WallClock::new();
        let unix = |time: SystemTime| {
            u64::try_from(
                time.duration_since(UNIX_EPOCH)
                    .expect("after 1970")
                    .as_nanos(),
            )
            .expect("before 2554")
        };
        let before = unix(SystemTime::now());
        let converted = clock.unix_ns(Boottime::now());
        let after = unix(SystemTime::now());
        // Clocks may be slewed by 500 ppm meanwhile; a millisecond is far more than that.
        assert!(converted + 1_000_000 >= before && converted <= after + 1_000_000);
    }
}
