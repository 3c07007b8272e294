//! What could have been done, had the trace been known beforehand.
//!
//! It bounds those that start an instance when a request finds none, and never ahead of one. To
//! them each gap between an instance's last request and its next one is a choice: keep it, which
//! costs the gap's length times its memory, or let it go, so that one more request is not served at
//! once. All choices cost the same on one side, so with a given memory-time it is best to keep the
//! cheapest gaps. What is counted is the same on both sides: requests that are not served at once,
//! whether they wait for a start, wait for an instance at work, or are refused.
//!
//! Which gaps there are does not depend on the choices where the instance that was used last is used
//! first: then they are those between a fall of the function's concurrency below a level and its
//! next rise to it. Giving a request an instance that waited longer never makes kept gaps shorter.
//!
//! Starts take no time in here. Where they do, a request that waits ends later, and the gap after
//! it is as much shorter than in here. While a request waits there is an instance that starts for
//! it, so that all gaps together are shorter by no more than the time that instances take to start:
//! who is compared gets that memory-time on top of what was idle. (Only where memory is short do
//! requests wait for longer than that.) One that starts ahead is not bound at all: it may be below,
//! by what it can foretell.

use super::Trace;
use super::report::gib_s;

/// The best there is for each idle memory-time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clairvoyant {
    /// What the cheapest so many gaps take together, in byte ns.
    kept: Vec<u128>,
    requests: u64,
}

impl Clairvoyant {
    /// Of one trace.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut gaps = Vec::new();
        let mut functions: Vec<Vec<(u128, u128)>> = vec![Vec::new(); trace.functions().len()];
        for arrival in trace.arrivals() {
            let begin = arrival.at().0.as_nanos();
            if let Some(times) = functions.get_mut(arrival.function()) {
                // Nothing is done at the moment when it begins.
                times.push((begin, begin + arrival.work().as_nanos().max(1)));
            }
        }
        for (times, function) in functions.into_iter().zip(trace.functions()) {
            let weight = u128::from(function.memory_bytes);
            gaps.extend(
                of_function(&times)
                    .into_iter()
                    .map(|gap| gap.saturating_mul(weight)),
            );
        }
        gaps.sort_unstable();
        let mut sum = 0_u128;
        for gap in &mut gaps {
            sum = sum.saturating_add(*gap);
            *gap = sum;
        }
        Self {
            kept: gaps,
            requests: trace.arrivals().len() as u64,
        }
    }

    /// Requests that are not served at once at least, with so much memory-time without work.
    pub(super) fn waited(&self, unused_byte_ns: u128) -> u64 {
        let kept = self.kept.partition_point(|sum| *sum <= unused_byte_ns);
        self.requests.saturating_sub(kept as u64)
    }

    /// The curve: at most so many points of memory-time without work, in GiB s, and the share of
    /// requests that are not served at once.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    pub fn curve(&self, points: usize) -> Vec<(f64, f64)> {
        let requests = self.requests.max(1) as f64;
        let point = |kept: usize| {
            let idle = kept.checked_sub(1).and_then(|last| self.kept.get(last));
            let waited = self.requests.saturating_sub(kept as u64);
            (gib_s(idle.copied().unwrap_or(0)), waited as f64 / requests)
        };
        let steps = points.saturating_sub(1).max(1);
        let mut curve: Vec<_> = (0..=steps)
            .map(|step| point(self.kept.len() * step / steps))
            .collect();
        curve.dedup();
        curve
    }
}

/// Gaps between the uses of each instance, where the one that was used last is used first. `times`
/// are the begins and ends of requests, in order of their begins.
fn of_function(times: &[(u128, u128)]) -> Vec<u128> {
    let mut ends: Vec<u128> = times.iter().map(|(_, end)| *end).collect();
    ends.sort_unstable();
    let mut ends = ends.into_iter().peekable();
    let mut idle = Vec::new();
    let mut gaps = Vec::new();
    for (begin, _) in times {
        // One that is done when the next request comes can take it.
        while let Some(end) = ends.next_if(|end| end <= begin) {
            idle.push(end);
        }
        if let Some(since) = idle.pop() {
            gaps.push(begin - since);
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::super::Moment;
    use super::super::super::policy::Choice;
    use super::super::{Builder, Function, Options, run};
    use super::*;

    type Request = (u64, u64);

    fn trace(functions: &[(u64, Vec<Request>)], start: u64) -> Trace {
        let mut builder = Builder::new(100);
        for (nth, (memory_bytes, requests)) in functions.iter().enumerate() {
            let function = builder.function(Function {
                name: nth.to_string(),
                app: nth.to_string(),
                trigger: None,
                memory_bytes: *memory_bytes,
                start: Duration::from_secs(start),
            });
            for &(at, work) in requests {
                let at = Moment(Duration::from_secs(at));
                let arrived = builder.arrive(function, at, Duration::from_secs(work));
                arrived.expect("few of them");
            }
        }
        builder.finish(Moment(Duration::from_secs(1000)))
    }

    /// What so many requests that are given an instance of an earlier one cost at least, by trying
    /// all ways to do so.
    fn best(requests: &mut [Request], weight: u64) -> Vec<Option<u64>> {
        requests.sort_unstable();
        let mut costs = vec![None; requests.len() + 1];
        let mut used = vec![false; requests.len()];
        search(requests, weight, 0, (0, 0), &mut used, &mut costs);
        costs
    }

    fn search(
        requests: &[Request],
        weight: u64,
        nth: usize,
        (given, cost): (usize, u64),
        used: &mut [bool],
        costs: &mut [Option<u64>],
    ) {
        let Some(&(begin, _)) = requests.get(nth) else {
            let least = costs[given].map_or(cost, |least| least.min(cost));
            costs[given] = Some(least);
            return;
        };
        search(requests, weight, nth + 1, (given, cost), used, costs);
        for (earlier, (at, work)) in requests.iter().enumerate() {
            let end = at + work;
            if earlier != nth && !used[earlier] && end <= begin {
                used[earlier] = true;
                let more = (given + 1, cost + (begin - end) * weight);
                search(requests, weight, nth + 1, more, used, costs);
                used[earlier] = false;
            }
        }
    }

    fn any_requests() -> impl Strategy<Value = Vec<Request>> {
        vec((0..40_u64, 1..15_u64), 1..6)
    }

    proptest! {
        #[test]
        fn nobody_does_better_by_any_other_choice(
            mut one in any_requests(),
            mut other in any_requests(),
        ) {
            let clairvoyant = Clairvoyant::of(&trace(&[(1, one.clone()), (3, other.clone())], 0));
            let (ones, others) = (best(&mut one, 1), best(&mut other, 3));
            let requests = one.len() + other.len();
            for budget in 0..200 {
                let mut most = 0;
                for (first, one) in ones.iter().enumerate() {
                    for (second, other) in others.iter().enumerate() {
                        if let (Some(one), Some(other)) = (one, other) && one + other <= budget {
                            most = most.max(first + second);
                        }
                    }
                }
                let waited = clairvoyant.waited(u128::from(budget) * 1_000_000_000);
                prop_assert_eq!(waited, (requests - most) as u64, "with {}", budget);
            }
        }

        /// Whoever starts one ahead pays with a start: no policy gives more requests an instance of an
        /// earlier one than the best of all ways to do so, which cost no more than it spent.
        #[test]
        fn no_policy_needs_fewer_starts_than_the_best_of_all_choices(
            choice in proptest::sample::select(Choice::ALL.to_vec()),
            mut requests in vec((0..4_000_u64, 1..200_u64), 1..9),
            start in 0..20_u64,
        ) {
            let trace = trace(&[(1 << 30, requests.clone())], start);
            let report = run(&trace, &Options::new(choice), &Clairvoyant::of(&trace), &mut |_| ());
            let starting = f64::from(u32::try_from(report.starts * start).expect("few"));
            let unused = report.idle_memory_gib_s + starting + 1e-6;
            let least = best(&mut requests, 1).into_iter().enumerate().filter(|(_, cost)| {
                cost.is_some_and(|cost| f64::from(u32::try_from(cost).expect("small")) <= unused)
            });
            let kept = least.map(|(kept, _)| kept).max().unwrap_or(0);
            prop_assert!(report.starts + kept as u64 >= report.requests, "{kept}: {report:?}");
        }

        #[test]
        fn who_starts_nothing_ahead_is_never_below(
            functions in vec((1..1_u64 << 30, any_requests()), 1..4),
            keep_alive in 0..60_u64,
            start in 0..20_u64,
        ) {
            let trace = trace(&functions, start);
            let clairvoyant = Clairvoyant::of(&trace);
            let policy = Choice::Fixed(Duration::from_secs(keep_alive));
            let report = run(&trace, &Options::new(policy), &clairvoyant, &mut |_| ());
            prop_assert!(report.regret >= 0.0, "{:?}", report);
        }
    }

    #[test]
    fn the_curve_goes_from_all_cold_to_as_few_as_can_be() {
        let clairvoyant = Clairvoyant::of(&trace(&[(1 << 30, vec![(0, 1), (5, 1), (20, 1)])], 0));
        let curve = clairvoyant.curve(9);
        assert_eq!(curve.first(), Some(&(0.0, 1.0)));
        assert_eq!(curve.last(), Some(&(18.0, 1.0 / 3.0)));
    }
}
