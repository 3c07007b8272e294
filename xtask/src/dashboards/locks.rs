//! The dashboard of the cgroup locks.

use serde_json::{Value, json};

use super::frame::{Frame, NODE, label, nodes, prometheus, quantile};
use super::panel::{Band, Panel, layout};

/// The locks and nodes that the reader picked.
const PICKED: &str = r#"lock=~"$lock",instance=~"$instance""#;
const WAIT: &str = "hearth_cgroup_lock_wait_seconds";
const HOLD: &str = "hearth_cgroup_lock_hold_seconds";

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "hearth-locks",
        title: "Cgroup locks",
        description: "Who waits for the kernel's cgroup locks, and for how long they are held.",
        tag: "cgroup-lock",
        alerts: "CgroupLock.+",
        annotations: Vec::new(),
        variables: vec![
            prometheus(),
            nodes(),
            label(
                "lock",
                "Lock",
                r#"label_values(hearth_cgroup_lock_wait_seconds_count{instance=~"$instance"}, lock)"#,
            ),
        ],
        panels: layout(vec![
            Band {
                heading: None,
                height: 4,
                panels: overview(),
            },
            Band {
                heading: Some("Waits"),
                height: 9,
                panels: waits(),
            },
            Band {
                heading: None,
                height: 9,
                panels: operations(),
            },
            Band {
                heading: Some("Holds"),
                height: 9,
                panels: holds(),
            },
            Band {
                heading: Some("Cgroups"),
                height: 9,
                panels: cgroups(),
            },
        ]),
    };
    frame.dashboard()
}

fn overview() -> Vec<Panel> {
    vec![
        Panel::stat("Waits", "short", 6, None)
            .describe(
                "How often somebody had to wait for one of the locks. None at all on a node that \
                 starts containers: look at the agents, on the dashboard of cold starts.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!(
                "sum(increase({WAIT}_count{{{PICKED}}}[$__range]))"
            )),
        Panel::stat("p99 wait", "s", 6, Some((0.005, 0.02)))
            .describe(
                "Of those who had to wait one in a hundred waited longer. Several milliseconds add \
                 up in each start, which takes the locks a dozen times: runbook of \
                 CgroupLockWaitSlow.",
            )
            .value(&quantile(0.99, "le", PICKED, WAIT, "$__range")),
        Panel::stat("Tasks waiting", "short", 6, Some((1.0, 4.0)))
            .describe(
                "Time waited in a second: how many tasks stand in the queues on average. Above the \
                 number of CPUs the locks are what limits the node.",
            )
            .set("/fieldConfig/defaults/decimals", json!(2))
            .value(&format!(
                "sum(increase({WAIT}_sum{{{PICKED}}}[$__range])) / $__range_s"
            )),
        Panel::stat("Agents", "short", 6, None)
            .describe(
                "Nodes whose agent reports now. Fewer than nodes: runbook of HearthAgentDown.",
            )
            .value(&format!("count(hearth_agent_memory_pss_bytes{{{NODE}}})")),
    ]
}

fn waits() -> Vec<Panel> {
    let curve = |q| quantile(q, "le, lock", PICKED, WAIT, "$__rate_interval");
    vec![
        Panel::time_series("Wait by lock", "s", 12)
            .describe(
                "Of those who had to wait. cgroup_mutex: changes of the tree queue up. \
                 parent_directory: somebody makes all cgroups in one directory. rcu: attaches wait \
                 for a grace period; turn favordynmods on.",
            )
            .curve(&curve(0.5), "{{lock}} p50")
            .curve(&curve(0.99), "{{lock}} p99"),
        Panel::time_series("Tasks waiting by lock", "short", 12)
            .describe(
                "Time waited in a second: how many tasks stand in the queue of each lock on \
                 average. It rises before the latency of starts does.",
            )
            .curve(
                &format!("sum by (lock) (rate({WAIT}_sum{{{PICKED}}}[$__rate_interval]))"),
                "{{lock}}",
            )
            .stack(),
    ]
}

fn operations() -> Vec<Panel> {
    let sum =
        |window| format!("sum by (lock, operation) (increase({WAIT}_sum{{{PICKED}}}[{window}]))");
    vec![
        Panel::time_series("Tasks waiting by operation", "short", 12)
            .describe(
                "What they wanted it for. mkdir, rmdir, attach: starts and ends of containers. \
                 fork, exit: programs that have nothing to do with cgroups pay, too. css_release: \
                 the kernel's own work after cgroups were removed.",
            )
            .curve(
                &format!("sum by (operation) (rate({WAIT}_sum{{{PICKED}}}[$__rate_interval]))"),
                "{{operation}}",
            )
            .stack(),
        Panel::table("Time waited by lock and operation", "s", 12)
            .describe(
                "Over the whole range, all tasks together. The first row is where to begin; \
                 `hearth locks` on the node names who waits and who has the lock.",
            )
            .rows(&sum("$__range"))
            .transform(
                "filterFieldsByName",
                &json!({ "include": { "names": ["Value", "lock", "operation"] } }),
            )
            .transform(
                "organize",
                &json!({
                    "excludeByName": {},
                    "indexByName": { "lock": 0, "operation": 1, "Value": 2 },
                    "renameByName": {
                        "Value": "Waited", "lock": "Lock", "operation": "Operation",
                    },
                }),
            )
            .set(
                "/options/sortBy",
                json!([{ "displayName": "Waited", "desc": true }]),
            ),
    ]
}

fn holds() -> Vec<Panel> {
    vec![
        Panel::time_series("Hold p99 by lock", "s", 12)
            .describe(
                "For how long somebody had it. bound=upper: this kernel shows only that a contended \
                 lock changed hands; the hold is that long at most. Long holds with few waits harm \
                 nobody; long holds with many are what everybody waits for.",
            )
            .curve(
                &quantile(0.99, "le, lock, bound", PICKED, HOLD, "$__rate_interval"),
                "{{lock}} ({{bound}})",
            ),
        Panel::time_series("Share of the time held, by operation", "percentunit", 12)
            .describe(
                "Of each lock and node; near 100 % nothing more fits through it. The operation that \
                 takes most of it is the one to do less often, or in fewer hierarchies.",
            )
            .curve(
                &format!(
                    "max by (lock, operation) (rate({HOLD}_sum{{{PICKED}}}[$__rate_interval]))"
                ),
                "{{lock}} {{operation}}",
            ),
    ]
}

fn cgroups() -> Vec<Panel> {
    vec![
        Panel::time_series("Tasks waiting by cgroup", "short", 24)
            .describe(
                "Whose tasks wait: the ten cgroups that waited longest, ~other all that are not \
                 told by name. The one that waits need not be the one that holds: `hearth locks` \
                 names both.",
            )
            .curve(
                &format!(
                    "topk(10, sum by (cgroup) (rate(\
                     hearth_cgroup_lock_wait_time_seconds_total{{{NODE}}}[$__rate_interval])))"
                ),
                "{{cgroup}}",
            )
            .stack(),
    ]
}
