//! What all dashboards share around their panels: times, links, variables, alerts as annotations.

use serde_json::{Value, json};

use super::panel::metrics;

/// The agents on the nodes that the reader picked.
pub(super) const NODE: &str = r#"instance=~"$instance""#;

/// One dashboard.
pub(super) struct Frame {
    /// Links point at it: it never changes.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// Beside `hearth`.
    pub(super) tag: &'static str,
    /// Names of alerts that are shown where they fired, as a regular expression.
    pub(super) alerts: &'static str,
    /// What else is shown where it happened.
    pub(super) annotations: Vec<Value>,
    pub(super) variables: Vec<Value>,
    pub(super) panels: Vec<Value>,
}

impl Frame {
    pub(super) fn dashboard(self) -> Value {
        let mut annotations = vec![alerts(self.alerts)];
        annotations.extend(self.annotations);
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["hearth", self.tag],
            "schemaVersion": 41,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "annotations": { "list": annotations },
            "templating": { "list": self.variables },
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
            "panels": self.panels,
        })
    }
}

fn alerts(names: &str) -> Value {
    annotation(
        ("Alerts", "red"),
        &format!(r#"ALERTS{{alertstate="firing",alertname=~"{names}"}}"#),
        ("{{alertname}}", "{{faas_name}} {{instance}} {{probe}}"),
        "severity",
    )
}

/// Marks in all panels where `expr` answers.
pub(super) fn annotation(
    (name, colour): (&str, &str),
    expr: &str,
    (title, text): (&str, &str),
    tags: &str,
) -> Value {
    json!({
        "name": name,
        "datasource": metrics(),
        "enable": true,
        "iconColor": colour,
        "target": { "refId": name, "expr": expr },
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": tags,
    })
}

/// The source of metrics that the reader picks; what the panels ask.
pub(super) fn prometheus() -> Value {
    source("datasource", "Metrics", "prometheus")
}

/// The nodes that the reader picks.
pub(super) fn nodes() -> Value {
    let query = "label_values(hearth_agent_memory_pss_bytes, instance)";
    label("instance", "Node", query)
}

/// A source that the reader picks.
pub(super) fn source(name: &str, label: &str, kind: &str) -> Value {
    json!({ "name": name, "label": label, "type": "datasource", "query": kind, "refresh": 1 })
}

/// Values of a label that the reader picks.
pub(super) fn label(name: &str, label: &str, query: &str) -> Value {
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

/// A quantile of a histogram's series, by labels beside `le`.
pub(super) fn quantile(q: f64, by: &str, selector: &str, histogram: &str, window: &str) -> String {
    format!(
        "histogram_quantile({q}, sum by ({by}) \
         (rate({histogram}_bucket{{{selector}}}[{window}])))"
    )
}
