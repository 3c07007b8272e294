//! The metrics of healing.

use std::collections::HashSet;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use opentelemetry_semantic_conventions::attribute::FAAS_NAME;

use crate::observe::healing::{ACTIONS, BAD, Healing, OUTCOMES};

/// Series of one function: with each action, and none, an outcome.
pub(super) const SERIES: usize = (ACTIONS.len() + 1) * OUTCOMES.len();

/// Counts what was done about faults.
#[derive(Debug)]
pub(super) struct HealMeters {
    actions: Counter<u64>,
    /// Names whose counts have begun.
    begun: HashSet<String>,
}

impl HealMeters {
    /// Makes the instrument.
    #[must_use]
    pub(super) fn new(meter: &Meter) -> Self {
        let actions = meter
            .u64_counter("hearth.heal.actions")
            .with_unit("{action}")
            .with_description(
                "What was done about sandboxes that failed, or would have been, by what came of \
                 it.",
            )
            .build();
        Self {
            actions,
            begun: HashSet::new(),
        }
    }

    /// There is a function of this bounded name: what somebody should look at is counted from 0, as
    /// a counter that first shows with its first failure hides it.
    pub(super) fn begin(&mut self, name: &str) {
        if self.begun.contains(name) {
            return;
        }
        self.begun.insert(name.to_owned());
        for action in ACTIONS {
            for outcome in BAD {
                self.actions.add(0, &attributes(name, action, outcome));
            }
        }
    }

    /// Counts what came of one fault.
    pub(super) fn count(&self, healing: &Healing, name: &str) {
        for action in &healing.actions {
            let attributes = attributes(name, &action.action, action.outcome);
            self.actions.add(1, &attributes);
        }
    }
}

fn attributes(name: &str, action: &str, outcome: &'static str) -> [KeyValue; 3] {
    [
        KeyValue::new(FAAS_NAME, name.to_owned()),
        KeyValue::new("action", action.to_owned()),
        KeyValue::new("outcome", outcome),
    ]
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;
    use crate::observe::healing::HealAction;

    #[test]
    fn what_failed_is_counted_from_0_and_each_action_by_what_came_of_it() {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .expect("a reader");
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let mut meters = HealMeters::new(&provider.meter("test"));
        meters.begin("shop");
        let action = |action: &str, outcome| HealAction {
            action: action.to_owned(),
            outcome,
            ..HealAction::default()
        };
        let healing = Healing {
            actions: vec![action("raise", "done"), action("replay", "failed")],
            ..Healing::default()
        };
        meters.count(&healing, "shop");
        meters.begin("shop");
        let encoder = prometheus::TextEncoder::new();
        let text = encoder.encode_to_string(&registry.gather()).expect("text");
        let told = |action: &str, outcome: &str| {
            let labels = format!(r#"action="{action}",faas_name="shop",outcome="{outcome}""#);
            let line = format!("hearth_heal_actions_total{{{labels}}} ");
            let told = text.lines().find_map(|told| told.strip_prefix(&*line));
            told.map(str::to_owned)
        };
        assert_eq!(told("raise", "done").as_deref(), Some("1"), "{text}");
        assert_eq!(told("replay", "failed").as_deref(), Some("1"));
        assert_eq!(told("replace", "failed").as_deref(), Some("0"));
        assert_eq!(told("replace", "done"), None);
    }
}
