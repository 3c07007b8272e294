//! What came of it.

use std::time::Duration;

use serde::Serialize;

use super::super::Served;
use super::super::policy::Choice;
use super::Clairvoyant;

/// What a policy did with a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which.
    pub policy: Choice,
    /// Requests that came.
    pub requests: u64,
    /// Requests that waited for an instance to start.
    pub cold_starts: u64,
    /// Requests that waited for an instance that was at work.
    pub queued: u64,
    /// Requests that were not served.
    pub refused: u64,
    /// Instances that were started, for a request or ahead of it.
    pub starts: u64,
    /// Requests that waited for an instance to start or were not served, by all requests: nobody
    /// looks good by refusing.
    pub cold_start_share: f64,
    /// The same of each function alone, over functions that were asked for.
    pub functions: Shares,
    /// Requests that were not served at once, for whatever reason, by all requests.
    pub waited_share: f64,
    /// Memory that waited for work, by the time that it did, in GiB s.
    pub idle_memory_gib_s: f64,
    /// By how much [`waited_share`](Self::waited_share) is too high: one that knows the future, but
    /// starts nothing ahead, has so much less with as much memory-time of instances that start or
    /// wait for work. See [`Clairvoyant`].
    pub regret: f64,
}

/// How shares are distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// The median.
    pub p50: f64,
    /// Three quarters have at most this.
    pub p75: f64,
    /// All but one in a hundred have at most this.
    pub p99: f64,
}

impl Shares {
    fn of(mut shares: Vec<f64>) -> Self {
        shares.sort_by(f64::total_cmp);
        // The smallest one that so many per cent do not exceed.
        let at = |percent: usize| {
            let rank = (shares.len() * percent).div_ceil(100).max(1);
            shares.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p75: at(75),
            p99: at(99),
        }
    }
}

/// Counts of one function.
#[derive(Clone, Copy, Default)]
struct Asked {
    requests: u64,
    cold: u64,
    refused: u64,
}

/// Counts while it is simulated.
pub(super) struct Tally {
    functions: Vec<Asked>,
    queued: u64,
    starts: u64,
    idle_byte_ns: u128,
    starting_byte_ns: u128,
}

impl Tally {
    pub(super) fn new(functions: usize) -> Self {
        Self {
            functions: vec![Asked::default(); functions],
            queued: 0,
            starts: 0,
            idle_byte_ns: 0,
            starting_byte_ns: 0,
        }
    }

    pub(super) fn arrived(&mut self, function: usize) {
        if let Some(asked) = self.functions.get_mut(function) {
            asked.requests += 1;
        }
    }

    pub(super) fn served(&mut self, function: usize, how: Served) {
        match how {
            Served::Hit => {}
            Served::Queued => self.queued += 1,
            Served::Miss => {
                if let Some(asked) = self.functions.get_mut(function) {
                    asked.cold += 1;
                }
            }
        }
    }

    pub(super) fn refused(&mut self, function: usize) {
        if let Some(asked) = self.functions.get_mut(function) {
            asked.refused += 1;
        }
    }

    pub(super) fn started(&mut self, time: Duration, bytes: u64) {
        self.starts += 1;
        let more = byte_ns(time, bytes);
        self.starting_byte_ns = self.starting_byte_ns.saturating_add(more);
    }

    pub(super) fn idle(&mut self, time: Duration, bytes: u64) {
        self.idle_byte_ns = self.idle_byte_ns.saturating_add(byte_ns(time, bytes));
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    pub(super) fn report(self, policy: Choice, clairvoyant: &Clairvoyant) -> Report {
        let sum = |of: fn(&Asked) -> u64| self.functions.iter().map(of).sum::<u64>();
        let requests = sum(|one| one.requests);
        let (cold_starts, refused) = (sum(|one| one.cold), sum(|one| one.refused));
        let waited = cold_starts + refused + self.queued;
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let asked = self.functions.iter().filter(|one| one.requests > 0);
        let of = |one: &Asked| share(one.cold + one.refused, one.requests);
        let unused = self.idle_byte_ns.saturating_add(self.starting_byte_ns);
        let best = clairvoyant.waited(unused);
        Report {
            policy,
            requests,
            cold_starts,
            queued: self.queued,
            refused,
            starts: self.starts,
            cold_start_share: share(cold_starts + refused, requests),
            functions: Shares::of(asked.map(of).collect()),
            waited_share: share(waited, requests),
            idle_memory_gib_s: gib_s(self.idle_byte_ns),
            regret: (waited as f64 - best as f64) / requests.max(1) as f64,
        }
    }
}

fn byte_ns(time: Duration, bytes: u64) -> u128 {
    time.as_nanos().saturating_mul(bytes.into())
}

/// Memory-time in GiB s.
#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
pub(super) fn gib_s(byte_ns: u128) -> f64 {
    byte_ns as f64 / 1e9 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_share_that_there_is() {
        let shares = Shares::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((shares.p50, shares.p75, shares.p99), (50.0, 75.0, 99.0));
        let one = Shares::of(vec![0.25]);
        assert_eq!((one.p50, one.p99), (0.25, 0.25));
        assert_eq!(Shares::of(Vec::new()), Shares::default());
    }
}
