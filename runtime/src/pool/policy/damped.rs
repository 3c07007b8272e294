//! Up at once, down slowly.

use std::time::Duration;

use super::super::Moment;
use super::{Plan, Policy, Seen};

/// What another policy says, without its dips: a higher target counts at once, a lower one when the
/// target was lower for all of the cool-down, and then the highest that it was in it. Kubernetes
/// calls it the stabilisation window of a scale-down.
pub struct Damped<P> {
    inner: P,
    cool_down: Duration,
    target: u32,
    /// Since when the target is lower, and the highest since.
    lower: Option<(Moment, u32)>,
}

impl<P> Damped<P> {
    /// With this cool-down.
    #[must_use]
    pub const fn new(inner: P, cool_down: Duration) -> Self {
        Self {
            inner,
            cool_down,
            target: 0,
            lower: None,
        }
    }
}

impl<P: Policy> Policy for Damped<P> {
    fn arrived(&mut self, now: Moment) {
        self.inner.arrived(now);
    }

    fn served(&mut self, now: Moment, work: Duration) {
        self.inner.served(now, work);
    }

    fn measured(&mut self, now: Moment, start: Duration) {
        self.inner.measured(now, start);
    }

    fn plan(&mut self, seen: Seen) -> Plan {
        let plan = self.inner.plan(seen);
        if plan.target >= self.target {
            (self.target, self.lower) = (plan.target, None);
            return plan;
        }
        let (since, highest) = self.lower.unwrap_or((seen.now, 0));
        let highest = highest.max(plan.target);
        if seen.now.since(since) < self.cool_down {
            self.lower = Some((since, highest));
        } else {
            self.target = highest;
            // What is lower than that begins its own time now.
            self.lower = (plan.target < highest).then_some((seen.now, plan.target));
        }
        let down = self.lower.map(|(since, _)| since.after(self.cool_down));
        Plan {
            target: self.target,
            again: plan.again.into_iter().chain(down).min(),
            ..plan
        }
    }
}

/// How much less than one instance less has to be needed before there is one less.
const SLACK: f64 = 0.5;

/// The whole number of instances for an estimate, which wavers a little while the load does not: up
/// where the estimate is above, down where it is well below.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steady(u32);

impl Steady {
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    pub(super) fn set(&mut self, needed: f64) -> u32 {
        let held = f64::from(self.0);
        if needed > held || needed < held - 1.0 - SLACK || needed <= 0.0 {
            self.0 = whole(needed.ceil());
        }
        self.0
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
const fn whole(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_wavers_is_one_number() {
        let mut steady = Steady::default();
        let said = [2.9, 3.1, 2.9, 2.6, 2.4, 3.0, 0.2, 0.0].map(|needed| steady.set(needed));
        assert_eq!(said, [3, 4, 4, 4, 3, 3, 1, 0]);
    }

    struct Says(u32);

    impl Policy for Says {
        fn arrived(&mut self, _: Moment) {}

        fn served(&mut self, _: Moment, _: Duration) {}

        fn measured(&mut self, _: Moment, _: Duration) {}

        fn plan(&mut self, _: Seen) -> Plan {
            Plan {
                target: self.0,
                keep_alive: Duration::ZERO,
                again: None,
            }
        }
    }

    #[test]
    fn up_at_once_and_down_when_it_was_lower_for_long() {
        let mut damped = Damped::new(Says(0), Duration::from_mins(1));
        let mut said = |seconds, target| {
            damped.inner.0 = target;
            let plan = damped.plan(Seen {
                now: Moment(Duration::from_secs(seconds)),
                ..Seen::default()
            });
            (plan.target, plan.again.map(|again| again.0.as_secs()))
        };
        assert_eq!(said(0, 3), (3, None));
        assert_eq!(said(1, 5), (5, None));
        assert_eq!(said(2, 1), (5, Some(62)));
        assert_eq!(said(30, 4), (5, Some(62)));
        assert_eq!(said(31, 1), (5, Some(62)));
        // A dip that ends is none.
        assert_eq!(said(61, 5), (5, None));
        assert_eq!(said(70, 2), (5, Some(130)));
        assert_eq!(said(80, 3), (5, Some(130)));
        assert_eq!(said(100, 1), (5, Some(130)));
        assert_eq!(said(130, 1), (3, Some(190)));
        assert_eq!(said(190, 1), (1, None));
    }
}
