//! The pause before the next attempt at what keeps failing.

use std::time::Duration;

use super::Moment;

/// The pause after the second failure; it doubles with each.
const FIRST: Duration = Duration::from_secs(10);
/// The longest.
const LONGEST: Duration = Duration::from_mins(5);
/// Without a failure for so long, all is forgotten.
const HEALTH: Duration = Duration::from_mins(10);

/// The pause before the next attempt: none after the first failure, 10 seconds after the second one,
/// and twice as much after each one that follows, up to 5 minutes. What did not fail for 10 minutes
/// begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackOff {
    failures: u32,
    last: Moment,
    until: Moment,
}

impl BackOff {
    /// It failed; the pause that follows.
    pub fn failed(&mut self, now: Moment) -> Duration {
        self.forget(now);
        self.failures = self.failures.saturating_add(1);
        let pause = match self.failures {
            1 => Duration::ZERO,
            more => FIRST
                .saturating_mul(1_u32.checked_shl(more - 2).unwrap_or(u32::MAX))
                .min(LONGEST),
        };
        self.last = now;
        self.until = self.until.max(now.after(pause));
        pause
    }

    /// Forgets failures that are long ago.
    fn forget(&mut self, now: Moment) {
        if self.failures > 0 && now >= self.until && now.since(self.last.max(self.until)) >= HEALTH
        {
            *self = Self::default();
        }
    }

    /// How long it is left alone from now on; nothing where an attempt may be made.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        self.until.since(now)
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_has_an_end_and_is_forgotten_in_health() {
        let mut back_off = BackOff::default();
        let mut now = Moment::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = back_off.failed(now);
            assert_eq!(back_off.left(now), pause);
            pauses.push(pause.as_secs());
            now = now.after(pause);
            assert_eq!(back_off.left(now), Duration::ZERO);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        let almost = now.after(HEALTH.saturating_sub(Duration::from_secs(1)));
        assert_eq!(back_off.clone().failed(almost).as_secs(), 300);
        assert_eq!(back_off.failed(now.after(HEALTH)).as_secs(), 0);
    }
}
