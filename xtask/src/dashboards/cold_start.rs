//! The dashboard of cold starts.

mod agent;
mod starts;

use serde_json::Value;

use super::frame::{Frame, NODE, label, nodes, prometheus, source};
use super::panel::{Band, layout};

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "hearth-cold-start",
        title: "Cold starts",
        description: "Every phase of every cold start, from the kernel.",
        tag: "cold-start",
        alerts: "ColdStart.+|Hearth.+",
        annotations: Vec::new(),
        variables: vec![
            prometheus(),
            source("traces", "Traces", "tempo"),
            nodes(),
            label(
                "function",
                "Function",
                r#"label_values(hearth_cold_start_duration_seconds_count{instance=~"$instance"}, faas_name)"#,
            ),
        ],
        panels: layout(vec![
            Band {
                heading: None,
                height: 4,
                panels: starts::overview(),
            },
            Band {
                heading: None,
                height: 9,
                panels: starts::rates(),
            },
            Band {
                heading: Some("Phases: where the time goes"),
                height: 9,
                panels: starts::phases(),
            },
            Band {
                heading: None,
                height: 9,
                panels: starts::phases_by_function(),
            },
            Band {
                heading: Some("Causes: why it goes there"),
                height: 9,
                panels: starts::causes(),
            },
            Band {
                heading: Some("Slowest starts"),
                height: 10,
                panels: starts::slowest(),
            },
            Band {
                heading: Some("The agent itself"),
                height: 8,
                panels: agent::ledger(),
            },
            Band {
                heading: None,
                height: 8,
                panels: agent::cost(),
            },
        ]),
    };
    frame.dashboard()
}
