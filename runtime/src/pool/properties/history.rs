//! What a policy was told on a tiny trace, and what it is to say to that: told anew from all of it
//! each time, as the policies are defined, without what they do to be fast.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Moment;
use super::super::policy::{Plan, Policy, Seen};

/// All that a policy was told.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) arrivals: Vec<Moment>,
    pub(super) works: Vec<Duration>,
    pub(super) starts: Vec<Duration>,
    /// In order of time.
    pub(super) looks: Vec<Look>,
}

/// A moment at which it was asked, and how much it had been told by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) seen: Seen,
    pub(super) arrivals: usize,
    pub(super) works: usize,
    pub(super) starts: usize,
}

/// A request: how long after the one before (else as long as that was after its own), and how long
/// it is at work.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// In microseconds.
    after: Option<u64>,
    work: Duration,
    /// How many others stand ready when it comes.
    ready: u32,
    /// How long a start took that is measured when it comes.
    start: Option<Duration>,
}

/// At most eight of them: some at once, some within seconds, minutes or hours.
pub(super) fn any_requests() -> impl Strategy<Value = Vec<Request>> {
    let after = proptest::option::weighted(
        0.7,
        prop_oneof![
            1 => Just(0),
            4 => 0..30_000_000_u64,
            4 => 0..1_200_000_000_u64,
            2 => 0..40_000_000_000_u64,
        ],
    );
    let work = prop_oneof![3 => 1..5_000_000_u64, 1 => 1..200_000_000_u64];
    let start = proptest::option::of(1..20_000_000_u64);
    let request = (after, work, 0..4_u32, start).prop_map(|(after, work, ready, start)| Request {
        after,
        work: Duration::from_micros(work),
        ready,
        start: start.map(Duration::from_micros),
    });
    proptest::collection::vec(request, 1..=8)
}

impl History {
    /// Tells a policy of the requests, each of which is at work as soon as it comes, and asks it
    /// after everything that happens, when it wants to be, and in between. It said something at each
    /// look.
    pub(super) fn of(policy: &mut dyn Policy, requests: &[Request]) -> (Self, Vec<Plan>) {
        let mut history = Self::default();
        let mut plans: Vec<Plan> = Vec::new();
        let (mut at, mut after) = (Moment::default(), 0);
        let (mut arrivals, mut ends, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            after = request.after.unwrap_or(after);
            let part = |nth| at.after(Duration::from_micros(after / 16 * nth));
            looks.extend((1..16).map(part).filter(|_| !arrivals.is_empty()));
            at = at.after(Duration::from_micros(after));
            arrivals.push((at, request));
            ends.push((at.after(request.work), request.work));
        }
        ends.sort_unstable();
        let mut looks = looks.into_iter().peekable();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut ends = ends.into_iter().peekable();
        let mut seen = Seen::default();
        loop {
            let arrival = arrivals.peek().map(|(at, _)| *at);
            let end = ends.peek().map(|(at, _)| *at);
            let again = plans.last().and_then(|plan| plan.again);
            let again = again.map(|again| again.max(seen.now.after(Duration::from_nanos(1))));
            let look = looks.peek().copied();
            let Some(now) = [arrival, end, look, again].into_iter().flatten().min() else {
                return (history, plans);
            };
            seen.now = now;
            if end == Some(now)
                && let Some((_, work)) = ends.next()
            {
                history.works.push(work);
                policy.served(now, work);
                seen.demand -= 1;
            } else if arrival == Some(now)
                && let Some((_, request)) = arrivals.next()
            {
                if let Some(start) = request.start {
                    history.starts.push(start);
                    policy.measured(now, start);
                }
                history.arrivals.push(now);
                policy.arrived(now);
                seen.demand += 1;
                seen.ready = request.ready;
            }
            looks.next_if_eq(&now);
            seen.busy = seen.demand;
            history.looks.push(Look {
                seen,
                arrivals: history.arrivals.len(),
                works: history.works.len(),
                starts: history.starts.len(),
            });
            plans.push(policy.plan(seen));
        }
    }

    /// What was demanded between these moments, in microseconds of one request.
    pub(super) fn demanded(&self, from: Moment, until: Moment) -> u128 {
        let mut end = until;
        let looks = self
            .looks
            .iter()
            .rev()
            .skip_while(|look| look.seen.now >= until);
        looks
            .map_while(|look| {
                let (begin, demand) = (look.seen.now.max(from), look.seen.demand);
                let time = end.since(begin).as_micros();
                let is_in_sight = end > from;
                end = look.seen.now;
                is_in_sight.then(|| time * u128::from(demand))
            })
            .sum()
    }
}
