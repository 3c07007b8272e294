//! The dashboard of kills for want of memory.

use serde_json::{Value, json};

use super::frame::{Frame, NODE, nodes, prometheus};
use super::panel::{Band, Panel, layout};

const KILLS: &str = "hearth_oom_kills_total";
const CAPTURES: &str = "hearth_oom_captures_total";

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "hearth-oom",
        title: "Out of memory",
        description: "What the kernel killed for want of memory, who is about to be next, and \
                      whether each kill was captured.",
        tag: "oom",
        alerts: "Oom.+",
        annotations: Vec::new(),
        variables: vec![prometheus(), nodes()],
        panels: layout(vec![
            Band {
                heading: None,
                height: 4,
                panels: overview(),
            },
            Band {
                heading: Some("Kills"),
                height: 9,
                panels: kills(),
            },
            Band {
                heading: Some("Before the kill"),
                height: 9,
                panels: near(),
            },
            Band {
                heading: Some("Captures"),
                height: 9,
                panels: captures(),
            },
            Band {
                heading: None,
                height: 8,
                panels: store(),
            },
        ]),
    };
    frame.dashboard()
}

fn overview() -> Vec<Panel> {
    vec![
        Panel::stat("Kills", "short", 6, Some((1.0, 4.0)))
            .describe(
                "Processes killed for want of memory. `hearth oom list` on the node names them; \
                 many: runbook of OomKillsRepeated.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!("sum(increase({CAPTURES}{{{NODE}}}[$__range]))")),
        Panel::stat("Not captured whole", "short", 6, Some((1.0, 4.0)))
            .describe(
                "Captures that lack threads of their victim, and captures without a file: runbook \
                 of OomCaptureIncomplete.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!(
                "sum(increase({CAPTURES}{{{NODE},completeness!=\"complete\"}}[$__range])) \
                 + sum(increase(hearth_oom_captures_lost_total{{{NODE}}}[$__range]))"
            )),
        Panel::stat("Near their limits", "short", 6, None)
            .describe(
                "Cgroups that the flight recorder samples now, because they are near their limits.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!(
                "sum(hearth_oom_recorder_cgroups{{{NODE},state=\"near\"}})"
            )),
        Panel::stat("Agents", "short", 6, None)
            .describe(
                "Nodes whose agent reports now. Fewer than nodes: runbook of HearthAgentDown.",
            )
            .value(&format!("count(hearth_agent_memory_pss_bytes{{{NODE}}})")),
    ]
}

fn kills() -> Vec<Panel> {
    vec![
        Panel::time_series("Kills by what ran out", "short", 12)
            .describe(
                "cgroup: one sandbox hit its limit, nobody else is concerned. global: the node is \
                 full, and what was killed need not be what filled it.",
            )
            .curve(
                &format!("sum by (constraint) (increase({KILLS}{{{NODE}}}[$__rate_interval]))"),
                "{{constraint}}",
            )
            .stack(),
        Panel::table("Killed most often", "short", 12)
            .describe(
                "By unit or program, over the whole range. What is here again and again needs \
                 another limit or leaks: `hearth oom show` says which, and what limit would have \
                 been enough.",
            )
            .rows(&format!(
                "topk(20, sum by (faas_name, instance) ({KILLS}{{{NODE}}}))"
            ))
            .transform(
                "filterFieldsByName",
                &json!({ "include": { "names": ["Value", "faas_name", "instance"] } }),
            )
            .transform(
                "organize",
                &json!({
                    "excludeByName": {},
                    "indexByName": { "faas_name": 0, "instance": 1, "Value": 2 },
                    "renameByName": {
                        "Value": "Kills since the agent began", "faas_name": "Victim",
                        "instance": "Node",
                    },
                }),
            )
            .set(
                "/options/sortBy",
                json!([{ "displayName": "Kills since the agent began", "desc": true }]),
            ),
    ]
}

fn near() -> Vec<Panel> {
    vec![
        Panel::time_series("Nearest to their limits", "percentunit", 12)
            .describe(
                "Share of the limit that cannot be dropped, of cgroups that are near it; ~node is \
                 the node itself. A line that ends here ended in a kill or in relief. Above 95 % \
                 for long: runbook of OomNearLimit.",
            )
            .curve(
                &format!("topk(10, max by (cgroup) (hearth_oom_near_share{{{NODE}}}))"),
                "{{cgroup}}",
            ),
        Panel::time_series("Time to the limit", "s", 12)
            .describe(
                "When each will be there at the rate of the last seconds. Only of those that grow.",
            )
            .curve(
                &format!(
                    "bottomk(10, min by (cgroup) (hearth_oom_near_time_to_limit_seconds{{{NODE}}}))"
                ),
                "{{cgroup}}",
            ),
    ]
}

fn captures() -> Vec<Panel> {
    vec![
        Panel::time_series("Captures by completeness", "short", 12)
            .describe(
                "complete: every thread of the victim was seen at its exit. some_threads, \
                 kill_only: runbook of OomCaptureIncomplete.",
            )
            .curve(
                &format!(
                    "sum by (completeness) (increase({CAPTURES}{{{NODE}}}[$__rate_interval]))"
                ),
                "{{completeness}}",
            )
            .stack(),
        Panel::time_series("Fields that were missed", "short", 12)
            .describe(
                "What could have been had and was not, by field and reason. What this kernel does \
                 not give is not counted: `hearth doctor` lists that.",
            )
            .curve(
                &format!(
                    "sum by (field, reason) \
                     (increase(hearth_oom_captures_missing_total{{{NODE}}}[$__rate_interval]))"
                ),
                "{{field}} {{reason}}",
            ),
    ]
}

fn store() -> Vec<Panel> {
    vec![
        Panel::time_series("Captures without a file", "short", 8)
            .describe("They were told and counted; the reason says what to do: runbook of OomCaptureIncomplete.")
            .curve(
                &format!(
                    "sum by (reason) \
                     (increase(hearth_oom_captures_lost_total{{{NODE}}}[$__rate_interval]))"
                ),
                "{{reason}}",
            ),
        Panel::time_series("Bytes in the stores", "bytes", 8)
            .describe(
                "Of each node. At oom.max_bytes (or oom.max_captures) the oldest go first: copy \
                 what you want to keep before that.",
            )
            .curve(&format!("hearth_oom_store_size_bytes{{{NODE}}}"), "{{instance}}"),
        Panel::time_series("Captures that made room", "short", 8)
            .describe(
                "The oldest were removed because of oom.max_captures or oom.max_bytes. Sooner than \
                 you look at them: raise the bounds.",
            )
            .curve(
                &format!(
                    "sum(increase(hearth_oom_captures_evicted_total{{{NODE}}}[$__rate_interval]))"
                ),
                "evicted",
            ),
    ]
}
