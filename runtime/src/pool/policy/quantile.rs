//! As many stand ready as are asked for, with a chosen probability, in the time that a start takes.
//!
//! The base stock of inventory control: what is taken away is replaced at once, and the replacement
//! takes L. With arrivals at the rate lambda, and D the variance of their number in a stretch of
//! time over its mean (1 for Poisson arrivals, 0 for a clock, more for bursts), the number that
//! arrives in L is about normal with mean lambda L and variance D lambda L, so that
//!
//! ```text
//! N = ceil(lambda L + z sqrt(D lambda L))
//! ```
//!
//! covers it with the probability whose normal quantile is z. L is the 95th percentile of the starts
//! that were measured. These stand beside those that are at work, lambda S by Little's law with S
//! the mean time at work: the target is both together, rounded up once.

use std::time::Duration;

use super::super::Moment;
use super::super::starts::Starts;
use super::damped::Steady;
use super::{Plan, Policy, Seen};

/// Arrivals are counted in stretches of this length,
const STRETCH: Duration = Duration::from_secs(10);
/// and so many of them tell the rate: ten minutes.
const STRETCHES: usize = 60;
/// An instance above the target stays for this long, as bursts come in bursts.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// As many stand ready as are asked for during a start.
#[derive(Clone, Debug)]
pub struct Quantile {
    z: f64,
    counts: [u32; STRETCHES],
    /// The number of the current stretch since the clock's zero.
    current: u64,
    /// When the first request came.
    first: Option<Moment>,
    starts: Starts,
    /// Mean time at work, over the last few, in seconds.
    work: f64,
    /// Of the stretch and the starts that it was told from.
    floor: Steady,
    is_stale: bool,
}

impl Quantile {
    /// Covers the demand of so many percent of all starts, of 50 to 99.99.
    #[must_use]
    pub fn new(percent: f64) -> Self {
        Self {
            z: normal_quantile(percent.clamp(50.0, 99.99) / 100.0),
            counts: [0; STRETCHES],
            current: 0,
            first: None,
            starts: Starts::default(),
            work: 0.0,
            floor: Steady::default(),
            is_stale: false,
        }
    }

    /// Makes `now` part of the current stretch, and forgets what is too long ago.
    fn turn(&mut self, now: Moment) {
        let stretch = now.0.as_secs() / STRETCH.as_secs();
        let passed = stretch.saturating_sub(self.current);
        if passed == 0 {
            return;
        }
        for back in 0..passed.min(STRETCHES as u64) {
            self.counts[slot(stretch - back)] = 0;
        }
        self.current = stretch;
        self.is_stale = true;
    }

    /// Of the stretches that are over; of the current one only where there is no other, as a part of
    /// one says little.
    fn tell(&self) -> f64 {
        let Some(first) = self.first else { return 0.0 };
        let oldest = (first.0.as_secs() / STRETCH.as_secs())
            .max(self.current.saturating_sub(STRETCHES as u64 - 1));
        let over = self.current - oldest;
        let counted = if over == 0 { 0..=0 } else { 1..=over };
        let n = f64::from(u32::try_from(over.max(1)).unwrap_or(u32::MAX));
        let (mut sum, mut squares) = (0.0, 0.0);
        for back in counted {
            let count = f64::from(self.counts[slot(self.current - back)]);
            sum += count;
            squares += count * count;
        }
        if sum == 0.0 {
            // What came just now is all that is known.
            return f64::from(self.counts[slot(self.current)].min(1));
        }
        let mean = sum / n;
        let dispersion = (squares / n - mean * mean).max(0.0) / mean;
        let rate = mean / STRETCH.as_secs_f64();
        let awaited = rate * self.starts.p95().as_secs_f64();
        let spare = awaited + self.z * (dispersion * awaited).sqrt();
        rate * self.work + spare
    }
}

impl Policy for Quantile {
    fn arrived(&mut self, now: Moment) {
        self.turn(now);
        let count = &mut self.counts[slot(self.current)];
        *count = count.saturating_add(1);
        if self.first.is_none() {
            self.first = Some(now);
            self.is_stale = true;
        }
    }

    fn served(&mut self, _: Moment, work: Duration) {
        let work = work.as_secs_f64();
        self.work = if self.work == 0.0 {
            work
        } else {
            self.work + (work - self.work) / 8.0
        };
    }

    fn measured(&mut self, _: Moment, start: Duration) {
        self.starts.measured(start);
        self.is_stale = true;
    }

    fn plan(&mut self, seen: Seen) -> Plan {
        self.turn(seen.now);
        if self.is_stale {
            self.is_stale = false;
            let needed = self.tell();
            self.floor.set(needed);
        }
        let next = Moment(Duration::from_secs((self.current + 1) * STRETCH.as_secs()));
        Plan {
            target: self.floor.get(),
            keep_alive: KEEP_ALIVE,
            again: (self.floor.get() > 0).then_some(next),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is below STRETCHES")]
const fn slot(stretch: u64) -> usize {
    (stretch % STRETCHES as u64) as usize
}

/// What a normal variable is below with probability `p`, of 0.5 or more: Abramowitz and Stegun's
/// 26.2.23, off by at most 0.00045.
fn normal_quantile(p: f64) -> f64 {
    let t = (-2.0 * (1.0 - p).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment(Duration::from_secs_f64(seconds))
    }

    fn target(policy: &mut Quantile, now: Moment) -> u32 {
        policy
            .plan(Seen {
                now,
                ..Seen::default()
            })
            .target
    }

    #[test]
    fn the_normal_quantile_is_that_of_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.9, 1.281_552),
            (0.99, 2.326_348),
            (0.999, 3.090_232),
        ] {
            assert!((normal_quantile(p) - z).abs() < 0.000_45, "{p}");
        }
    }

    /// 20 a second with starts of 0.4 s: 8 are awaited. A clock needs no more; where all of ten
    /// seconds come at once, D is 0 still, but where they come every other stretch it is 200 and
    /// N = 8 + 2.33 sqrt(200 * 8).
    #[test]
    fn bursts_need_more_than_a_clock_does() {
        let mut clock = Quantile::new(99.0);
        let mut bursts = Quantile::new(99.0);
        for policy in [&mut clock, &mut bursts] {
            policy.measured(at(0.0), Duration::from_millis(400));
        }
        for tick in 0..12_000_u32 {
            let now = f64::from(tick) / 20.0;
            clock.arrived(at(now));
            if tick / 200 % 2 == 0 {
                bursts.arrived(at(now));
                bursts.arrived(at(now));
            }
        }
        assert_eq!(target(&mut clock, at(600.0)), 8);
        let burst = target(&mut bursts, at(600.0));
        let right = 8.0 + 2.326 * (200.0_f64 * 8.0).sqrt();
        // One more or less of the bursts' 60 stretches is in sight.
        assert!((f64::from(burst) - right).abs() < 4.0, "{burst} {right}");
    }

    #[test]
    fn those_at_work_count_too_and_nothing_stands_ready_for_nobody() {
        let mut policy = Quantile::new(50.0);
        policy.measured(at(0.0), Duration::from_secs(1));
        assert_eq!(target(&mut policy, at(1.0)), 0);
        for second in 0..120_u32 {
            policy.arrived(at(f64::from(second)));
            policy.served(at(f64::from(second)), Duration::from_secs(3));
        }
        assert_eq!(target(&mut policy, at(120.0)), 3 + 1);
        assert_eq!(target(&mut policy, at(2_000.0)), 0);
        assert_eq!(
            policy
                .plan(Seen {
                    now: at(2_000.0),
                    ..Seen::default()
                })
                .again,
            None
        );
    }
}
