//! What was idle for how long says when it is needed again: the hybrid histogram policy.
//!
//! Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 4. The idle time goes from the
//! end of an execution to the next arrival (none where one comes during another). 240 bins of one
//! minute count them; the head is the 5th percentile, rounded down to a bin's begin, the tail the
//! 99th, rounded up to a bin's end, and a margin of 10 % is left on both sides:
//!
//! - after an execution the instance goes, and one is there again from 0.9 head until 1.1 tail;
//! - where the head is in the first bin it stays, for 1.1 tail;
//! - where the histogram is not representative, as the coefficient of variation of its bins is below
//!   2, or as nothing is known, it stays for as long as the histogram is wide: 4 hours;
//! - where at least half of the idle times are longer than that, the next one is foretold, with 15 %
//!   on both sides. The paper does it by ARIMA; here it is the mean of the last few, which is what
//!   ARIMA says of a series without a trend.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::Moment;
use super::{Plan, Policy, Seen};

const BINS: u32 = 240;
const BIN: Duration = Duration::from_mins(1);
const RANGE: Duration = BIN.saturating_mul(BINS);
/// Below it the bins are as good as level.
const REPRESENTATIVE: f64 = 2.0;
/// Idle times beyond the histogram from which the next one is foretold.
const BEYOND: usize = 8;

/// Keeps and pre-warms by a histogram of idle times.
#[derive(Clone, Debug)]
pub struct Hybrid {
    bins: Vec<u32>,
    /// All that are in bins, and the sum of the squares of what is in each.
    inside: u64,
    squares: u64,
    outside: u64,
    beyond: VecDeque<Duration>,
    /// Since when nobody asks.
    idle: Option<Moment>,
    /// Whether the last look saw somebody ask.
    is_busy: bool,
    windows: Windows,
}

/// When an instance is there after an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    /// None: it stays.
    from: Option<Duration>,
    until: Duration,
}

const STANDARD: Windows = Windows {
    from: None,
    until: RANGE,
};

impl Default for Hybrid {
    fn default() -> Self {
        Self {
            bins: vec![0; BINS as usize],
            inside: 0,
            squares: 0,
            outside: 0,
            beyond: VecDeque::new(),
            idle: None,
            is_busy: false,
            windows: STANDARD,
        }
    }
}

impl Hybrid {
    fn learn(&mut self, idle: Duration) {
        let index = usize::try_from(idle.as_secs() / BIN.as_secs()).unwrap_or(usize::MAX);
        if let Some(bin) = self.bins.get_mut(index) {
            self.squares += 2 * u64::from(*bin) + 1;
            self.inside += 1;
            *bin = bin.saturating_add(1);
        } else {
            self.outside += 1;
            if self.beyond.len() >= BEYOND {
                self.beyond.pop_front();
            }
            self.beyond.push_back(idle);
        }
        self.windows = self.tell();
    }

    /// For how much of an idle time that lasts so long an instance is there, the first one or another
    /// one.
    pub(super) fn kept(&self, idle: Duration, is_first: bool) -> Duration {
        let Windows { from, until } = self.windows;
        match from {
            Some(from) if is_first => idle.min(until).saturating_sub(from),
            Some(_) => Duration::ZERO,
            None => idle.min(until),
        }
    }

    /// The end of the time at which it keeps one.
    pub(super) const fn until(&self) -> Duration {
        self.windows.until
    }

    fn tell(&self) -> Windows {
        if self.outside >= self.inside {
            let sum: Duration = self.beyond.iter().sum();
            let count = u32::try_from(self.beyond.len()).unwrap_or(u32::MAX);
            let Some(mean) = sum.checked_div(count) else {
                return STANDARD;
            };
            return Windows {
                from: Some(mean * 17 / 20),
                until: mean * 23 / 20,
            };
        }
        if self.variation() < REPRESENTATIVE {
            return STANDARD;
        }
        let head = BIN * self.percentile(5);
        let tail = BIN * (self.percentile(99) + 1);
        Windows {
            from: (!head.is_zero()).then(|| head * 9 / 10),
            until: tail * 11 / 10,
        }
    }

    /// The coefficient of variation of what is in each bin.
    #[expect(clippy::cast_precision_loss, reason = "it is compared with 2")]
    fn variation(&self) -> f64 {
        let mean = self.inside as f64 / f64::from(BINS);
        let variance = self.squares as f64 / f64::from(BINS) - mean * mean;
        variance.max(0.0).sqrt() / mean
    }

    /// The bin that so many percent are in or below.
    fn percentile(&self, percent: u64) -> u32 {
        let rank = (self.inside * percent).div_ceil(100);
        let mut below = 0;
        for (bin, count) in (0..).zip(&self.bins) {
            below += u64::from(*count);
            if below >= rank {
                return bin;
            }
        }
        BINS - 1
    }
}

impl Policy for Hybrid {
    fn arrived(&mut self, now: Moment) {
        match self.idle.take() {
            Some(idle) => self.learn(now.since(idle)),
            None if self.is_busy => self.learn(Duration::ZERO),
            None => {}
        }
        self.is_busy = true;
    }

    fn served(&mut self, _: Moment, _: Duration) {}

    fn measured(&mut self, _: Moment, _: Duration) {}

    fn plan(&mut self, seen: Seen) -> Plan {
        if seen.demand > 0 {
            (self.is_busy, self.idle) = (true, None);
        } else if self.is_busy {
            (self.is_busy, self.idle) = (false, Some(seen.now));
        }
        let Windows { from, until } = self.windows;
        let plan = |target, again| Plan {
            target,
            keep_alive: if from.is_some() {
                Duration::ZERO
            } else {
                until
            },
            again,
        };
        match (from, self.idle) {
            (Some(from), Some(idle)) => {
                let (begin, end) = (idle.after(from), idle.after(until));
                if seen.now < begin {
                    plan(0, Some(begin))
                } else if seen.now < end {
                    plan(1, Some(end))
                } else {
                    plan(0, None)
                }
            }
            _ => plan(0, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Moment {
        Moment(Duration::from_mins(minutes))
    }

    fn ask(policy: &mut Hybrid, now: Moment, demand: u32) -> Plan {
        policy.plan(Seen {
            now,
            demand,
            ..Seen::default()
        })
    }

    /// Arrivals that are served at once, idle for these many minutes in between; the plan after.
    fn after(gaps: impl IntoIterator<Item = u64>) -> (Hybrid, u64) {
        let mut policy = Hybrid::default();
        let mut now = 0;
        for gap in std::iter::once(0).chain(gaps) {
            now += gap;
            policy.arrived(at(now));
            ask(&mut policy, at(now), 1);
            ask(&mut policy, at(now), 0);
        }
        (policy, now)
    }

    #[test]
    fn a_timer_is_unloaded_and_there_again_in_time() {
        let (mut policy, now) = after([30; 20]);
        let plan = ask(&mut policy, at(now + 1), 0);
        assert_eq!((plan.target, plan.keep_alive), (0, Duration::ZERO));
        assert_eq!(plan.again, Some(at(now + 27)));
        let plan = ask(&mut policy, at(now + 27), 0);
        // The bin ends at 31 minutes.
        let end = Moment(Duration::from_secs(now * 60 + 31 * 66));
        assert_eq!((plan.target, plan.again), (1, Some(end)));
        assert_eq!(ask(&mut policy, end, 0).target, 0);
    }

    #[test]
    fn who_comes_at_once_as_well_as_late_stays() {
        let (mut policy, now) = after((0..100).map(|nth| if nth % 10 == 0 { 20 } else { 0 }));
        let plan = ask(&mut policy, at(now), 0);
        assert_eq!(plan.target, 0);
        assert_eq!(plan.keep_alive, Duration::from_secs(21 * 66));
    }

    #[test]
    fn the_tail_leaves_one_of_a_hundred_out() {
        let (mut policy, now) = after((0..200).map(|nth| if nth == 100 { 200 } else { 10 }));
        let plan = ask(&mut policy, at(now), 0);
        assert_eq!(plan.again, Some(at(now + 9)));
        let end = ask(&mut policy, at(now + 9), 0).again;
        assert_eq!(end, Some(Moment(Duration::from_secs(now * 60 + 11 * 66))));
    }

    #[test]
    fn what_is_level_or_unknown_stays_for_four_hours() {
        let (mut level, now) = after((0..2_400).map(|nth| nth % 240));
        assert_eq!(ask(&mut level, at(now), 0).keep_alive, RANGE);
        let plan = ask(&mut Hybrid::default(), at(0), 0);
        assert_eq!((plan.target, plan.keep_alive), (0, RANGE));
    }

    #[test]
    fn what_is_idle_for_longer_is_foretold() {
        let (mut policy, now) = after([1_000; 3]);
        let plan = ask(&mut policy, at(now), 0);
        assert_eq!(plan.again, Some(at(now + 850)));
        let plan = ask(&mut policy, at(now + 850), 0);
        assert_eq!((plan.target, plan.again), (1, Some(at(now + 1_150))));
    }

    #[test]
    fn who_comes_during_another_was_not_idle() {
        let mut policy = Hybrid::default();
        for minute in 0..10 {
            policy.arrived(at(minute));
            ask(&mut policy, at(minute), 1);
        }
        assert_eq!((policy.bins[0], policy.inside), (9, 9));
    }
}
