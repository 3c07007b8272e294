//! Panels about starts: how many, how long, where the time goes and why.

use serde_json::json;

use super::NODE;
use crate::dashboards::frame::quantile;
use crate::dashboards::panel::Panel;

/// The series of the functions and nodes that the reader picked.
const PICKED: &str = r#"faas_name=~"$function",instance=~"$instance""#;
/// Starts that reached ready.
const READY: &str = r#"ready!~"not_ready|exited""#;
/// Starts that did not.
const NOT_READY: &str = r#"ready=~"not_ready|exited""#;

pub(super) fn overview() -> Vec<Panel> {
    let whole = |q| {
        let selector = format!("{PICKED},{READY}");
        quantile(
            q,
            "le",
            &selector,
            "hearth_cold_start_duration_seconds",
            "$__range",
        )
    };
    vec![
        Panel::stat("Starts", "short", 4, None)
            .describe("Starts in the range, whatever their end. None at all: look at the agents below.")
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!(
                "sum(increase(hearth_cold_start_duration_seconds_count{{{PICKED}}}[$__range]))"
            )),
        Panel::stat("p50", "s", 4, None)
            .describe("Half of the starts that became ready took at most this long.")
            .value(&whole(0.5)),
        Panel::stat("p99", "s", 4, None)
            .describe(
                "One start in a hundred took longer. Far above p50: compare the slowest starts \
                 below with an ordinary one. The histogram ends at 60 s; a value there means more.",
            )
            .value(&whole(0.99)),
        Panel::stat("Not ready", "percentunit", 4, Some((0.001, 0.01)))
            .describe(
                "Share of the starts that ended before they were ready, by exit or by deadline. \
                 Above zero: see which function, and follow the runbook of ColdStartNeverReady.",
            )
            .value(&format!(
                "(sum(increase(hearth_cold_start_duration_seconds_count{{{PICKED},{NOT_READY}}}[$__range])) \
                 or vector(0)) \
                 / sum(increase(hearth_cold_start_duration_seconds_count{{{PICKED}}}[$__range]))"
            )),
        Panel::stat("Waiting", "percentunit", 4, None)
            .describe(
                "Share of the accounted time in which no thread of the starting program ran. High: \
                 the node, its storage or another process is in the way; low: the program computes.",
            )
            .value(&format!(
                "1 - (sum(increase(hearth_cold_start_cause_time_seconds_total{{{PICKED},cause=\"running\"}}[$__range])) \
                 or vector(0)) \
                 / sum(increase(hearth_cold_start_cause_time_seconds_total{{{PICKED}}}[$__range]))"
            )),
        Panel::stat("Agents", "short", 4, None)
            .describe("Nodes whose agent reports now. Fewer than nodes: runbook of HearthAgentDown.")
            .value(&format!("count(hearth_agent_memory_pss_bytes{{{NODE}}})")),
    ]
}

pub(super) fn rates() -> Vec<Panel> {
    let curve = |q| {
        let selector = format!("{PICKED},{READY}");
        let histogram = "hearth_cold_start_duration_seconds";
        quantile(q, "le, faas_name", &selector, histogram, "$__rate_interval")
    };
    let count = format!("hearth_cold_start_duration_seconds_count{{{PICKED}");
    vec![
        Panel::time_series("Duration by function", "s", 10)
            .describe(
                "From the opener to ready. p99 rises and p50 does not: some starts are hit, look \
                 at the causes. Both rise: the program or its image changed, look at the phases.",
            )
            .curve(&curve(0.5), "{{faas_name}} p50")
            .curve(&curve(0.99), "{{faas_name}} p99"),
        Panel::time_series("Starts by what made them ready", "suffix: /s", 7)
            .describe(
                "A burst here together with slow starts: the node starts more at once than it has \
                 CPUs for; spread it or keep instances warm. A kind that you do not expect: set \
                 the function's ready rule.",
            )
            .curve(
                &format!("sum by (ready) (rate({count}}}[$__rate_interval]))"),
                "{{ready}}",
            )
            .stack(),
        Panel::time_series("Not ready by function", "percentunit", 7)
            .describe(
                "Share of a function's starts that ended before ready. Read its last output and \
                 exit status in the trace of the start.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "(sum by (faas_name) (rate({count},{NOT_READY}}}[$__rate_interval])) \
                     or 0 * sum by (faas_name) (rate({count}}}[$__rate_interval]))) \
                     / sum by (faas_name) (rate({count}}}[$__rate_interval]))"
                ),
                "{{faas_name}}",
            ),
    ]
}

pub(super) fn phases() -> Vec<Panel> {
    let time = format!(
        "(rate(hearth_cold_start_phase_duration_seconds_sum{{{PICKED}}}[$__rate_interval]))"
    );
    vec![
        Panel::time_series("Mean start, cut into phases", "s", 12)
            .describe(
                "The height is the mean duration of a start; its layers are the phases. The \
                 thickest layer is where work pays. A name with + is two phases between which a \
                 mark is missing; hearth doctor says why. Starts that never became ready are in \
                 it until their end.",
            )
            .curve(
                &format!(
                    "sum by (phase) {time} / scalar(sum(rate(\
                     hearth_cold_start_duration_seconds_count{{{PICKED}}}[$__rate_interval])))"
                ),
                "{{phase}}",
            )
            .stack()
            .by_name(),
        Panel::time_series("Share of time by phase", "percentunit", 12)
            .describe(
                "create: the container runtime. wrapper: shells and init programs before the \
                 program. exec and link: loading it; fewer and smaller libraries help. \
                 runtime_init: the language's own start. user_init: your code before ready.",
            )
            .curve(
                &format!("sum by (phase) {time} / scalar(sum {time})"),
                "{{phase}}",
            )
            .set("/fieldConfig/defaults/max", json!(1))
            .stack()
            .by_name(),
    ]
}

pub(super) fn phases_by_function() -> Vec<Panel> {
    let histogram = "hearth_cold_start_phase_duration_seconds";
    let mean = format!(
        "sum by (faas_name, phase) (increase({histogram}_sum{{{PICKED}}}[$__range])) \
         / sum by (faas_name, phase) (increase({histogram}_count{{{PICKED}}}[$__range]))"
    );
    vec![
        Panel::time_series("p99 by phase", "s", 12)
            .describe(
                "Which phase makes the slow starts slow; it need not be the one that is the \
                 longest on average.",
            )
            .curve(
                &quantile(0.99, "le, phase", PICKED, histogram, "$__rate_interval"),
                "{{phase}}",
            )
            .by_name(),
        Panel::table("Mean phase by function", "s", 12)
            .describe(
                "Compare functions of one language: the same runtime_init with another user_init \
                 is the function's own code; another link is its image.",
            )
            .set(
                "/fieldConfig/defaults/custom/cellOptions",
                json!({
                    "type": "color-background", "mode": "basic",
                }),
            )
            .set(
                "/fieldConfig/defaults/color",
                json!({ "mode": "continuous-BlYlRd" }),
            )
            .rows(&mean)
            .transform(
                "groupingToMatrix",
                &json!({
                    "rowField": "faas_name", "columnField": "phase", "valueField": "Value",
                    "emptyValue": "null",
                }),
            ),
    ]
}

pub(super) fn causes() -> Vec<Panel> {
    let cause = format!("hearth_cold_start_cause_time_seconds_total{{{PICKED}}}");
    vec![
        colour_causes(Panel::shares("Causes by phase", "s", 10))
            .describe(
                "running: the program computes. queued: it is ready to run and has no CPU: too \
                 many starts at once, or a CPU limit. io: it waits for storage: a cold page cache \
                 or a large image. blocked: it waits for a lock, a child or the network.",
            )
            .rows(&format!(
                "sum by (phase, cause) (increase({cause}[$__range]))"
            ))
            .transform(
                "groupingToMatrix",
                &json!({
                    "rowField": "phase", "columnField": "cause", "valueField": "Value",
                    "emptyValue": "null",
                }),
            ),
        colour_causes(Panel::time_series("Causes over time", "percentunit", 10))
            .describe(
                "A cause that grows at one moment on one node (pick it above) is a neighbour or \
                 the storage; on all nodes at once it is a new version.",
            )
            .curve(
                &format!(
                    "sum by (cause) (rate({cause}[$__rate_interval])) \
                     / scalar(sum(rate({cause}[$__rate_interval])))"
                ),
                "{{cause}}",
            )
            .set("/fieldConfig/defaults/max", json!(1))
            .stack(),
        Panel::stat("Time with a known cause", "percentunit", 4, None)
            .describe(
                "The rest was not accounted: most causes need the watch set, which a kernel \
                 without fentry attaches for a share of the time only.",
            )
            .value(&format!(
                "sum(increase({cause}[$__range])) / sum(increase(\
                 hearth_cold_start_phase_duration_seconds_sum{{{PICKED}}}[$__range]))"
            )),
    ]
}

fn colour_causes(panel: Panel) -> Panel {
    let colours = [
        ("running", "green"),
        ("queued", "orange"),
        ("io", "blue"),
        ("blocked", "purple"),
    ];
    colours.into_iter().fold(panel, |panel, (cause, colour)| {
        panel.field(
            cause,
            &json!({ "color": { "mode": "fixed", "fixedColor": colour } }),
        )
    })
}

pub(super) fn slowest() -> Vec<Panel> {
    let trace = json!([{ "title": "Open the trace", "url": trace_url(), "targetBlank": true }]);
    vec![
        Panel::table("Slowest starts", "s", 24)
            .describe(
                "The slowest starts of the last 15 minutes. The trace shows each phase with its \
                 causes, faults and bytes read; compare it with the trace of an ordinary start.",
            )
            .rows(&format!("topk(10, hearth_cold_start_slowest_seconds{{{PICKED}}})"))
            .transform("filterFieldsByName", &json!({ "include": {
                "names": ["Value", "faas_name", "instance", "rank", "trace_id"],
            }}))
            .transform("organize", &json!({
                "excludeByName": {},
                "indexByName": {
                    "Value": 0, "faas_name": 1, "instance": 2, "rank": 3, "trace_id": 4,
                },
                "renameByName": {
                    "Value": "Duration", "faas_name": "Function", "instance": "Node",
                    "rank": "Rank on its node", "trace_id": "Trace",
                },
            }))
            .set("/options/sortBy", json!([{ "displayName": "Duration", "desc": true }]))
            .field("Duration", &json!({
                "custom.cellOptions": { "type": "gauge", "mode": "basic", "valueDisplayMode": "text" },
                "min": 0,
            }))
            .field("Trace", &json!({ "links": trace, "custom.width": 320 })),
    ]
}

/// Explore with the trace of the cell that was clicked, in the picked source of traces.
fn trace_url() -> String {
    let panes = json!({ "trace": {
        "datasource": "SOURCE",
        "queries": [{
            "refId": "A",
            "datasource": { "type": "tempo", "uid": "SOURCE" },
            "queryType": "traceql",
            "query": "TRACE_ID",
        }],
        "range": { "from": "FROM", "to": "TO" },
    }});
    let encoded = panes
        .to_string()
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22");
    let encoded = encoded.replace('[', "%5B").replace(']', "%5D");
    let url = format!("/explore?schemaVersion=1&panes={encoded}");
    url.replace("SOURCE", "${traces}")
        .replace("TRACE_ID", "${__value.raw}")
        .replace("FROM", "${__from}")
        .replace("TO", "${__to}")
}
