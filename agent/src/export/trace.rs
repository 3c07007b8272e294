//! A cold start as a trace: the start, a child a phase, a grandchild a part; and its log record.

use std::path::Path;

use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use opentelemetry_semantic_conventions::attribute as semantic;

use super::clock::WallClock;
use super::names::name_of;
use super::record::{Attribute, EVENT_COLD_START, Log, Record, Span, Value};
use crate::observe::cold_start::{ColdStart, PartSpan, Phase, Ready};
use crate::observe::identity::Identity;

/// Ids of a start's trace and of its root span: what a child's `TRACEPARENT` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace.
    pub trace_id: u128,
    /// Root span.
    pub span_id: u64,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn random() -> Self {
        let ids = RandomIdGenerator::default();
        Self {
            trace_id: u128::from_be_bytes(ids.new_trace_id().to_bytes()),
            span_id: new_span_id(),
        }
    }

    /// Value of `TRACEPARENT` by which a program's own spans join the trace.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

pub(super) fn new_span_id() -> u64 {
    u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes())
}

/// The trace and the log record of `start`.
#[must_use]
pub fn record(start: &ColdStart, clock: &WallClock, context: TraceContext) -> Record {
    let name = name_of(&start.identity);
    let error = (!start.ready.is_ready()).then(|| not_ready(start));
    let mut spans = vec![Span {
        id: context.span_id,
        parent: 0,
        name: format!("cold_start {name}"),
        begin_unix_ns: clock.unix_ns(start.begin),
        end_unix_ns: clock.unix_ns(start.begin).saturating_add(start.total_ns.0),
        attributes: start_attributes(start, &name),
        error,
        links: Vec::new(),
    }];
    for phase in &start.phases {
        let id = new_span_id();
        spans.push(Span {
            id,
            parent: context.span_id,
            name: phase.label(),
            begin_unix_ns: clock.unix_ns(phase.begin),
            end_unix_ns: clock.unix_ns(phase.end),
            attributes: phase_attributes(phase),
            error: None,
            links: Vec::new(),
        });
        spans.extend(phase.parts.iter().map(|part| Span {
            id: new_span_id(),
            parent: id,
            name: part.name.to_owned(),
            begin_unix_ns: clock.unix_ns(part.begin),
            end_unix_ns: clock.unix_ns(part.end),
            attributes: part_attributes(part),
            error: None,
            links: Vec::new(),
        }));
    }
    let log = Log {
        event: EVENT_COLD_START.into(),
        unix_ns: spans[0].end_unix_ns,
        warning: !start.ready.is_ready(),
        body: sentence(start, &name),
        span: context.span_id,
        attributes: start_attributes(start, &name)
            .into_iter()
            .chain([(
                "hearth.cold_start.duration".into(),
                start.total_ns.as_secs_f64().into(),
            )])
            .collect(),
    };
    Record {
        trace_id: context.trace_id,
        spans,
        log,
    }
}

fn not_ready(start: &ColdStart) -> String {
    match start.ready {
        Ready::Exited => "the program ended before it was ready".to_owned(),
        _ => format!("not ready within {:?}", start.total_ns.as_duration()),
    }
}

fn sentence(start: &ColdStart, name: &str) -> String {
    let total = start.total_ns.as_duration();
    if start.ready.is_ready() {
        format!(
            "{name} was ready after {total:?} ({})",
            start.ready.as_str()
        )
    } else {
        format!("{name} did not become ready: {}", not_ready(start))
    }
}

/// Collects attributes; what is not known is left out.
#[derive(Default)]
struct Attributes(Vec<Attribute>);

impl Attributes {
    fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    fn add_known(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

fn start_attributes(start: &ColdStart, name: &str) -> Vec<Attribute> {
    let mut to = Attributes::default();
    to.add(semantic::FAAS_COLDSTART, true);
    to.add(semantic::FAAS_NAME, name);
    to.add("hearth.ready", start.ready.as_str());
    to.add("hearth.opener", start.opener);
    if let Some(status) = start.exit_status {
        let exited = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        let killed = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        to.add_known(semantic::PROCESS_EXIT_CODE, exited);
        to.add_known("hearth.exit.signal", killed);
    }
    identity_attributes(&mut to, &start.identity);
    if start.lost > 0 {
        to.add("hearth.lost", start.lost);
    }
    if start.parts_dropped > 0 {
        to.add("hearth.parts_dropped", start.parts_dropped);
    }
    let strategies = start
        .strategies
        .iter()
        .map(|(mark, by)| format!("{mark}={by}"));
    to.add("hearth.strategies", strategies.collect::<Vec<_>>());
    to.0
}

fn identity_attributes(to: &mut Attributes, identity: &Identity) {
    let Identity {
        exe,
        argv0,
        container_id,
        pod,
        ..
    } = identity;
    to.add(semantic::PROCESS_PID, u64::from(identity.pid));
    to.add_known(semantic::PROCESS_COMMAND, argv0.as_deref());
    to.add_known(semantic::PROCESS_EXECUTABLE_PATH, exe.as_deref());
    let file = exe
        .as_deref()
        .and_then(|exe| Path::new(exe).file_name()?.to_str());
    to.add_known(semantic::PROCESS_EXECUTABLE_NAME, file);
    to.add_known(
        semantic::PROCESS_LINUX_CGROUP,
        identity.cgroup_path.as_deref(),
    );
    to.add_known(
        "hearth.boot_id",
        Some(identity.boot_id.as_str()).filter(|id| !id.is_empty()),
    );
    to.add("hearth.process.start_boottime", identity.start_boottime.0);
    to.add_known("hearth.unit", identity.unit.as_deref());
    to.add_known(semantic::CONTAINER_ID, container_id.as_deref());
    to.add_known(semantic::FAAS_INSTANCE, container_id.as_deref());
    to.add_known(semantic::CONTAINER_RUNTIME_NAME, identity.container_runtime);
    if let Some(pod) = pod {
        to.add_known(semantic::K8S_POD_NAME, pod.name.as_deref());
        to.add_known(semantic::K8S_NAMESPACE_NAME, pod.namespace.as_deref());
        to.add_known(semantic::K8S_POD_UID, pod.uid.as_deref());
        to.add_known(semantic::K8S_CONTAINER_NAME, pod.container.as_deref());
    }
}

fn part_attributes(part: &PartSpan) -> Vec<Attribute> {
    let mut to = Attributes::default();
    to.add("thread.id", u64::from(part.pid));
    if let Some(waited) = &part.waited {
        to.add("hearth.lock.name", waited.lock);
        to.add("hearth.lock.operation", waited.operation);
        if let Some(holder) = &waited.holder {
            to.add("hearth.lock.holder.pid", u64::from(holder.pid));
            to.add("hearth.lock.holder.command", &*holder.comm);
            to.add_known("hearth.lock.holder.operation", holder.operation);
        }
    }
    to.0
}

fn phase_attributes(phase: &Phase) -> Vec<Attribute> {
    let mut to = Attributes::default();
    to.add("hearth.phase", phase.label());
    if !phase.merged.is_empty() {
        let merged = phase.merged.iter().map(|name| name.as_str().to_owned());
        to.add("hearth.phase.merged", merged.collect::<Vec<_>>());
    }
    let seconds = |time: Option<crate::time::Nanos>| time.map(crate::time::Nanos::as_secs_f64);
    to.add_known("hearth.phase.running", seconds(phase.running_ns));
    to.add_known("hearth.phase.queued", seconds(phase.queued_ns));
    to.add_known("hearth.phase.io", seconds(phase.io_ns));
    to.add_known("hearth.phase.blocked", seconds(phase.blocked_ns));
    to.add_known("hearth.phase.minor_faults", phase.minor_faults);
    to.add_known("hearth.phase.major_faults", phase.major_faults);
    to.add_known("hearth.phase.read_bytes", phase.read_bytes);
    to.0
}
