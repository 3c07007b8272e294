//! Usage over the last half minute, and how fast it grows.

use std::collections::BTreeMap;
use std::time::Duration;

use ringbuf::HeapRb;
#[cfg(test)]
use ringbuf::traits::Observer as _;

use crate::observe::oom::before::{Pressure, UsageSample};
use crate::time::{Boottime, Nanos};

/// How often an armed cgroup is sampled.
pub(super) const EVERY: Nanos = Nanos(250_000_000);
/// How far back samples are kept.
pub(super) const WINDOW: Nanos = Nanos(30_000_000_000);
/// How far back the rate looks by which the limit is expected: of the last moments, since what
/// grew slowly may have begun to grow fast.
const RECENT: Nanos = Nanos(5_000_000_000);
/// What takes longer is not coming.
const NOT_COMING: Duration = Duration::from_hours(24);
/// A window of samples, and the two at its ends.
const SAMPLES: usize = (WINDOW.0 / EVERY.0) as usize + 2;
/// Counters of one sample.
pub(super) const EVENTS: usize = 8;

/// Everything that is read of a cgroup at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// What it used.
    pub(super) usage: UsageSample,
    /// Its counters, in the order of their names; `None` where they could not be read.
    pub(super) events: Option<[u64; EVENTS]>,
    /// Its pressure; `None` where it has none.
    pub(super) pressure: Option<Pressure>,
}

/// The samples of one cgroup, a bounded number of them.
pub(super) struct Samples {
    ring: HeapRb<Sample>,
    /// Names of the counters.
    names: Vec<Box<str>>,
}

/// How fast a cgroup grows at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Growth {
    /// Over all samples, bytes per second; `None` of fewer than two.
    pub(super) rate: Option<f64>,
    /// When the limit would be reached at the rate of the last moments; `None` when it is not
    /// growing.
    pub(super) time_to_limit: Option<Nanos>,
}

impl Samples {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            ring: HeapRb::new(SAMPLES),
            names: Vec::new(),
        }
    }

    /// Adds one; the oldest goes when it is full.
    pub(super) fn push(&mut self, sample: Sample) {
        self.ring.push_overwrite(sample);
    }

    /// Puts counters into their order, whose names are learnt from the first of them.
    pub(super) fn order<'a>(
        &mut self,
        counters: impl Iterator<Item = (&'a str, u64)>,
    ) -> [u64; EVENTS] {
        let mut ordered = [0; EVENTS];
        for (name, value) in counters {
            let known = self.names.iter().position(|known| **known == *name);
            let index = known.unwrap_or_else(|| {
                self.names.push(name.into());
                self.names.len() - 1
            });
            if let Some(place) = ordered.get_mut(index) {
                *place = value;
            }
        }
        ordered
    }

    /// Counters with their names.
    pub(super) fn named(&self, events: &[u64; EVENTS]) -> BTreeMap<String, u64> {
        let names = self.names.iter().map(ToString::to_string);
        names.zip(events.iter().copied()).collect()
    }

    /// Those of the window that ends at `at`, oldest first.
    pub(super) fn until(&mut self, at: Boottime) -> impl Iterator<Item = &Sample> + Clone {
        let (older, newer) = self.ring.as_slices();
        older
            .iter()
            .chain(newer)
            .filter(move |sample| sample.usage.at <= at && at.since(sample.usage.at) <= WINDOW)
    }

    /// The newest.
    pub(super) fn last(&mut self) -> Option<&Sample> {
        self.ring.last()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ring.occupied_len()
    }

    /// How fast it grew in the window that ends at `at`, towards `limit`.
    pub(super) fn growth(&mut self, at: Boottime, limit: u64) -> Growth {
        let Some(last) = self.until(at).last().map(|sample| sample.usage) else {
            return Growth::default();
        };
        let recent = self
            .until(at)
            .filter(|sample| last.at.since(sample.usage.at) <= RECENT);
        let left = limit.saturating_sub(held(&last));
        let seconds = slope(recent)
            .filter(|rate| *rate > 0.0)
            .map(|rate| bytes(left) / rate);
        let time_to_limit = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|time| *time < NOT_COMING)
            .and_then(|time| Some(Nanos(u64::try_from(time.as_nanos()).ok()?)));
        Growth {
            rate: slope(self.until(at)),
            time_to_limit,
        }
    }
}

/// What counts towards a kill: without what reclaim gets back, where that is known.
pub(super) fn held(usage: &UsageSample) -> u64 {
    usage.needed_bytes.unwrap_or(usage.bytes)
}

/// A number of bytes, to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 8 PiB the last bytes do not matter"
)]
pub(super) const fn bytes(number: u64) -> f64 {
    number as f64
}

/// Slope of the line through the samples (least squares), bytes per second.
fn slope<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Option<f64> {
    let first = samples.clone().next()?.usage;
    let points = samples.map(|sample| {
        let seconds = sample.usage.at.since(first.at).as_secs_f64();
        // Bytes are counted from the first sample on: a difference keeps its digits.
        (seconds, bytes(held(&sample.usage)) - bytes(held(&first)))
    });
    let (n, sum_x, sum_y) = points.clone().fold((0.0, 0.0, 0.0), |(n, x, y), point| {
        (n + 1.0, x + point.0, y + point.1)
    });
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (xy, xx) = points.fold((0.0, 0.0), |(xy, xx), (x, y)| {
        (
            (x - mean_x).mul_add(y - mean_y, xy),
            (x - mean_x).mul_add(x - mean_x, xx),
        )
    });
    (xx > 0.0).then(|| xy / xx)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sample(at: u64, bytes: u64) -> Sample {
        Sample {
            usage: UsageSample {
                at: Boottime(at),
                bytes: bytes + 5 * MIB,
                needed_bytes: Some(bytes),
            },
            events: None,
            pressure: None,
        }
    }

    #[test]
    fn a_steady_growth_is_told_as_such() {
        let mut samples = Samples::new();
        for index in 0..40 {
            samples.push(sample(index * EVERY.0, 100 * MIB + index * MIB));
        }
        let last = Boottime(39 * EVERY.0);
        let growth = samples.growth(last, 179 * MIB);
        let rate = growth.rate.expect("a rate");
        assert!((rate - 4.0 * bytes(MIB)).abs() < 1.0, "{rate}");
        let seconds = growth.time_to_limit.expect("a time").as_secs_f64();
        assert!((seconds - 10.0).abs() < 0.001, "{seconds}");
        // As it was known earlier.
        let earlier = samples.growth(Boottime(20 * EVERY.0), 179 * MIB);
        let seconds = earlier.time_to_limit.expect("a time").as_secs_f64();
        assert!((seconds - 14.75).abs() < 0.001, "{seconds}");
    }

    #[test]
    fn what_does_not_grow_does_not_reach_its_limit() {
        let mut samples = Samples::new();
        assert_eq!(samples.growth(Boottime(0), MIB), Growth::default());
        samples.push(sample(0, MIB));
        assert_eq!(samples.growth(Boottime(0), MIB), Growth::default());
        samples.push(sample(EVERY.0, MIB));
        let still = samples.growth(Boottime(EVERY.0), 2 * MIB);
        assert_eq!(still.rate, Some(0.0));
        assert_eq!(still.time_to_limit, None);
    }

    #[test]
    fn what_begins_to_grow_is_expected_by_its_last_moments() {
        let mut samples = Samples::new();
        for index in 0..100 {
            let grown = u64::saturating_sub(index, 80) * MIB;
            samples.push(sample(index * EVERY.0, 100 * MIB + grown));
        }
        let growth = samples.growth(Boottime(99 * EVERY.0), 159 * MIB);
        let seconds = growth.time_to_limit.expect("a time").as_secs_f64();
        assert!((9.0..12.0).contains(&seconds), "{seconds}");
        assert!(growth.rate.expect("a rate") < 2.0 * bytes(MIB));
    }

    #[test]
    fn half_a_minute_is_kept_and_no_more() {
        let mut samples = Samples::new();
        for index in 0..1000 {
            samples.push(sample(index * EVERY.0, index));
        }
        assert_eq!(samples.len(), SAMPLES);
        let last = Boottime(999 * EVERY.0);
        let kept: Vec<_> = samples.until(last).copied().collect();
        assert_eq!(kept.len() as u64, WINDOW.0 / EVERY.0 + 1);
        assert_eq!(last.since(kept[0].usage.at), WINDOW);
        // What came after a kill does not belong before it.
        assert!(
            samples
                .until(Boottime(990 * EVERY.0))
                .all(|s| s.usage.at.0 <= 990 * EVERY.0)
        );
    }

    #[test]
    fn counters_keep_their_names() {
        let mut samples = Samples::new();
        let first = samples.order([("low", 0), ("high", 2)].into_iter());
        let second = samples.order([("high", 3), ("low", 1), ("max", 4)].into_iter());
        assert_eq!(samples.named(&first)["high"], 2);
        let named = samples.named(&second);
        assert_eq!((named["low"], named["high"], named["max"]), (1, 3, 4));
        let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        samples.order(many.iter().map(|name| (name.as_str(), 1)));
    }
}
