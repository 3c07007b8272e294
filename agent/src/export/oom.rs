//! A capture as a log record in the trace of its sandbox's cold start, and the instruments of the
//! `oom` signal.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use opentelemetry_semantic_conventions::attribute as semantic;

use super::clock::WallClock;
use super::names::UNKNOWN;
use super::record::{Attribute, EVENT_OOM, Log, Record, Value};
use crate::observe::oom::keeper::{KeeperStats, Kept};
use crate::observe::oom::model::{Capture, Completeness, Constraint, Known, Reason};
use crate::observe::oom::{missing, sentence};

/// The signal's own state at one moment; totals but for `files`, `bytes` and `open`.
#[derive(Clone, Debug, Default)]
pub struct OomState {
    /// What became of captures.
    pub kept: KeeperStats,
    /// Captures that are open.
    pub open: u64,
    /// Records and captures that did not go the usual way, by a word for it.
    pub odd: Vec<(&'static str, u64)>,
}

/// The state, shared between the one who knows it and the instruments that tell it.
#[derive(Clone, Debug, Default)]
pub struct SharedOom(Arc<Mutex<OomState>>);

impl SharedOom {
    /// Replaces the state.
    pub fn set(&self, state: OomState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn read<T>(&self, read: impl FnOnce(&OomState) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts kills and captures.
#[derive(Debug)]
pub(super) struct OomMeters {
    kills: Counter<u64>,
    captures: Counter<u64>,
    missing: Counter<u64>,
    state: SharedOom,
}

impl OomMeters {
    /// Makes the instruments. What can be counted begins at 0: a counter that first shows with
    /// its first kill hides it.
    #[must_use]
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, unit: &'static str, description: &'static str| {
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(description)
                .build()
        };
        let meters = Self {
            kills: counter(
                "hearth.oom.kills",
                "{kill}",
                "Processes that the kernel killed for want of memory, by what ran out.",
            ),
            captures: counter(
                "hearth.oom.captures",
                "{capture}",
                "Captures of such kills, by how much of the victim's threads was seen.",
            ),
            missing: counter(
                "hearth.oom.captures.missing",
                "{capture}",
                "Captures that lack a field which could have been had, by field and reason.",
            ),
            state: SharedOom::default(),
        };
        for completeness in Completeness::ALL {
            meters.captures.add(0, &[completeness_of(completeness)]);
        }
        meters.missing.add(
            0,
            &[
                KeyValue::new("field", "threads.user_stack"),
                KeyValue::new("reason", Reason::NotTold.name()),
            ],
        );
        instrument(meter, &meters.state);
        meters
    }

    /// Where the signal's state is put.
    pub(super) fn state(&self) -> SharedOom {
        self.state.clone()
    }

    /// Counts one capture, whose victim goes by the bounded `name`.
    pub(super) fn count(&self, capture: &Capture, name: &str) {
        self.kills.add(
            1,
            &[
                KeyValue::new("constraint", capture.kill.constraint.name()),
                KeyValue::new(semantic::FAAS_NAME, name.to_owned()),
            ],
        );
        self.captures
            .add(1, &[completeness_of(capture.completeness)]);
        for (field, reason) in missing::lost(capture) {
            let reason = KeyValue::new("reason", reason.name());
            self.missing
                .add(1, &[KeyValue::new("field", field), reason]);
        }
    }
}

fn completeness_of(completeness: Completeness) -> KeyValue {
    KeyValue::new("completeness", completeness.name())
}

fn instrument(meter: &Meter, state: &SharedOom) {
    let counter = |name: &'static str, unit: &'static str, description: &'static str| {
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(description)
    };
    let gauge = |name: &'static str, unit: &'static str, description: &'static str| {
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
    };
    let of = state.clone();
    counter(
        "hearth.oom.captures.evicted",
        "{capture}",
        "Captures removed from the store because there were too many, oldest first.",
    )
    .with_callback(move |to| to.observe(of.read(|state| state.kept.evicted), &[]))
    .build();
    let of = state.clone();
    counter(
        "hearth.oom.captures.unfinished",
        "{capture}",
        "Half-written captures of an agent that died, removed at the next start.",
    )
    .with_callback(move |to| to.observe(of.read(|state| state.kept.unfinished), &[]))
    .build();
    let of = state.clone();
    counter(
        "hearth.oom.captures.lost",
        "{capture}",
        "Captures that were told but could not be kept as a file, by reason.",
    )
    .with_callback(move |to| {
        of.read(|state| {
            for reason in KeeperStats::REASONS {
                let count = state.kept.lost.get(reason).copied().unwrap_or(0);
                to.observe(count, &[KeyValue::new("reason", reason)]);
            }
        });
    })
    .build();
    let of = state.clone();
    counter(
        "hearth.oom.records.odd",
        "{record}",
        "Records and captures of OOM kills that did not go the usual way.",
    )
    .with_callback(move |to| {
        of.read(|state| {
            for (what, count) in &state.odd {
                to.observe(*count, &[KeyValue::new("what", *what)]);
            }
        });
    })
    .build();
    let of = state.clone();
    gauge(
        "hearth.oom.captures.open",
        "{capture}",
        "Captures that wait for threads of their victim.",
    )
    .with_callback(move |to| to.observe(of.read(|state| state.open), &[]))
    .build();
    let of = state.clone();
    gauge(
        "hearth.oom.store.captures",
        "{capture}",
        "Captures in the store.",
    )
    .with_callback(move |to| to.observe(of.read(|state| state.kept.files), &[]))
    .build();
    let of = state.clone();
    gauge(
        "hearth.oom.store.size",
        "By",
        "Bytes of the captures in the store.",
    )
    .with_callback(move |to| to.observe(of.read(|state| state.kept.bytes), &[]))
    .build();
}

/// The name that a victim goes by: its unit, else its program.
#[must_use]
pub(super) fn victim_name(capture: &Capture) -> String {
    let victim = &capture.victim;
    let program = || {
        let exe = victim.exe.value()?;
        Path::new(exe).file_name()?.to_str().map(str::to_owned)
    };
    let comm = || Some(victim.comm.clone()).filter(|comm| !comm.is_empty());
    let name = victim.unit.clone().or_else(program).or_else(comm);
    name.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The log record of a capture.
#[must_use]
pub(super) fn record(kept: &Kept, clock: &WallClock) -> Record {
    let capture = &kept.capture;
    let id = |digits: &str| u128::from_str_radix(digits, 16).unwrap_or(0);
    let (trace_id, span) = capture.trace.value().map_or((0, 0), |trace| {
        // A span id has 64 bits by its length.
        let span = u64::try_from(id(&trace.span_id)).unwrap_or(0);
        (id(&trace.trace_id), span)
    });
    Record {
        trace_id,
        spans: Vec::new(),
        log: Log {
            event: EVENT_OOM.into(),
            unix_ns: clock.unix_ns(capture.killed),
            warning: true,
            body: sentence::of(capture),
            span,
            attributes: attributes(kept),
        },
    }
}

fn attributes(kept: &Kept) -> Vec<Attribute> {
    let capture = &kept.capture;
    let victim = &capture.victim;
    let mut to: Vec<Attribute> = Vec::new();
    let mut add = |name: &'static str, value: Option<Value>| {
        to.extend(value.map(|value| (name.into(), value)));
    };
    let text = |known: &Known<String>| known.value().map(|text| Value::from(text.clone()));
    let bytes = |known: &Known<u64>| known.value().map(|bytes| Value::from(*bytes));
    add("hearth.oom.capture", Some(capture.id.as_str().into()));
    add(
        "hearth.oom.completeness",
        Some(capture.completeness.name().into()),
    );
    add(
        "hearth.oom.constraint",
        Some(capture.kill.constraint.name().into()),
    );
    add("hearth.oom.limit", bytes(&capture.kill.limit_bytes));
    add("hearth.oom.usage", bytes(&capture.kill.usage_bytes));
    add("hearth.oom.asked", bytes(&capture.kill.asked_bytes));
    add(
        "hearth.oom.points",
        capture
            .kill
            .points
            .value()
            .map(|points| Value::I64(*points)),
    );
    add("hearth.oom.cgroup", text(&capture.cgroup.path));
    add("hearth.oom.lost", kept.lost.map(Value::from));
    add("hearth.oom.threads", Some(u64::from(victim.threads).into()));
    add(
        "hearth.oom.threads.missing",
        (capture.threads_missing > 0).then(|| u64::from(capture.threads_missing).into()),
    );
    add(
        "hearth.oom.asker.pid",
        Some(u64::from(capture.asker.pid).into()),
    );
    add(
        "hearth.oom.asker.name",
        Some(capture.asker.comm.clone().into()),
    );
    add(semantic::PROCESS_PID, Some(u64::from(victim.pid).into()));
    add(
        "hearth.process.start_boottime",
        Some(victim.start_boottime.0.into()),
    );
    add(
        "hearth.boot_id",
        Some(capture.boot_id.as_str())
            .filter(|id| !id.is_empty())
            .map(Value::from),
    );
    add(semantic::PROCESS_EXECUTABLE_PATH, text(&victim.exe));
    add(
        semantic::PROCESS_EXECUTABLE_NAME,
        Some(victim.comm.clone().into()),
    );
    add(semantic::PROCESS_LINUX_CGROUP, text(&victim.cgroup.path));
    add(
        semantic::PROCESS_COMMAND_ARGS,
        victim
            .command
            .value()
            .map(|arguments| arguments.clone().into()),
    );
    add("hearth.oom.memory.anon", bytes(&victim.memory.anon_bytes));
    add("hearth.oom.memory.file", bytes(&victim.memory.file_bytes));
    add("hearth.oom.memory.shmem", bytes(&victim.memory.shmem_bytes));
    add("hearth.oom.memory.swap", bytes(&victim.memory.swap_bytes));
    add(
        "hearth.oom.memory.page_tables",
        bytes(&victim.memory.page_table_bytes),
    );
    let owned = |known: &Option<String>| known.clone().map(Value::from);
    add("hearth.unit", owned(&victim.unit));
    add(semantic::CONTAINER_ID, owned(&victim.container_id));
    add(semantic::K8S_POD_UID, owned(&victim.pod_uid));
    to
}

/// Words of a constraint, for the bound of attribute sets.
pub(super) const CONSTRAINTS: usize = Constraint::ALL.len();

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::observe::oom::samples;

    fn kept(capture: Capture, lost: Option<&'static str>) -> Kept {
        Kept { capture, lost }
    }

    #[test]
    fn a_kill_is_a_warning_in_the_trace_of_its_start() {
        let record = record(&kept(samples::whole(), None), &WallClock::new());
        assert_eq!((record.trace_id, record.log.span), (7, 9));
        assert!(record.spans.is_empty() && record.log.warning);
        assert_eq!(record.log.event, "hearth.oom");
        let of = |name: &str| {
            let found = record
                .log
                .attributes
                .iter()
                .find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        assert_eq!(of("hearth.oom.limit"), Some(Value::I64(64 << 20)));
        assert_eq!(of("process.executable.path"), Some("/usr/bin/shop".into()));
        assert_eq!(of("hearth.oom.lost"), None);
        assert!(record.log.body.contains("shop"), "{}", record.log.body);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let record = record(&kept(samples::bare(), Some("disk_full")), &WallClock::new());
        assert_eq!((record.trace_id, record.log.span), (0, 0));
        let names: Vec<_> = record
            .log
            .attributes
            .iter()
            .map(|(name, _)| &**name)
            .collect();
        assert!(names.contains(&"hearth.oom.lost") && names.contains(&"process.pid"));
        assert!(!names.contains(&"hearth.oom.limit") && !names.contains(&"process.linux.cgroup"));
    }

    #[test]
    fn a_victim_goes_by_its_unit_then_its_program_then_its_name() {
        let mut capture = samples::whole();
        assert_eq!(victim_name(&capture), "shop");
        capture.victim.unit = Some("shop.service".into());
        assert_eq!(victim_name(&capture), "shop.service");
        let mut capture = samples::bare();
        capture.victim.comm = "worker".into();
        assert_eq!(victim_name(&capture), "worker");
        capture.victim.comm.clear();
        assert_eq!(victim_name(&capture), UNKNOWN);
        let names = BTreeMap::from(Constraint::ALL.map(|one| (one.name(), one)));
        assert_eq!(names.len(), CONSTRAINTS);
    }
}
