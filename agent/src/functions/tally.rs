//! What is counted of a function and its pool, for who watches the node.

use std::time::Duration;

use hearth_runtime::id::FunctionName;
use hearth_runtime::pool::{Action, Instance, Reason, Retired, Served};

use crate::observe::pool::{Counter, PoolCounts};

/// All reasons; of which instance is not told.
const REASONS: [Reason; 6] = [
    Reason::Full,
    Reason::Late,
    Reason::Memory,
    Reason::NotStarted {
        instance: Instance(0),
    },
    Reason::BackOff,
    Reason::Removed,
];

/// What came of a request that reached its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was answered.
    Answered,
    /// It was not.
    Failed,
    /// It was not, as it took too long.
    TimedOut,
}

/// What is counted of one function since the agent began.
#[derive(Clone, Debug)]
pub(super) struct Tally(PoolCounts);

impl Tally {
    /// Each count that can be, at 0: one that first shows with its first failure hides it.
    pub(super) fn new() -> Self {
        let served = [Served::Hit, Served::Queued, Served::Miss];
        let retired = [
            Retired::Idle,
            Retired::Surplus,
            Retired::Old,
            Retired::Evicted,
            Retired::Removed,
        ];
        let counters = served
            .map(|how| Counter::Served(how.word()))
            .into_iter()
            .chain(REASONS.map(|reason| Counter::Refused(reason.word())))
            .chain(retired.map(|why| Counter::Retired(why.word())))
            .chain([Counter::Answered, Counter::Failed, Counter::TimedOut]);
        Self(PoolCounts {
            counts: counters.map(|counter| (counter, 0)).collect(),
            ..PoolCounts::default()
        })
    }

    fn count(&mut self, counter: Counter) {
        *self.0.counts.entry(counter).or_default() += 1;
    }

    /// The fleet wants this done.
    pub(super) fn decided(&mut self, action: &Action) {
        match action {
            Action::Start { .. } => {}
            Action::Serve { how, .. } => self.count(Counter::Served(how.word())),
            Action::Refuse { refusal, .. } => self.count(Counter::Refused(refusal.reason.word())),
            Action::Retire { why, .. } => self.count(Counter::Retired(why.word())),
        }
    }

    /// It came up, so long after the claim.
    pub(super) fn started(&mut self, took: Duration) {
        self.0.init.record(took);
    }

    /// A request is over; it was at work on that for so long, if it was.
    pub(super) fn over(&mut self, came: Came, work: Option<Duration>) {
        if let Some(work) = work {
            self.0.invoke.record(work);
        }
        match came {
            Came::Answered => self.count(Counter::Answered),
            Came::Failed => self.count(Counter::Failed),
            Came::TimedOut => {
                self.count(Counter::Failed);
                self.count(Counter::TimedOut);
            }
        }
    }

    /// What a function of the same name did before.
    pub(super) fn add(&mut self, before: &Self) {
        self.0.add(&before.0);
    }

    /// One of the counts.
    pub(super) fn of(&self, counter: Counter) -> u64 {
        self.0.counts.get(&counter).copied().unwrap_or(0)
    }

    /// Requests that got no sandbox, whatever the reason.
    pub(super) fn refused(&self) -> u64 {
        let reasons = REASONS.map(|reason| self.of(Counter::Refused(reason.word())));
        reasons.into_iter().sum()
    }

    /// All of it.
    pub(super) const fn counts(&self) -> &PoolCounts {
        &self.0
    }
}

/// Whom an action concerns.
pub(super) const fn function_of(action: &Action) -> &FunctionName {
    match action {
        Action::Start { function, .. }
        | Action::Serve { function, .. }
        | Action::Refuse { function, .. }
        | Action::Retire { function, .. } => function,
    }
}

#[cfg(test)]
mod tests {
    use hearth_runtime::pool::{Refusal, Ticket};

    use super::*;

    #[test]
    fn all_that_can_be_counted_is_there_from_the_beginning() {
        let mut tally = Tally::new();
        let before = tally.counts().counts.len();
        let function: FunctionName = "shop".parse().expect("a name");
        let (ticket, instance) = (Ticket(1), Instance(7));
        for how in [Served::Hit, Served::Queued, Served::Miss] {
            let function = function.clone();
            tally.decided(&Action::Serve {
                function,
                ticket,
                instance,
                how,
            });
        }
        for reason in REASONS {
            let refusal = Refusal {
                reason,
                retry_after: Duration::ZERO,
            };
            let function = function.clone();
            tally.decided(&Action::Refuse {
                function,
                ticket,
                refusal,
            });
        }
        tally.over(Came::Answered, Some(Duration::from_millis(3)));
        tally.over(Came::TimedOut, None);
        let counts = tally.counts();
        assert_eq!(counts.counts.len(), before);
        assert!(
            counts
                .counts
                .iter()
                .all(|(of, count)| { *count == u64::from(!matches!(of, Counter::Retired(_))) })
        );
        assert_eq!(counts.invoke.sum, Duration::from_millis(3));
    }
}
