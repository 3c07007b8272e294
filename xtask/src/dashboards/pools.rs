//! The dashboard of functions: their pools, their requests, and what was healed.

use serde_json::{Value, json};

use super::frame::{Frame, NODE, annotation, label, nodes, prometheus, quantile};
use super::panel::{Band, Panel, layout};

/// The functions and nodes that the reader picked.
const PICKED: &str = r#"faas_name=~"$function",instance=~"$instance""#;
const SANDBOXES: &str = "hearth_pool_sandboxes";
const CLAIMS: &str = "hearth_pool_claims_total";

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "hearth-pools",
        title: "Functions and their pools",
        description: "Whether requests find a sandbox that is ready, what that costs in memory, \
                      and what was healed.",
        tag: "pools",
        alerts: "Pool.+|Function.+|Heal.+",
        annotations: vec![annotation(
            ("Healings", "blue"),
            &format!(
                "sum by (faas_name, instance, action, outcome) \
                 (increase(hearth_heal_actions_total{{{PICKED}}}[1m])) > 0"
            ),
            ("{{faas_name}}: {{action}} {{outcome}}", "{{instance}}"),
            "faas_name,action,outcome",
        )],
        variables: vec![
            prometheus(),
            nodes(),
            label(
                "function",
                "Function",
                r#"label_values(hearth_pool_sandboxes{instance=~"$instance"}, faas_name)"#,
            ),
        ],
        panels: layout(vec![
            Band {
                heading: None,
                height: 4,
                panels: overview(),
            },
            Band {
                heading: Some("Pools"),
                height: 9,
                panels: pools(),
            },
            Band {
                heading: Some("Requests"),
                height: 9,
                panels: requests(),
            },
            Band {
                heading: Some("How long functions take"),
                height: 9,
                panels: durations(),
            },
            Band {
                heading: Some("What it costs"),
                height: 9,
                panels: memory(),
            },
            Band {
                heading: Some("Healing"),
                height: 9,
                panels: healing(),
            },
            Band {
                heading: None,
                height: 10,
                panels: functions(),
            },
        ]),
    };
    frame.dashboard()
}

/// Claims of these kinds, as a rate or an increase, by these labels.
fn claims(result: &str, by: &str, of: &str, window: &str) -> String {
    format!("sum by ({by}) ({of}({CLAIMS}{{{PICKED},result=~\"{result}\"}}[{window}]))")
}

/// Of the requests that got a sandbox, those that waited for one to start.
fn cold_share(by: &str, of: &str, window: &str) -> String {
    let missed = claims("miss", by, of, window);
    let served = claims("hit|queued|miss", by, of, window);
    format!("{missed} / {served}")
}

fn sandboxes(states: &str, by: &str) -> String {
    format!("sum by ({by}) ({SANDBOXES}{{{PICKED},state=~\"{states}\"}})")
}

fn overview() -> Vec<Panel> {
    vec![
        Panel::stat("Requests", "reqps", 4, None)
            .describe("Requests for a sandbox a second, those that were refused among them.")
            .value(&claims(".*", "", "rate", "$__rate_interval")),
        Panel::stat("Cold-start share", "percentunit", 4, Some((0.05, 0.2)))
            .describe(
                "Of the requests that got a sandbox, those that waited for one to start, over the \
                 whole range: runbook of PoolColdStartShareHigh.",
            )
            .value(&cold_share("", "increase", "$__range")),
        Panel::stat("Refused", "short", 4, Some((1.0, 100.0)))
            .describe(
                "Requests that got no sandbox, over the whole range. *Refused, by reason* says \
                 why: runbook of PoolExhausted.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&claims("refused", "", "increase", "$__range")),
        Panel::stat("Waiting now", "short", 4, None)
            .describe("Requests that wait for a sandbox now. Lasting ones: *Requests that wait*.")
            .value(&format!("sum(hearth_pool_waiting{{{PICKED}}})")),
        Panel::stat("Memory of sandboxes", "percentunit", 4, Some((0.8, 0.95)))
            .describe(
                "The fullest node: memory that its sandboxes have, of what they may have together. \
                 Near 100 % idle ones are evicted, and then requests refused.",
            )
            .value(&format!(
                "max(hearth_pool_memory_bytes{{{NODE},state=\"used\"}} \
                 / ignoring (state) hearth_pool_memory_bytes{{{NODE},state=\"budget\"}})"
            )),
        Panel::stat("Left alone", "short", 4, Some((1.0, 3.0)))
            .describe(
                "Functions that keep failing and are not started for a while: runbook of \
                 FunctionCrashLoop.",
            )
            .value(&format!(
                "sum(hearth_heal_back_off_seconds{{{PICKED}}} > bool 0)"
            )),
    ]
}

fn pools() -> Vec<Panel> {
    vec![
        Panel::time_series("Sandboxes by state", "short", 12)
            .describe(
                "Ready, starting and at work, stacked; the lines are what the policy wants \
                 (target) and what is allowed (max). Busy along max: PoolExhausted. Ready far \
                 above busy for hours: a shorter keep-alive saves memory.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(&sandboxes("ready|starting|busy", "state"), "{{state}}")
            .stack()
            .curve(&sandboxes("target|max", "state"), "{{state}}")
            .field("target", &line("#8ab8ff"))
            .field("max", &line("#e02f44")),
        Panel::time_series("Cold-start share by function", "percentunit", 12)
            .describe(
                "The ten highest. Right after a function was deployed every request is cold; what \
                 stays high has a pool that is too small, or requests too rare to keep one for.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "topk(10, {})",
                    cold_share("faas_name", "rate", "$__rate_interval")
                ),
                "{{faas_name}}",
            )
            .by_name(),
    ]
}

/// A field that is drawn over a stack, and not in it.
fn line(colour: &str) -> Value {
    json!({
        "custom.stacking": { "group": "A", "mode": "none" },
        "custom.fillOpacity": 0,
        "custom.lineWidth": 2,
        "color": { "mode": "fixed", "fixedColor": colour },
    })
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::time_series("Claims by result", "reqps", 8)
            .describe(
                "hit: a sandbox was ready. queued: waited for one at work. miss: waited for one to \
                 start. refused: got none. Misses that grow while requests do not: look at how \
                 long functions take, a slow dependency holds sandboxes.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &claims(".*", "result", "rate", "$__rate_interval"),
                "{{result}}",
            )
            .stack()
            .by_name(),
        Panel::time_series("Requests that wait", "short", 8)
            .describe(
                "By function, the ten longest queues. One that is never empty needs a higher \
                 max_instances, or a faster function.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("topk(10, sum by (faas_name) (hearth_pool_waiting{{{PICKED}}}))"),
                "{{faas_name}}",
            )
            .stack(),
        Panel::time_series("Refused, by reason", "reqps", 8)
            .describe(
                "full: the queue was. late: none became free in time. memory: the node has none \
                 for another sandbox. not_started, back_off: the function does not come up. \
                 removed: while it waited.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &claims("refused", "reason", "rate", "$__rate_interval"),
                "{{reason}}",
            )
            .stack()
            .by_name(),
    ]
}

fn durations() -> Vec<Panel> {
    let quantiles = |panel: Panel, histogram: &str| {
        [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")]
            .into_iter()
            .fold(panel, |panel, (q, name)| {
                let expr = quantile(q, "le", PICKED, histogram, "$__rate_interval");
                panel.curve(&expr, name)
            })
    };
    vec![
        quantiles(
            Panel::time_series("Invocation", "s", 8).describe(
                "The function's own time on a request, waiting for a sandbox not in it. All three \
                 up at once: what it calls became slow. p99 alone: some requests are larger.",
            ),
            "faas_invoke_duration_seconds",
        ),
        quantiles(
            Panel::time_series("Start", "s", 8).describe(
                "From the claim of a sandbox until the function in it asks for work: what a miss \
                 waits for. The dashboard *Cold starts* shows which phase takes it.",
            ),
            "faas_init_duration_seconds",
        ),
        Panel::time_series("Outcome of requests", "reqps", 8)
            .describe(
                "Answered, failed, and of the failed those that took too long. `hearth fn logs` \
                 says what a function wrote.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(&outcome("faas_invocations_total"), "answered")
            .curve(&outcome("faas_errors_total"), "failed")
            .curve(&outcome("faas_timeouts_total"), "timed out"),
    ]
}

fn outcome(counter: &str) -> String {
    format!("sum(rate({counter}{{{PICKED}}}[$__rate_interval]))")
}

fn memory() -> Vec<Panel> {
    vec![
        Panel::time_series("Idle memory by function", "bytes", 8)
            .describe(
                "Memory of sandboxes that wait for work, the ten largest: the price of starting \
                 warm. It goes when memory is needed, that of the cheapest starts first.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "topk(10, sum by (faas_name) (hearth_pool_idle_memory_bytes{{{PICKED}}}))"
                ),
                "{{faas_name}}",
            )
            .stack()
            .by_name(),
        Panel::time_series("Memory of sandboxes by node", "bytes", 8)
            .describe(
                "What they have (used) and may have together (budget). used at budget: more \
                 memory, fewer functions on the node, or smaller ones.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("hearth_pool_memory_bytes{{{NODE}}}"),
                "{{instance}} {{state}}",
            ),
        Panel::time_series("Sandboxes ended, by why", "suffix: /s", 8)
            .describe(
                "idle: longer than the policy keeps one. surplus: more than may be. old: another \
                 version was deployed. evicted: its memory was needed; much of that means that \
                 the node is too small.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "sum by (why) (rate(hearth_pool_retired_total{{{PICKED}}}[$__rate_interval]))"
                ),
                "{{why}}",
            )
            .stack()
            .by_name(),
    ]
}

fn healing() -> Vec<Panel> {
    vec![
        Panel::time_series("Healings", "short", 12)
            .describe(
                "What was done about sandboxes that failed, and what came of it; where a function \
                 only observes, what would have been done. `hearth heal log` on the node says \
                 why. Failed ones: runbook of HealFailed.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!(
                    "sum by (action, outcome) \
                     (increase(hearth_heal_actions_total{{{PICKED}}}[$__rate_interval]))"
                ),
                "{{action}} {{outcome}}",
            )
            .stack(),
        Panel::time_series("Left alone for", "s", 12)
            .describe(
                "Functions that keep failing, and how long until they are tried again: 10 s, \
                 doubling up to 5 min. Runbook of FunctionCrashLoop.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("topk(10, max by (faas_name) (hearth_heal_back_off_seconds{{{PICKED}}}))"),
                "{{faas_name}}",
            ),
    ]
}

fn functions() -> Vec<Panel> {
    let by = "faas_name, instance";
    let columns = [
        ("faas_name", "Function"),
        ("instance", "Node"),
        ("Value #A", "Requests"),
        ("Value #B", "Cold-start share"),
        ("Value #C", "Refused"),
        ("Value #D", "Failed"),
        ("Value #E", "Idle memory"),
    ];
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let order: Value = (0..)
        .zip(&names)
        .map(|(at, name)| ((*name).to_owned(), json!(at)))
        .collect();
    let titles: Value = columns
        .iter()
        .map(|(name, title)| ((*name).to_owned(), json!(title)))
        .collect();
    vec![
        Panel::table("Functions", "short", 24)
            .describe(
                "Over the whole range. Many requests and a high share: its pool is too small. Few \
                 requests and much idle memory: it is kept for too long.",
            )
            .rows(&claims(".*", by, "increase", "$__range"))
            .rows(&cold_share(by, "increase", "$__range"))
            .rows(&claims("refused", by, "increase", "$__range"))
            .rows(&format!(
                "sum by ({by}) (increase(faas_errors_total{{{PICKED}}}[$__range]))"
            ))
            .rows(&format!(
                "sum by ({by}) (hearth_pool_idle_memory_bytes{{{PICKED}}})"
            ))
            .transform("merge", &json!({}))
            .transform(
                "filterFieldsByName",
                &json!({ "include": { "names": names } }),
            )
            .transform(
                "organize",
                &json!({ "excludeByName": {}, "indexByName": order, "renameByName": titles }),
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .field(
                "Cold-start share",
                &json!({ "unit": "percentunit", "decimals": 1 }),
            )
            .field("Idle memory", &json!({ "unit": "bytes" }))
            .set(
                "/options/sortBy",
                json!([{ "displayName": "Requests", "desc": true }]),
            ),
    ]
}
