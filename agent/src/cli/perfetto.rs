//! Starts as a trace that ui.perfetto.dev (and `chrome://tracing`) opens: the JSON trace
//! event format.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::{name, outcome};
use super::bar::split;
use super::terminal::printable;
use crate::observe::cold_start::{ColdStart, PartSpan, Phase};
use crate::time::{Boottime, Nanos};

/// Track of the phases.
const PHASES: usize = 1;
/// Track of the causes.
const CAUSES: usize = 2;
/// First track of the parts.
const PARTS: usize = 3;

/// The trace: a process a start, all beginning at zero so that repeats can be compared; tracks
/// for phases, causes, and the parts by thread. A start's own begin is among its arguments.
#[must_use]
pub fn trace(starts: &[ColdStart], title: &str) -> Value {
    let events: Vec<Value> = starts
        .iter()
        .enumerate()
        .flat_map(|(index, start)| {
            Track {
                start,
                pid: index + 1,
            }
            .events()
        })
        .collect();
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": { "title": printable(title), "clock": "CLOCK_BOOTTIME, from each start's opener" },
    })
}

/// One start's part of the trace. Processes are numbered by start, because process ids are
/// used again over many repeats.
struct Track<'a> {
    start: &'a ColdStart,
    pid: usize,
}

impl Track<'_> {
    fn events(&self) -> Vec<Value> {
        let identity = &self.start.identity;
        let title = format!(
            "start {}: {} (pid {}), {}",
            self.pid,
            printable(&name(identity)),
            identity.pid,
            outcome(self.start)
        );
        let mut events = vec![
            self.meta(0, "process_name", &json!({ "name": title })),
            self.meta(0, "process_sort_index", &json!({ "sort_index": self.pid })),
        ];
        events.extend(self.named(PHASES, "phases"));
        events.extend(self.named(CAUSES, "causes: shares of each phase, not moments in it"));
        for phase in &self.start.phases {
            events.push(self.slice(
                PHASES,
                ("phase", &phase.label()),
                (phase.begin, phase.duration()),
                &arguments(phase),
            ));
            let mut at = phase.begin;
            for (cause, time) in split(phase) {
                let slice = ("cause", cause.word());
                events.push(self.slice(
                    CAUSES,
                    slice,
                    (at, time),
                    &json!({ "phase": phase.label() }),
                ));
                at = Boottime(at.0.saturating_add(time.0));
            }
        }
        events.push(json!({
            "name": outcome(self.start), "cat": "ready", "ph": "i", "s": "p",
            "pid": self.pid, "tid": PHASES, "ts": micros(self.start.total_ns),
            "args": {
                "begin_boottime_ns": self.start.begin.0,
                "total_ns": self.start.total_ns.0,
                "lost": self.start.lost,
            },
        }));
        let parts = self
            .start
            .phases
            .iter()
            .flat_map(|phase| phase.parts.iter());
        for (index, (thread, lane)) in lanes(parts).into_iter().enumerate() {
            let tid = PARTS + index;
            events.extend(self.named(tid, &format!("parts of thread {thread}")));
            for part in lane {
                let begin = part.begin.max(self.start.begin);
                let span = (begin, part.end.since(begin));
                let mut args = json!({ "thread": part.pid });
                if let Some(waited) = &part.waited {
                    args["waited"] = json!(waited);
                }
                events.push(self.slice(tid, ("part", part.label()), span, &args));
            }
        }
        events
    }

    fn slice(
        &self,
        tid: usize,
        (category, name): (&str, &str),
        (begin, length): (Boottime, Nanos),
        args: &Value,
    ) -> Value {
        json!({
            "name": name, "cat": category, "ph": "X", "pid": self.pid, "tid": tid,
            "ts": micros(begin.since(self.start.begin)), "dur": micros(length), "args": args,
        })
    }

    fn named(&self, tid: usize, name: &str) -> [Value; 2] {
        [
            self.meta(tid, "thread_name", &json!({ "name": name })),
            self.meta(tid, "thread_sort_index", &json!({ "sort_index": tid })),
        ]
    }

    fn meta(&self, tid: usize, name: &str, args: &Value) -> Value {
        json!({ "name": name, "ph": "M", "pid": self.pid, "tid": tid, "args": args })
    }
}

/// The format counts in microseconds; its fractions keep the nanoseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 104 days, a start lasts minutes"
)]
fn micros(length: Nanos) -> f64 {
    length.0 as f64 / 1_000.0
}

fn arguments(phase: &Phase) -> Value {
    let nanos = |time: Option<Nanos>| count(time.map(|time| time.0));
    json!({
        "running_ns": nanos(phase.running_ns),
        "queued_ns": nanos(phase.queued_ns),
        "io_ns": nanos(phase.io_ns),
        "blocked_ns": nanos(phase.blocked_ns),
        "minor_faults": count(phase.minor_faults),
        "major_faults": count(phase.major_faults),
        "read_bytes": count(phase.read_bytes),
    })
}

fn count(figure: Option<u64>) -> Value {
    figure.map_or_else(|| json!("not measured"), |figure| json!(figure))
}

/// Parts by thread, in tracks on which any two are nested or apart, as the format wants.
fn lanes<'a>(parts: impl Iterator<Item = &'a PartSpan>) -> Vec<(u32, Vec<&'a PartSpan>)> {
    let mut threads: BTreeMap<u32, Vec<&PartSpan>> = BTreeMap::new();
    for part in parts {
        threads.entry(part.pid).or_default().push(part);
    }
    let mut all = Vec::new();
    for (thread, mut parts) in threads {
        parts.sort_by_key(|part| (part.begin, Reverse(part.end)));
        // Each lane with the ends of what is open on it, the innermost last.
        let mut lanes: Vec<(Vec<&PartSpan>, Vec<Boottime>)> = Vec::new();
        for part in parts {
            for (_, open) in &mut lanes {
                while open.last().is_some_and(|end| *end <= part.begin) {
                    open.pop();
                }
            }
            let fits = |open: &[Boottime]| open.last().is_none_or(|end| part.end <= *end);
            if let Some((lane, open)) = lanes.iter_mut().find(|(_, open)| fits(open)) {
                lane.push(part);
                open.push(part.end);
            } else {
                lanes.push((vec![part], vec![part.end]));
            }
        }
        all.extend(lanes.into_iter().map(|(lane, _)| (thread, lane)));
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    /// Slices of one track as (ts, end), in order.
    fn slices(trace: &Value, pid: u64, tid: u64) -> Vec<(f64, f64)> {
        let events = trace["traceEvents"].as_array().expect("events");
        events
            .iter()
            .filter(|event| event["ph"] == "X" && event["pid"] == pid && event["tid"] == tid)
            .map(|event| {
                let begin = event["ts"].as_f64().expect("ts");
                (begin, begin + event["dur"].as_f64().expect("dur"))
            })
            .collect()
    }

    #[test]
    fn phases_are_contiguous_and_nanoseconds_survive() {
        let mut start = samples::python();
        start.phases[0].end.0 += 123;
        start.phases[1].begin.0 += 123;
        let trace = trace(&[start.clone(), start], "python3 app.py");
        let phases = slices(&trace, 2, 1);
        assert_eq!(phases.len(), 5);
        assert!((phases[1].0 - 214.123).abs() < 1e-9, "{phases:?}");
        assert!(
            phases
                .windows(2)
                .all(|pair| (pair[0].1 - pair[1].0).abs() < 1e-6)
        );
        assert!((phases[4].1 - 48_212.0).abs() < 1e-6);
    }

    #[test]
    fn every_track_has_a_name_and_every_event_what_the_format_asks() {
        let trace = trace(&[samples::container(), samples::failed()], "x");
        let events = trace["traceEvents"].as_array().expect("events");
        for event in events {
            let phase = event["ph"].as_str().expect("ph");
            assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64());
            match phase {
                "M" => assert!(event["args"].is_object()),
                "X" => assert!(event["ts"].is_f64() && event["dur"].is_f64()),
                "i" => assert!(event["ts"].is_f64() && event["s"] == "p"),
                other => panic!("{other}"),
            }
            let named = events.iter().any(|meta| {
                meta["name"] == "thread_name"
                    && meta["pid"] == event["pid"]
                    && meta["tid"] == event["tid"]
            });
            assert!(named || event["tid"] == 0, "{event}");
        }
        let unmeasured = events
            .iter()
            .find(|event| event["name"] == "link+runtime_init");
        assert_eq!(
            unmeasured.expect("the merged phase")["args"]["running_ns"],
            "not measured"
        );
    }

    #[test]
    fn overlapping_parts_of_a_thread_get_tracks_of_their_own() {
        let part = |begin, end| PartSpan {
            name: "mounts",
            pid: 7,
            begin: Boottime(begin),
            end: Boottime(end),
            waited: None,
        };
        let parts = [part(0, 10), part(2, 5), part(6, 12), part(10, 20)];
        let lanes: Vec<Vec<u64>> = lanes(parts.iter())
            .into_iter()
            .map(|(_, lane)| lane.into_iter().map(|part| part.begin.0).collect())
            .collect();
        assert_eq!(lanes, [vec![0, 2, 10], vec![6]]);
    }

    proptest! {
        #[test]
        fn slices_of_a_track_are_nested_or_apart(start in samples::any_start()) {
            let trace = trace(&[start], "");
            for tid in 1..20 {
                let mut open: Vec<f64> = Vec::new();
                let mut last = 0.0;
                for (begin, end) in slices(&trace, 1, tid) {
                    prop_assert!(begin >= last, "out of order on {tid}");
                    last = begin;
                    while open.last().is_some_and(|outer| *outer <= begin + 1e-4) {
                        open.pop();
                    }
                    prop_assert!(open.last().is_none_or(|outer| end <= *outer + 1e-4));
                    open.push(end);
                }
            }
        }
    }
}
