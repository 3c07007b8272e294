//! What there is of the pools of a node at one moment, and what happened in them.

use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds of what lengths of time are sorted by, seconds. Those of the semantic conventions
/// for functions are among them; below and above are those that a warm function and a long one need.
pub const BOUNDS: [f64; 20] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 30.0, 60.0, 300.0,
];

/// The pools of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolsState {
    /// Memory that all sandboxes may have together, in bytes, where that is bounded.
    pub budget_bytes: Option<u64>,
    /// Memory that they have, in bytes.
    pub used_bytes: u64,
    /// Each of them.
    pub pools: Vec<PoolState>,
}

/// The pool of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Whose.
    pub function: String,
    /// Sandboxes that there may be.
    pub max: u64,
    /// That there should be.
    pub target: u64,
    /// That wait for work.
    pub ready: u64,
    /// That start.
    pub starting: u64,
    /// That are at work.
    pub busy: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Memory of those that wait for work, in bytes.
    pub idle_bytes: u64,
    /// How long it is left alone from now on, as it keeps failing.
    pub back_off: Duration,
    /// What happened since it began.
    pub counts: PoolCounts,
}

/// What is counted of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests that got a sandbox, by what they had to wait for.
    Served(&'static str),
    /// Requests that got none, by why.
    Refused(&'static str),
    /// Sandboxes that were ended, by why.
    Retired(&'static str),
    /// Requests that the function answered.
    Answered,
    /// Requests that it failed.
    Failed,
    /// Of these, those that took too long.
    TimedOut,
}

/// What happened in a pool since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Each count; one that can be and is not yet is there, and 0.
    pub counts: BTreeMap<Counter, u64>,
    /// How long the function was at work on requests.
    pub invoke: Durations,
    /// How long it took to begin.
    pub init: Durations,
}

impl PoolCounts {
    /// What came after `before`; all of it where this began anew since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let count = |counter| before.counts.get(counter).copied().unwrap_or(0);
        let is_later = self.counts.iter().all(|(of, is)| *is >= count(of))
            && self.invoke.is_after(&before.invoke)
            && self.init.is_after(&before.init);
        if !is_later {
            return self.clone();
        }
        Self {
            counts: self
                .counts
                .iter()
                .map(|(of, is)| (*of, is - count(of)))
                .collect(),
            invoke: self.invoke.less(&before.invoke),
            init: self.init.less(&before.init),
        }
    }

    /// Adds what happened elsewhere, or later.
    pub fn add(&mut self, more: &Self) {
        for (of, count) in &more.counts {
            *self.counts.entry(*of).or_default() += count;
        }
        self.invoke.add(&more.invoke);
        self.init.add(&more.init);
    }
}

/// Lengths of time, sorted by [`BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// By bound, how many were at most that long and longer than the bound before; and, last, how
    /// many were longer than all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All together.
    pub sum: Duration,
}

impl Durations {
    /// Takes note of one.
    pub fn record(&mut self, length: Duration) {
        let seconds = length.as_secs_f64();
        let at = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[at] += 1;
        self.sum = self.sum.saturating_add(length);
    }

    fn is_after(&self, before: &Self) -> bool {
        let mut pairs = self.counts.iter().zip(&before.counts);
        self.sum >= before.sum && pairs.all(|(is, was)| is >= was)
    }

    fn less(&self, before: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|at| self.counts[at] - before.counts[at]),
            sum: self.sum.saturating_sub(before.sum),
        }
    }

    fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&more.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(more.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_sorted_with_those_that_are_at_most_as_long_as_its_bound() {
        let mut durations = Durations::default();
        for millis in [1, 5, 6, 400_000] {
            durations.record(Duration::from_millis(millis));
        }
        let filled: Vec<_> = (0..=BOUNDS.len())
            .filter(|at| durations.counts[*at] > 0)
            .collect();
        // 1 ms, 5 ms, 10 ms, and longer than all.
        assert_eq!(filled, [1, 3, 4, BOUNDS.len()]);
        assert_eq!(durations.sum, Duration::from_millis(400_012));
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn what_came_after_is_the_difference_or_all_where_it_began_anew() {
        let counts = |hits, lengths: &[u64]| {
            let mut invoke = Durations::default();
            for millis in lengths {
                invoke.record(Duration::from_millis(*millis));
            }
            PoolCounts {
                counts: BTreeMap::from([(Counter::Served("hit"), hits), (Counter::Answered, 1)]),
                invoke,
                init: Durations::default(),
            }
        };
        let (first, later) = (counts(3, &[1, 5]), counts(7, &[1, 5, 9]));
        let between = later.since(&first);
        assert_eq!(between.counts[&Counter::Served("hit")], 4);
        assert_eq!(between.counts[&Counter::Answered], 0);
        assert_eq!(between.invoke.sum, Duration::from_millis(9));
        let mut sum = first.clone();
        sum.add(&between);
        assert_eq!(sum, PoolCounts { ..later.clone() });
        // The function was removed and came again.
        let anew = counts(9, &[1]);
        assert_eq!(anew.since(&later), anew);
    }
}
