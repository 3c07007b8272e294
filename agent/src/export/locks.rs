//! The metrics and log records of the `cgroup_lock` signal.

use std::sync::{Arc, Mutex, PoisonError};

use hearth_abi::{LOCK_BUCKETS, bucket_end_ns};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry_semantic_conventions::attribute as semantic;

use super::clock::WallClock;
use super::counted::{CountedHistogram, CountedSeries};
use super::names::OTHER;
use super::record::{Attribute, EVENT_LOCK_WAIT, Log, Record};
use crate::kernel::cgroup_lock::{LockCounts, LockSnapshot, Times};
use crate::observe::cgroup_lock::{Task, Wait, WaitsByCgroup, in_words};
use crate::time::Nanos;

/// Time waited by cgroup, shared between who reads it and the instrument that tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedWaits(Arc<Mutex<Vec<(String, Nanos)>>>);

impl SharedWaits {
    /// Replaces what is told.
    pub(super) fn set(&self, waits: &WaitsByCgroup) {
        let named = waits
            .named()
            .map(|(path, waited)| (path.to_owned(), waited));
        let all = named.chain([(OTHER.to_owned(), waits.others())]).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Makes the instrument. It lives as long as the meter's provider.
    pub(super) fn instrument(&self, meter: &Meter) {
        let waits = self.clone();
        meter
            .f64_observable_counter("hearth.cgroup.lock.wait.time")
            .with_unit("s")
            .with_description(
                "Time that tasks of a cgroup waited for cgroup locks; of most cgroups together.",
            )
            .with_callback(move |to| {
                for (cgroup, waited) in &*waits.0.lock().unwrap_or_else(PoisonError::into_inner) {
                    let attributes = [KeyValue::new("cgroup", cgroup.clone())];
                    to.observe(waited.as_secs_f64(), &attributes);
                }
            })
            .build();
    }
}

/// The histograms of `snapshot`.
#[must_use]
pub(super) fn histograms(snapshot: &LockSnapshot) -> Vec<CountedHistogram> {
    let series = |times: fn(&LockCounts) -> &Times, bound: bool| {
        snapshot
            .counts
            .iter()
            .filter(|counts| times(counts).count > 0)
            .map(|counts| {
                let mut attributes = vec![
                    ("lock", counts.lock.name().to_owned()),
                    ("operation", counts.operation.name().to_owned()),
                ];
                if bound {
                    let word = if counts.hold_exact { "exact" } else { "upper" };
                    attributes.push(("bound", word.to_owned()));
                }
                CountedSeries {
                    attributes,
                    ..counted(times(counts))
                }
            })
            .collect()
    };
    let bounds = bounds();
    vec![
        CountedHistogram {
            name: "hearth.cgroup.lock.wait",
            description: "Time until a cgroup lock was had, of those who had to wait for it.",
            bounds: bounds.clone(),
            series: series(|counts| &counts.wait, false),
        },
        CountedHistogram {
            name: "hearth.cgroup.lock.hold",
            description: "Time for which a cgroup lock was held; where bound is upper, an upper \
                          bound, and of contended holds only.",
            bounds,
            series: series(|counts| &counts.hold, true),
        },
    ]
}

/// Where every second of the kernel's buckets ends: powers of two, in seconds.
fn bounds() -> Vec<f64> {
    (0..LOCK_BUCKETS - 1)
        .step_by(2)
        .map(|bucket| Nanos(bucket_end_ns(bucket)).as_secs_f64())
        .collect()
}

fn counted(times: &Times) -> CountedSeries {
    // The first has one bucket, then there are two for each, and one for the rest.
    let (first, others) = (times.buckets[0], &times.buckets[1..]);
    let pairs = others.chunks(2).map(|pair| pair.iter().sum());
    CountedSeries {
        attributes: Vec::new(),
        counts: std::iter::once(first).chain(pairs).collect(),
        sum: times.sum.as_secs_f64(),
    }
}

/// A long wait, and what is known of it beside its record.
#[derive(Clone, Debug)]
pub struct LongWait<'a> {
    /// The wait.
    pub wait: &'a Wait,
    /// Path of the waiter's cgroup.
    pub waiter_cgroup: Option<String>,
    /// Path of the holder's.
    pub holder_cgroup: Option<String>,
    /// How many such waits were not told since the last that was.
    pub untold: u64,
}

/// The log record of a long wait.
#[must_use]
pub(super) fn record(long: &LongWait<'_>, clock: &WallClock) -> Record {
    let wait = long.wait;
    let holder = wait.holder.as_ref();
    let held = holder.map(|holder| holder.task.label());
    let body = format!(
        "{} waited {:?} for {} ({})",
        wait.waiter.label(),
        wait.length().as_duration(),
        in_words(wait.lock.name(), held.as_deref()),
        wait.operation.name(),
    );
    let mut attributes: Vec<Attribute> = vec![
        ("hearth.lock.name".into(), wait.lock.name().into()),
        ("hearth.lock.operation".into(), wait.operation.name().into()),
        (
            "hearth.lock.wait".into(),
            wait.length().as_secs_f64().into(),
        ),
        (
            semantic::PROCESS_PID.into(),
            u64::from(wait.waiter.pid).into(),
        ),
        (
            semantic::THREAD_ID.into(),
            u64::from(wait.waiter.tid).into(),
        ),
        (
            semantic::THREAD_NAME.into(),
            wait.waiter.comm.clone().into(),
        ),
    ];
    if let Some(path) = &long.waiter_cgroup {
        attributes.push((semantic::PROCESS_LINUX_CGROUP.into(), path.clone().into()));
    }
    if let Some(holder) = holder {
        let Task { pid, comm, .. } = &holder.task;
        attributes.push(("hearth.lock.holder.pid".into(), u64::from(*pid).into()));
        attributes.push(("hearth.lock.holder.command".into(), comm.clone().into()));
        if let Some(operation) = holder.operation {
            let operation = operation.name().into();
            attributes.push(("hearth.lock.holder.operation".into(), operation));
        }
        if let Some(path) = &long.holder_cgroup {
            attributes.push(("hearth.lock.holder.cgroup".into(), path.clone().into()));
        }
    }
    if long.untold > 0 {
        attributes.push(("hearth.lock.untold".into(), long.untold.into()));
    }
    Record {
        trace_id: 0,
        spans: Vec::new(),
        log: Log {
            event: EVENT_LOCK_WAIT.into(),
            unix_ns: clock.unix_ns(wait.end),
            warning: true,
            body,
            span: 0,
            attributes,
        },
    }
}

#[cfg(test)]
mod tests {
    use hearth_abi::{Lock, Operation, bucket_of};

    use super::*;

    #[test]
    fn histograms_hold_every_count_at_its_bound() {
        let mut wait = Times::NONE;
        for ns in [10, 1_023, 1_024, 2_047, 2_048, 80_000_000_000] {
            wait.count += 1;
            wait.sum.0 += ns;
            wait.buckets[bucket_of(ns)] += 1;
        }
        let snapshot = LockSnapshot {
            counts: vec![LockCounts {
                lock: Lock::CgroupMutex,
                operation: Operation::Attach,
                wait,
                hold: Times::NONE,
                hold_exact: false,
            }],
            ..LockSnapshot::default()
        };
        let [waits, holds] = &histograms(&snapshot)[..] else {
            panic!("two histograms")
        };
        assert!(
            holds.series.is_empty(),
            "nothing was held: no series of zeros"
        );
        let series = &waits.series[0];
        assert_eq!(series.counts.len(), waits.bounds.len() + 1);
        assert_eq!(series.counts.iter().sum::<u64>(), wait.count);
        assert_eq!(series.counts[..3], [2, 2, 1]);
        assert_eq!(series.counts.last(), Some(&1));
        let lowest = [0.000_001_024, 0.000_002_048];
        for (bound, wanted) in waits.bounds.iter().zip(lowest) {
            assert!((bound - wanted).abs() < 1e-15, "{bound}");
        }
        assert!(waits.bounds.is_sorted());
    }
}
