//! A healing as a span with links to what it has to do with, and its log record.

use opentelemetry_semantic_conventions::attribute as semantic;

use super::clock::WallClock;
use super::record::{Attribute, EVENT_HEAL, Log, Record, Span, SpanLink, Value};
use super::trace::{TraceContext, new_span_id};
use crate::observe::healing::{HealAction, Healing};

/// Something that a healing has to do with, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealLink {
    /// What: `cold_start` of the sandbox that took the place, `lost_start` of the one that was lost,
    /// `oom` for the capture of the kill.
    pub what: &'static str,
    /// Its span: of a capture that of the start which it was told with; none where that is not known.
    pub context: Option<TraceContext>,
    /// The name of the capture.
    pub capture: Option<String>,
}

/// The span and the log record.
#[must_use]
pub(super) fn record(healing: &Healing, with: &[HealLink], clock: &WallClock) -> Record {
    let context = TraceContext::random();
    let bad = healing.actions.iter().find(|action| action.is_bad);
    let links = with.iter().filter_map(|with| {
        let mut attributes: Vec<Attribute> = vec![("hearth.link".into(), with.what.into())];
        let capture = with.capture.as_deref();
        attributes.extend(capture.map(|id| ("hearth.oom.capture".into(), Value::from(id))));
        let TraceContext { trace_id, span_id } = with.context?;
        Some(SpanLink {
            trace_id,
            span_id,
            attributes,
        })
    });
    let attributes = attributes(healing, with);
    let end = clock.unix_ns(healing.ended).max(clock.unix_ns(healing.at));
    let span = Span {
        id: new_span_id(),
        parent: 0,
        name: "heal".to_owned(),
        begin_unix_ns: clock.unix_ns(healing.at),
        end_unix_ns: end,
        attributes: attributes.clone(),
        error: bad.map(|action| format!("{}: {}", action.action, action.why)),
        links: links.collect(),
    };
    let is_done = |action: &HealAction| action.outcome == "done";
    let log = Log {
        event: EVENT_HEAL.into(),
        unix_ns: end,
        warning: !healing.actions.iter().all(is_done),
        body: sentence(healing),
        span: span.id,
        attributes,
    };
    Record {
        trace_id: context.trace_id,
        spans: vec![span],
        log,
    }
}

fn sentence(healing: &Healing) -> String {
    let actions = healing.actions.iter();
    let actions: Vec<String> = actions.map(words).collect();
    let (function, reason) = (&healing.function, &healing.reason);
    format!("{function}: {reason}; {}", actions.join(", "))
}

fn words(action: &HealAction) -> String {
    format!("{}: {}", action.action, action.outcome)
}

fn attributes(healing: &Healing, with: &[HealLink]) -> Vec<Attribute> {
    let mut to: Vec<Attribute> = Vec::new();
    let mut add = |name: &'static str, value: Option<Value>| {
        to.extend(value.map(|value| (name.into(), value)));
    };
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    add(semantic::FAAS_NAME, Some(healing.function.as_str().into()));
    add(
        semantic::FAAS_VERSION,
        Some(healing.version.to_string().into()),
    );
    add("hearth.heal.fault", Some(healing.fault.into()));
    add("hearth.heal.mode", Some(healing.mode.into()));
    add("hearth.heal.reason", Some(healing.reason.as_str().into()));
    let actions = healing.actions.iter().map(words);
    add(
        "hearth.heal.outcomes",
        Some(actions.collect::<Vec<_>>().into()),
    );
    add(
        "hearth.heal.refused",
        Some(healing.refused.clone().into()).filter(|_| !healing.refused.is_empty()),
    );
    add("hearth.heal.audit.line", healing.line.map(Value::from));
    add("hearth.heal.audit.chain", text(&healing.chain));
    add("hearth.heal.request", text(&healing.request));
    let lost = healing.lost.as_ref();
    add(
        "hearth.heal.lost.sandbox",
        lost.map(|lost| lost.sandbox.as_str().into()),
    );
    add(
        "hearth.heal.lost.cgroup",
        lost.and_then(|lost| text(&lost.cgroup)),
    );
    let instead = healing
        .actions
        .iter()
        .find(|action| action.sandbox.is_some());
    add(
        "hearth.heal.sandbox",
        instead.and_then(|action| text(&action.sandbox)),
    );
    let memory = instead.and_then(|action| action.memory_bytes);
    add("hearth.heal.memory", memory.map(Value::from));
    let capture = with.iter().find_map(|with| with.capture.as_deref());
    add("hearth.oom.capture", capture.map(Value::from));
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Boottime;

    #[test]
    fn a_healing_is_a_span_linked_to_the_start_and_the_capture_and_a_log_record_in_it() {
        let action = |action: &str, outcome, is_bad| HealAction {
            action: action.to_owned(),
            outcome,
            is_bad,
            sandbox: Some("8476a536e9f441e8".to_owned()),
            memory_bytes: Some(7),
            why: "too late".to_owned(),
            ..HealAction::default()
        };
        let mut healing = Healing {
            function: "shop".to_owned(),
            reason: "it was killed".to_owned(),
            line: Some(4),
            at: Boottime(1000),
            ended: Boottime(3000),
            actions: vec![action("raise", "done", false)],
            ..Healing::default()
        };
        let context = |trace_id| {
            Some(TraceContext {
                trace_id,
                span_id: 3,
            })
        };
        let with = [
            HealLink {
                what: "cold_start",
                context: context(1),
                capture: None,
            },
            HealLink {
                what: "oom",
                context: None,
                capture: Some("20261121".to_owned()),
            },
            HealLink {
                what: "oom",
                context: context(2),
                capture: Some("20261121".to_owned()),
            },
        ];
        let told = record(&healing, &with, &WallClock::new());
        let [span] = &told.spans[..] else {
            panic!("one span");
        };
        assert_eq!((&*span.name, span.parent), ("heal", 0));
        assert_eq!(span.end_unix_ns - span.begin_unix_ns, 2000);
        let traces: Vec<u128> = span.links.iter().map(|link| link.trace_id).collect();
        assert_eq!(traces, [1, 2], "what was not told is no link");
        assert_eq!((told.log.span, told.log.warning), (span.id, false));
        assert_eq!(told.log.body, "shop: it was killed; raise: done");
        assert!(span.error.is_none());
        let capture = ("hearth.oom.capture".into(), "20261121".into());
        assert!(told.log.attributes.contains(&capture));

        healing.actions.push(action("replay", "failed", true));
        let told = record(&healing, &[], &WallClock::new());
        assert_eq!(told.spans[0].error.as_deref(), Some("replay: too late"));
        assert!(told.log.warning);
    }
}
