//! Panels about the agent: what it lost, and what it costs.

use serde_json::json;

use super::NODE;
use crate::dashboards::panel::Panel;

pub(super) fn ledger() -> Vec<Panel> {
    let increase = |series: &str| format!("sum(increase({series}[$__rate_interval])) or vector(0)");
    let dropped = format!(r#"hearth_probe_events_total{{{NODE},fate=~"dropped_.+"}}"#);
    vec![
        Panel::time_series("Probe events by fate", "suffix: /s", 8)
            .describe(
                "What became of everything that the probes saw. Many filtered and few submitted is \
                 right; submitted near seen on a busy node: narrow the [[start]] rules.",
            )
            .set(
                "/fieldConfig/defaults/custom/scaleDistribution",
                json!({
                    "type": "symlog", "log": 10, "linearThreshold": 1,
                }),
            )
            .curve(
                &format!(
                    "sum by (fate) (rate(hearth_probe_events_total{{{NODE}}}[$__rate_interval]))"
                ),
                "{{fate}}",
            ),
        Panel::time_series("Lost", "short", 8)
            .describe(
                "Zero when all is well. Anything else: the starts of that moment may lack phases \
                 (each says so itself); runbook of HearthProbeLost.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(&increase(&dropped), "dropped by probes")
            .curve(
                &increase(&format!("hearth_agent_recursion_misses_total{{{NODE}}}")),
                "missed by recursion",
            )
            .curve(
                &increase(&format!("hearth_agent_queue_dropped_total{{{NODE}}}")),
                "dropped by queues",
            )
            .curve(
                &increase(&format!("hearth_agent_starts_evicted_total{{{NODE}}}")),
                "open starts evicted",
            ),
        Panel::time_series("Ledger imbalance", "short", 8)
            .describe(
                "Hits that a probe saw less those whose fate is known. A short peak is a reading \
                 in the middle of a hit; a step that stays is a loss that nobody counted, a bug: \
                 runbook of HearthLedgerImbalance.",
            )
            .curve(
                &format!("max by (probe) (abs(hearth_agent_ledger_imbalance{{{NODE}}}))"),
                "{{probe}}",
            ),
    ]
}

pub(super) fn cost() -> Vec<Panel> {
    vec![
        Panel::time_series("Memory", "bytes", 6)
            .describe("Proportional set size of the agent, the rings counted once.")
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("hearth_agent_memory_pss_bytes{{{NODE}}}"),
                "{{instance}}",
            ),
        Panel::time_series("CPU", "percentunit", 6)
            .describe(
                "User side of the agent, of one CPU. It follows the rate of starts; high without \
                 starts: `mode` is \"process\", or a rule matches too much.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("rate(hearth_agent_cpu_time_seconds_total{{{NODE}}}[$__rate_interval])"),
                "{{instance}}",
            ),
        Panel::time_series("Exported", "suffix: /s", 6)
            .describe(
                "Spans, data points and log records by outcome; zero while no collector is set. \
                 missed: it was away, and the next data points make up for it. evicted: it was \
                 away for longer than the spool holds, spans or logs are lost. refused: it says \
                 why in the agent's log.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "sum by (signal, outcome) (rate(\
                     hearth_agent_export_items_total{{{NODE}}}[$__rate_interval])) or vector(0)"
                ),
                "{{signal}} {{outcome}}",
            ),
        Panel::time_series("Watching", "short", 6)
            .describe(
                "Share of the time in which the watch set is attached, and starts that are open. \
                 Open starts that only grow: programs that never become ready; give them a rule.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .field(
                "watch share",
                &json!({ "unit": "percentunit", "custom.axisPlacement": "right" }),
            )
            .curve(
                &format!("sum(hearth_agent_starts_open{{{NODE}}})"),
                "open starts",
            )
            .curve(
                &format!("avg(hearth_agent_watch_share{{{NODE}}})"),
                "watch share",
            ),
    ]
}
