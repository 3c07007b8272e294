//! Which idle instance goes first when memory is needed.
//!
//! Greedy-Dual-Size-Frequency (Cherkasova 1998), as `FaasCache` (Fuerst and Sharma, ASPLOS 2021) uses
//! it for functions: what is used often, is slow to start and needs little memory stays. The clock
//! rises to the value of whatever went last, so that what is not used any more gets old.

use std::time::Duration;

/// The value of what was evicted last: what comes anew must be worth more than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Clock(f64);

/// What an idle instance is worth.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Worth(f64);

impl Clock {
    /// Of an instance that was just used: its function was used `uses` times since it last had
    /// none, starts in `cost`, and takes `bytes`.
    pub(super) fn worth(self, uses: u64, cost: Duration, bytes: u64) -> Worth {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a worth needs no more than 52 bits"
        )]
        let (uses, mebibytes) = (uses as f64, (bytes.max(1) as f64) / f64::from(1 << 20));
        Worth(self.0 + uses * cost.as_secs_f64() / mebibytes)
    }

    /// This one was evicted.
    pub(super) fn rise(&mut self, evicted: Worth) {
        self.0 = self.0.max(evicted.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_used_often_starts_slowly_and_is_small_is_worth_more() {
        let clock = Clock::default();
        let worth = clock.worth(2, SECOND, 1 << 30);
        assert!(clock.worth(3, SECOND, 1 << 30) > worth);
        assert!(clock.worth(2, SECOND * 2, 1 << 30) > worth);
        assert!(clock.worth(2, SECOND, 1 << 29) > worth);
    }

    #[test]
    fn what_is_not_used_any_more_gets_old() {
        let mut clock = Clock::default();
        let once_popular = clock.worth(3, SECOND, 1 << 30);
        for _ in 0..4 {
            let seldom = clock.worth(1, SECOND, 1 << 30);
            assert!(clock.worth(1, SECOND, 1 << 30) <= seldom);
            clock.rise(seldom);
        }
        assert!(clock.worth(1, SECOND, 1 << 30) > once_popular);
        // It never goes back.
        clock.rise(once_popular);
        assert!(clock.worth(1, SECOND, 1 << 30) > once_popular);
    }
}
