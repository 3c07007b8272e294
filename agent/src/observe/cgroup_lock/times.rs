//! Lengths of time out of the kernel's histograms.

use hearth_abi::{LOCK_BUCKETS, bucket_end_ns};
use serde::Serialize;

use crate::kernel::cgroup_lock::Times;
use crate::time::Nanos;

/// What one histogram says.
///
/// Percentiles are nearest rank, and of the bucket in which that rank lies its end: at most 50 %
/// above what it was, never below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum_ns: Nanos,
    /// Half of them took at most this long.
    pub p50_ns: Nanos,
    /// All but one in a hundred took at most this long.
    pub p99_ns: Nanos,
    /// The longest.
    pub max_ns: Nanos,
}

impl Summary {
    /// Of `times`; `None` of none.
    #[must_use]
    pub fn of(times: &Times) -> Option<Self> {
        Some(Self {
            count: times.count,
            sum_ns: times.sum,
            p50_ns: percentile(times, 50)?,
            p99_ns: percentile(times, 99)?,
            max_ns: times.max,
        })
    }
}

/// The length that `percent` of `times` did not exceed; `None` of none.
#[must_use]
pub fn percentile(times: &Times, percent: u64) -> Option<Nanos> {
    // Counters are read one after the other while they count: the buckets agree with themselves.
    let count: u64 = times.buckets.iter().sum();
    let rank = (count * percent).div_ceil(100).max(1);
    let mut below = 0;
    let bucket = times.buckets.iter().position(|bucket| {
        below += bucket;
        below >= rank
    })?;
    let end = bucket_end_ns(bucket);
    Some(Nanos(end.min(times.max.0.max(begin_ns(bucket)))))
}

/// Where a bucket begins, ns.
fn begin_ns(bucket: usize) -> u64 {
    bucket.checked_sub(1).map_or(0, bucket_end_ns)
}

/// Both together.
#[must_use]
pub fn merged(one: &Times, other: &Times) -> Times {
    let mut sum = *one;
    sum.count += other.count;
    sum.sum.0 = sum.sum.0.saturating_add(other.sum.0);
    sum.max = sum.max.max(other.max);
    for (total, count) in sum.buckets.iter_mut().zip(&other.buckets) {
        *total += count;
    }
    sum
}

/// What came to `before` until it was `now`. Where the longest of all is an older one, that of the
/// time since is known by its bucket only: its end.
#[must_use]
pub fn since(now: &Times, before: &Times) -> Times {
    let mut buckets = [0; LOCK_BUCKETS];
    for (index, bucket) in buckets.iter_mut().enumerate() {
        *bucket = now.buckets[index].saturating_sub(before.buckets[index]);
    }
    let highest = buckets.iter().rposition(|&count| count > 0);
    let max = match highest {
        _ if now.max > before.max => now.max,
        Some(bucket) => Nanos(bucket_end_ns(bucket).min(now.max.0)),
        None => Nanos(0),
    };
    Times {
        count: now.count.saturating_sub(before.count),
        sum: Nanos(now.sum.0.saturating_sub(before.sum.0)),
        max,
        buckets,
    }
}

#[cfg(test)]
mod tests {
    use hearth_abi::bucket_of;
    use proptest::prelude::*;

    use super::*;

    fn times(lengths: &[u64]) -> Times {
        let mut times = Times::NONE;
        for &ns in lengths {
            times.count += 1;
            times.sum.0 += ns;
            times.max.0 = times.max.0.max(ns);
            times.buckets[bucket_of(ns)] += 1;
        }
        times
    }

    /// The length of that rank, sorted out of all of them.
    fn exact(lengths: &[u64], percent: u64) -> u64 {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let rank = (sorted.len() as u64 * percent).div_ceil(100).max(1);
        sorted[usize::try_from(rank).expect("small") - 1]
    }

    fn lengths() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(
            prop_oneof![0..2_000_u64, 0..10_000_000_u64, 0..60_000_000_000_u64],
            1..200,
        )
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(percentile(&Times::NONE, 50), None);
        assert_eq!(Summary::of(&Times::NONE), None);
    }

    #[test]
    fn one_length_is_all_percentiles() {
        for ns in [0, 1_023, 1_024, 5_000_000, 100_000_000_000] {
            let summary = Summary::of(&times(&[ns])).expect("one");
            assert_eq!((summary.p50_ns, summary.p99_ns), (Nanos(ns), Nanos(ns)));
        }
    }

    #[test]
    fn what_lies_beyond_the_last_bucket_is_the_longest() {
        let summary = Summary::of(&times(&[2_000, 200_000_000_000])).expect("two");
        assert_eq!(summary.p50_ns, Nanos(2_048));
        assert_eq!(summary.p99_ns, Nanos(200_000_000_000));
    }

    proptest! {
        #[test]
        fn a_percentile_is_never_below_the_truth_and_at_most_half_above(lengths in lengths(), percent in 1..=100_u64) {
            let told = percentile(&times(&lengths), percent).expect("some").0;
            let exact = exact(&lengths, percent);
            prop_assert!(told >= exact, "{told} < {exact}");
            prop_assert!(told <= (exact + exact / 2 + 1).max(1_024), "{told} for {exact}");
        }

        #[test]
        fn merging_is_as_if_all_had_been_counted_together(one in lengths(), other in lengths()) {
            let both: Vec<u64> = one.iter().chain(&other).copied().collect();
            let (one, other) = (times(&one), times(&other));
            prop_assert_eq!(merged(&one, &other), times(&both));
            prop_assert_eq!(merged(&one, &other), merged(&other, &one));
            prop_assert_eq!(merged(&one, &Times::NONE), one);
        }

        #[test]
        fn what_came_since_is_what_was_merged(before in lengths(), came in lengths()) {
            let (before, came) = (times(&before), times(&came));
            let found = since(&merged(&before, &came), &before);
            prop_assert_eq!((found.count, found.sum, found.buckets), (came.count, came.sum, came.buckets));
            // The longest is known exactly, or by its bucket.
            prop_assert!(found.max >= came.max);
            prop_assert_eq!(bucket_of(found.max.0.saturating_sub(1).max(came.max.0)), bucket_of(came.max.0));
        }
    }
}
