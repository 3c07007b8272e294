//! The dashboard of cold starts.

mod agent;
mod starts;

use serde_json::{Value, json};

use super::panel::{Band, layout, metrics};

/// The agents on the nodes that the reader picked.
const NODE: &str = r#"instance=~"$instance""#;

pub(super) fn dashboard() -> Value {
    json!({
        "uid": "hearth-cold-start",
        "title": "Cold starts",
        "description": "Every phase of every cold start, from the kernel.",
        "tags": ["hearth", "cold-start"],
        "schemaVersion": 41,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "annotations": { "list": [alerts()] },
        "templating": { "list": [
            source("datasource", "Metrics", "prometheus"),
            source("traces", "Traces", "tempo"),
            label("instance", "Node", "label_values(hearth_agent_memory_pss_bytes, instance)"),
            label(
                "function",
                "Function",
                r#"label_values(hearth_cold_start_duration_seconds_count{instance=~"$instance"}, faas_name)"#,
            ),
        ]},
        "links": [{
            "title": "What the alerts mean",
            "type": "link",
            "url": "https://github.com/hearth-rs/hearth/tree/main/docs/runbooks",
            "icon": "doc",
            "tooltip": "",
            "tags": [],
            "asDropdown": false,
            "includeVars": false,
            "keepTime": false,
            "targetBlank": true,
        }],
        "panels": layout(vec![
            Band { heading: None, height: 4, panels: starts::overview() },
            Band { heading: None, height: 9, panels: starts::rates() },
            Band { heading: Some("Phases: where the time goes"), height: 9, panels: starts::phases() },
            Band { heading: None, height: 9, panels: starts::phases_by_function() },
            Band { heading: Some("Causes: why it goes there"), height: 9, panels: starts::causes() },
            Band { heading: Some("Slowest starts"), height: 10, panels: starts::slowest() },
            Band { heading: Some("The agent itself"), height: 8, panels: agent::ledger() },
            Band { heading: None, height: 8, panels: agent::cost() },
        ]),
    })
}

fn alerts() -> Value {
    json!({
        "name": "Alerts",
        "datasource": metrics(),
        "enable": true,
        "iconColor": "red",
        "target": {
            "refId": "Alerts",
            "expr": r#"ALERTS{alertstate="firing",alertname=~"ColdStart.+|Hearth.+"}"#,
        },
        "titleFormat": "{{alertname}}",
        "textFormat": "{{faas_name}} {{instance}} {{probe}}",
        "tagKeys": "severity",
    })
}

fn source(name: &str, label: &str, kind: &str) -> Value {
    json!({ "name": name, "label": label, "type": "datasource", "query": kind, "refresh": 1 })
}

fn label(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": metrics(),
        "query": { "qryType": 1, "query": query, "refId": name },
        "refresh": 2,
        "sort": 1,
        "multi": true,
        "includeAll": true,
        "allValue": ".*",
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}
