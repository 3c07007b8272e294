//! What could have been done, had the trace been known beforehand.
//!
//! It bounds those that start an instance when a request finds none, and never ahead of one. To
//! them each gap between an instance's last request and its next one is a choice: keep it, which
//! costs the gap's length times its memory, or let it go, which costs one cold start. All choices
//! cost the same on one side, so with a given memory-time it is best to keep the cheapest gaps.
//!
//! Which gaps there are does not depend on the choices where the instance that was used last is used
//! first: then they are those between a fall of the function's concurrency below a level and its
//! next rise to it. Giving a request an instance that waited longer never makes kept gaps shorter.
//!
//! Starts take no time in here, so that a policy whose cold starts make a request end later has a
//! gap that is a start shorter than the bound's. One that starts ahead is not bound at all: it may
//! be below, by what it can foretell.

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
            gaps.extend(of_function(&times).into_iter().map(|gap| gap * weight));
        }
        gaps.sort_unstable();
        let mut sum = 0;
        for gap in &mut gaps {
            sum += *gap;
            *gap = sum;
        }
        Self {
            kept: gaps,
            requests: trace.arrivals().len() as u64,
        }
    }

    /// Cold starts at least, with so much idle memory-time.
    pub(super) fn cold_starts(&self, idle_byte_ns: u128) -> u64 {
        let kept = self.kept.partition_point(|sum| *sum <= idle_byte_ns);
        self.requests.saturating_sub(kept as u64)
    }

    /// The curve: at most so many points of idle memory-time in GiB s and the share of cold starts.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    pub fn curve(&self, points: usize) -> Vec<(f64, f64)> {
        let requests = self.requests.max(1) as f64;
        let point = |kept: usize| {
            let idle = kept.checked_sub(1).and_then(|last| self.kept.get(last));
            let cold = self.requests.saturating_sub(kept as u64);
            (gib_s(idle.copied().unwrap_or(0)), cold as f64 / requests)
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
