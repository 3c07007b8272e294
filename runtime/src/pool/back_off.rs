//! The pause before the next attempt at what keeps failing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Instance, Moment};

/// The pause after the second failure; it doubles with each.
const FIRST: Duration = Duration::from_secs(10);
/// The longest.
const LONGEST: Duration = Duration::from_mins(5);
/// Without a failure for so long, all is forgotten.
const HEALTH: Duration = Duration::from_mins(10);
/// An instance that lives for so long, or was of use before, is proof that others may.
const PROOF: Duration = Duration::from_secs(10);

/// The pause before the next attempt: none after the first failure, 10 seconds after the second one,
/// and twice as much after each one that follows, up to 5 minutes. What did not fail for 10 minutes
/// begins anew.
///
/// What fails together is one failure: one that began before the last failure says nothing of what
/// was done about that, and neither does one within the pause. After a pause there is one attempt
/// first: the rest follow when it has proven itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackOff {
    failures: u32,
    /// Not before the last failure.
    until: Moment,
    /// The last one that began, and the one that was that when it failed.
    newest: Instance,
    suspect: Instance,
    /// When one came up after that; it is proof from then on.
    proof: Option<Moment>,
}

impl BackOff {
    /// As it was left, where all that is known of it is how often it failed in a row, and until when
    /// it was to be left alone.
    #[must_use]
    pub fn resumed(now: Moment, failures: u32, until: Moment) -> Self {
        Self {
            failures,
            until,
            // It was not seen to fail since.
            proof: (until <= now).then(|| until.after(PROOF)),
            ..Self::default()
        }
    }

    /// One begins.
    pub(super) fn begun(&mut self, instance: Instance) {
        self.newest = self.newest.max(instance);
    }

    /// One came up.
    pub(super) fn came_up(&mut self, now: Moment, instance: Instance) {
        if self.is_anew(instance) && self.proof.is_none() {
            self.proof = Some(now.after(PROOF));
        }
    }

    /// One was of use.
    pub(super) fn served(&mut self, now: Moment, instance: Instance) {
        if self.is_anew(instance) {
            self.proof = Some(self.proof.map_or(now, |proof| proof.min(now)));
        }
    }

    /// Whether it began after the last failure.
    pub(super) fn is_anew(&self, instance: Instance) -> bool {
        instance > self.suspect
    }

    /// Whether one attempt at a time is enough, as nothing has proven itself since it failed again.
    pub(super) fn is_unproven(&self, now: Moment) -> bool {
        self.failures > 1 && self.proof.is_none_or(|proof| now < proof)
    }

    /// When one has proven itself that came up since it failed, if nothing happens until then.
    pub(super) const fn proof(&self) -> Option<Moment> {
        self.proof
    }

    /// One failed; how long it is left alone from now on.
    pub fn failed(&mut self, now: Moment, instance: Instance) -> Duration {
        self.forget(now);
        let left = self.left(now);
        if self.failures > 0 && (!left.is_zero() || !self.is_anew(instance)) {
            return left;
        }
        (self.suspect, self.proof) = (self.newest, None);
        self.failures = self.failures.saturating_add(1);
        let pause = match self.failures {
            1 => Duration::ZERO,
            more => FIRST
                .saturating_mul(1_u32.checked_shl(more - 2).unwrap_or(u32::MAX))
                .min(LONGEST),
        };
        self.until = self.until.max(now.after(pause));
        pause
    }

    /// Forgets failures that are long ago.
    fn forget(&mut self, now: Moment) {
        if self.failures > 0 && now.since(self.until) >= HEALTH {
            *self = Self {
                newest: self.newest,
                ..Self::default()
            };
        }
    }

    /// How long it is left alone from now on; nothing where an attempt may be made.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        self.until.since(now)
    }

    /// Until when.
    #[must_use]
    pub const fn until(&self) -> Moment {
        self.until
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
        for nth in 1..=9 {
            back_off.begun(Instance(nth));
            let pause = back_off.failed(now, Instance(nth));
            assert_eq!(back_off.left(now), pause);
            pauses.push(pause.as_secs());
            now = now.after(pause);
            assert_eq!(back_off.left(now), Duration::ZERO);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        let almost = now.after(HEALTH.saturating_sub(Duration::from_secs(1)));
        let anew = Instance(10);
        back_off.begun(anew);
        assert_eq!(back_off.clone().failed(almost, anew).as_secs(), 300);
        assert_eq!(back_off.failed(now.after(HEALTH), anew).as_secs(), 0);
    }

    #[test]
    fn what_was_left_goes_on_and_is_forgotten_when_it_would_have_been() {
        let now = Moment(Duration::from_hours(1));
        let until = now.after(FIRST);
        let mut left = BackOff::resumed(now, 2, until);
        assert_eq!((left.left(now), left.failures()), (FIRST, 2));
        // What is found says as much as what begins after that.
        left.begun(Instance(1));
        assert_eq!(left.clone().failed(now, Instance(1)), FIRST);
        assert!(left.is_unproven(until.after(HEALTH)));
        assert_eq!(left.clone().failed(until, Instance(1)), 2 * FIRST);
        assert_eq!(
            left.failed(until.after(HEALTH), Instance(1)),
            Duration::ZERO
        );
        // The pause is over, and nothing has failed since.
        let left = BackOff::resumed(until.after(PROOF), 2, until);
        assert!(!left.is_unproven(until.after(PROOF)));
    }

    #[test]
    fn what_fails_together_is_one_failure_and_so_is_all_within_a_pause() {
        let mut back_off = BackOff::default();
        let now = Moment::default();
        for nth in 1..=7 {
            back_off.begun(Instance(nth));
        }
        for nth in 1..=7 {
            assert_eq!(back_off.failed(now, Instance(nth)), Duration::ZERO);
        }
        assert_eq!(back_off.failures(), 1);
        for nth in 8..=14 {
            back_off.begun(Instance(nth));
            assert_eq!(back_off.failed(now, Instance(nth)), FIRST);
        }
        assert_eq!(back_off.failures(), 2);
    }

    #[test]
    fn one_attempt_at_a_time_until_one_was_of_use_or_has_lived_for_a_while() {
        let mut back_off = BackOff::default();
        let now = Moment::default();
        for nth in 1..=2 {
            back_off.begun(Instance(nth));
            assert!(!back_off.is_unproven(now));
            back_off.failed(now, Instance(nth));
        }
        let now = now.after(FIRST);
        assert!(back_off.is_unproven(now));
        // One that was there before says nothing.
        back_off.served(now, Instance(2));
        assert!(back_off.is_unproven(now));
        back_off.begun(Instance(3));
        back_off.came_up(now, Instance(3));
        let proof = now.after(PROOF);
        assert!(back_off.is_unproven(now) && back_off.proof() == Some(proof));
        assert!(!back_off.is_unproven(proof));
        back_off.served(now, Instance(3));
        assert!(!back_off.is_unproven(now));
        back_off.failed(now, Instance(3));
        assert!(back_off.is_unproven(proof));
    }
}
