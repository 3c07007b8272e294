//! As many as are at work on average, with headroom: what Knative's pod autoscaler does.
//!
//! Its two windows and its numbers (knative.dev/docs/serving/autoscaling/kpa-specific): the average
//! of the demand over a stable window of 60 s and a panic window of 6 s, each divided by what of an
//! instance is to be used, 70 % of one request, and rounded up. Panic begins where the panic window
//! wants at least twice what is there; in it the larger of both counts and nothing is taken away,
//! until nothing of the kind was wanted for a stable window. The last one goes when nobody asked for
//! a stable window.
//!
//! Left out: the limits of how much changes at one look (1000-fold up, half down), as they are
//! tied to how often Knative looks. Other than a pod an instance serves one request at a time, and
//! one that somebody needed stays for a stable window.

use std::time::Duration;

use super::super::Moment;
use super::damped::Steady;
use super::{Plan, Policy, Seen};

const BUCKET: Duration = Duration::from_secs(1);
const STABLE: u32 = 60;
const PANIC: u32 = 6;
/// Seconds that are counted: those of the stable window, and the one that is not over.
const SECONDS: usize = STABLE as usize + 1;
/// What of an instance is to be used.
const UTILISATION: f64 = 0.7;
/// Panic begins where it wants so many times what is there.
const THRESHOLD: u32 = 2;
/// How often the averages are looked at where nothing else happens.
const LOOK: Duration = Duration::from_secs(2);

/// As many as are at work on average, with headroom.
#[derive(Clone, Debug, Default)]
pub struct Concurrency {
    demand: Averages,
    stable: Steady,
    urgent: Steady,
    /// Since when, and how many it holds.
    panic: Option<(Moment, u32)>,
}

impl Policy for Concurrency {
    fn arrived(&mut self, _: Moment) {}

    fn served(&mut self, _: Moment, _: Duration) {}

    fn measured(&mut self, _: Moment, _: Duration) {}

    fn plan(&mut self, seen: Seen) -> Plan {
        self.demand.turn(seen.now, seen.demand);
        let stable = self.stable.set(self.demand.average(STABLE) / UTILISATION);
        let panic = self.urgent.set(self.demand.average(PANIC) / UTILISATION);
        let there = (seen.busy + seen.ready).max(1);
        let held = self.panic.map_or(0, |(_, held)| held);
        if panic >= THRESHOLD * there {
            self.panic = Some((seen.now, held));
        } else if let Some((since, _)) = self.panic
            && seen.now.since(since) > BUCKET * STABLE
        {
            self.panic = None;
        }
        let target = match &mut self.panic {
            Some((_, held)) => {
                *held = (*held).max(stable).max(panic);
                *held
            }
            None => stable,
        };
        Plan {
            target,
            keep_alive: BUCKET * STABLE,
            again: (target > 0).then(|| seen.now.after(LOOK)),
        }
    }
}

/// The demand, second by second.
#[derive(Clone, Debug)]
struct Averages {
    /// Demand times microseconds: whole numbers, so that nothing is left when all is gone.
    buckets: [u64; SECONDS],
    sum: u64,
    /// The second that the current bucket is of.
    current: u64,
    first: Option<Moment>,
    last: Moment,
    demand: u32,
}

impl Default for Averages {
    fn default() -> Self {
        Self {
            buckets: [0; SECONDS],
            sum: 0,
            current: 0,
            first: None,
            last: Moment::default(),
            demand: 0,
        }
    }
}

impl Averages {
    /// The demand was what it was until now, and is this from now on.
    fn turn(&mut self, now: Moment, demand: u32) {
        if self.first.is_none() {
            if demand == 0 {
                return;
            }
            (self.first, self.last) = (Some(now), now);
            self.current = now.0.as_secs();
        }
        let second = now.0.as_secs();
        // What is too long ago to be seen from now on.
        if second - self.current >= SECONDS as u64 {
            (self.buckets, self.sum) = ([0; SECONDS], 0);
            self.current = (second + 1).saturating_sub(SECONDS as u64);
            self.last = self.last.max(Moment(Duration::from_secs(self.current)));
        }
        while self.current < second {
            self.add(Moment(Duration::from_secs(self.current + 1)));
            self.current += 1;
            let bucket = &mut self.buckets[slot(self.current)];
            self.sum -= std::mem::take(bucket);
        }
        self.add(now);
        self.demand = demand;
        if demand == 0 && self.sum == 0 {
            self.first = None;
        }
    }

    fn add(&mut self, until: Moment) {
        let time = u64::try_from(until.since(self.last).as_micros()).unwrap_or(u64::MAX);
        let added = time.saturating_mul(self.demand.into());
        self.buckets[slot(self.current)] += added;
        self.sum += added;
        self.last = until;
    }

    /// Over so many of the last seconds, or since there was a demand. It is the demand itself as
    /// long as no time has passed.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an average needs no more than 52 bits"
    )]
    fn average(&self, seconds: u32) -> f64 {
        let Some(first) = self.first else { return 0.0 };
        let oldest = self.current.saturating_sub(seconds.into());
        let begin = Moment(Duration::from_secs(oldest));
        let time = self.last.since(first.max(begin)).as_micros();
        if time == 0 {
            return self.demand.into();
        }
        let sum = if seconds == STABLE {
            self.sum
        } else {
            (oldest..=self.current)
                .map(|second| self.buckets[slot(second)])
                .sum()
        };
        sum as f64 / time as f64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is below SECONDS")]
const fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn target(policy: &mut Concurrency, seconds: u64, demand: u32, there: u32) -> u32 {
        policy
            .plan(Seen {
                now: at(seconds),
                demand,
                busy: demand.min(there),
                ready: there.saturating_sub(demand),
                ..Seen::default()
            })
            .target
    }

    #[test]
    fn it_is_the_average_over_what_is_to_be_used_of_each() {
        let mut policy = Concurrency::default();
        assert_eq!(target(&mut policy, 1_000, 0, 0), 0);
        for second in 1_001..1_100 {
            let wanted = target(&mut policy, second, 7, 10);
            assert_eq!(wanted, 10, "{second}");
        }
    }

    #[test]
    fn a_surge_is_met_at_once_and_nothing_is_taken_away_for_a_minute() {
        let mut policy = Concurrency::default();
        for second in 0..120 {
            target(&mut policy, second, 1, 2);
        }
        assert_eq!(target(&mut policy, 120, 1, 2), 2);
        target(&mut policy, 121, 14, 2);
        // Six seconds later the panic window has seen nothing else: 14 / 0.7.
        let mut grown = 0;
        for second in 122..128 {
            grown = target(&mut policy, second, 14, 2);
        }
        assert_eq!(grown, 20);
        for second in 128..186 {
            assert_eq!(target(&mut policy, second, 0, 20), 20, "{second}");
        }
        // In the stable window there is less and less of it.
        assert!(target(&mut policy, 188, 0, 20) < 5);
        assert_eq!(target(&mut policy, 260, 0, 5), 0);
    }

    #[test]
    fn the_last_one_goes_when_nobody_asked_for_a_stable_window() {
        let mut policy = Concurrency::default();
        target(&mut policy, 5, 1, 0);
        assert_eq!(target(&mut policy, 6, 0, 1), 1 + 1);
        assert!(target(&mut policy, 64, 0, 1) > 0);
        let plan = policy.plan(Seen {
            now: at(200),
            ..Seen::default()
        });
        assert_eq!((plan.target, plan.again), (0, None));
    }
}
