//! The instruments of the flight recorder: who is near a memory limit.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::names::OTHER;
use crate::observe::oom::recorder::{Near, Recorded};
use crate::time::Nanos;

/// Cgroups that are told by name, the nearest to their limits; the rest are told together.
const NAMED: usize = 16;
/// The name of the node.
const NODE: &str = "~node";

/// What is told under one name.
#[derive(Debug, PartialEq)]
struct Told {
    cgroup: String,
    share: f64,
    /// Seconds.
    time_to_limit: Option<f64>,
}

/// Makes the instruments that tell `recorded`.
pub(super) fn instrument(meter: &Meter, recorded: &Recorded) {
    instrument_near(meter, recorded);
    instrument_counts(meter, recorded);
}

fn instrument_near(meter: &Meter, recorded: &Recorded) {
    let from = recorded.clone();
    meter
        .f64_observable_gauge("hearth.oom.near.share")
        .with_description(
            "Share of its memory limit that a cgroup holds, without what can be dropped. Only of \
             those that are near, by name of the nearest.",
        )
        .with_callback(move |to| {
            for told in told(from.near()) {
                to.observe(told.share, &[KeyValue::new("cgroup", told.cgroup)]);
            }
        })
        .build();
    let from = recorded.clone();
    meter
        .f64_observable_gauge("hearth.oom.near.time_to_limit")
        .with_unit("s")
        .with_description(
            "When a cgroup near its memory limit will reach it, at the rate of the last 5 \
             seconds. Only of those that grow.",
        )
        .with_callback(move |to| {
            for told in told(from.near()) {
                if let Some(seconds) = told.time_to_limit {
                    to.observe(seconds, &[KeyValue::new("cgroup", told.cgroup)]);
                }
            }
        })
        .build();
}

fn instrument_counts(meter: &Meter, recorded: &Recorded) {
    let from = recorded.clone();
    meter
        .u64_observable_gauge("hearth.oom.recorder.cgroups")
        .with_unit("{cgroup}")
        .with_description(
            "Cgroups with a memory limit: watched, of these near their limits, and beyond the \
             number that is watched.",
        )
        .with_callback(move |to| {
            let counts = from.counts();
            let states = [
                ("watched", counts.watched),
                ("near", counts.armed),
                ("beyond", counts.beyond),
            ];
            for (state, number) in states {
                to.observe(number, &[KeyValue::new("state", state)]);
            }
        })
        .build();
    let from = recorded.clone();
    meter
        .u64_observable_counter("hearth.oom.recorder.dropped")
        .with_unit("{item}")
        .with_description("What the flight recorder had no room or no time for.")
        .with_callback(move |to| {
            let counts = from.counts();
            let dropped = [
                ("near", counts.refused),
                ("checks", counts.unsure),
                ("changes", counts.changes_lost),
                ("mappings", counts.lists_dropped),
                ("records", counts.records_dropped),
            ];
            for (what, number) in dropped {
                to.observe(number, &[KeyValue::new("what", what)]);
            }
        })
        .build();
}

/// The nearest under their names, the rest under one: the nearest and soonest of them.
fn told(near: Vec<Near>) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for (index, near) in near.into_iter().enumerate() {
        let time_to_limit = near.time_to_limit.map(Nanos::as_secs_f64);
        if index > NAMED
            && let Some(other) = told.last_mut()
        {
            other.share = other.share.max(near.share);
            let soonest = [other.time_to_limit, time_to_limit].into_iter().flatten();
            other.time_to_limit = soonest.reduce(f64::min);
            continue;
        }
        let cgroup = match near.path {
            _ if index == NAMED => OTHER.to_owned(),
            Some(path) => path,
            None => NODE.to_owned(),
        };
        told.push(Told {
            cgroup,
            share: near.share,
            time_to_limit,
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::oom::before::UsageSample;
    use crate::time::Boottime;

    fn near(path: Option<String>, share: f64, seconds: Option<u64>) -> Near {
        Near {
            id: None,
            path,
            usage: UsageSample {
                at: Boottime(0),
                bytes: 0,
                needed_bytes: None,
            },
            limit_bytes: 1,
            share,
            growth_bytes_per_second: None,
            time_to_limit: seconds.map(|seconds| Nanos(seconds * 1_000_000_000)),
            processes: Vec::new(),
        }
    }

    #[test]
    fn names_are_bounded_and_the_rest_told_by_the_worst_of_them() {
        let mut all = vec![near(None, 0.99, None)];
        let more = (1..NAMED).map(|n| near(Some(format!("/{n}")), 0.95, Some(60)));
        all.extend(more);
        assert_eq!(told(all.clone()).len(), NAMED);
        assert_eq!(told(all.clone())[0].cgroup, NODE);
        for (share, seconds) in [(0.9, None), (0.85, Some(7)), (0.84, Some(9))] {
            all.push(near(Some("/more".to_owned()), share, seconds));
        }
        let told = told(all);
        assert_eq!(told.len(), NAMED + 1);
        let other = &told[NAMED];
        assert_eq!((&*other.cgroup, other.time_to_limit), (OTHER, Some(7.0)));
        assert!((other.share - 0.9).abs() < f64::EPSILON);
    }
}
