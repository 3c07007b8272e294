//! The dashboard of the network: TCP segments sent again.

use serde_json::{Value, json};

use super::frame::{Frame, NODE, label, nodes, prometheus};
use super::panel::{Band, Panel, layout};

/// The cgroups and nodes that the reader picked.
const PICKED: &str = r#"cgroup=~"$cgroup",instance=~"$instance""#;
const AGAIN: &str = "hearth_tcp_retransmitted_segments_total";
const SENT: &str = "hearth_tcp_sent_segments_total";

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "hearth-network",
        title: "Network",
        description: "TCP segments that had to be sent again: whose, where to, and how large a share.",
        tag: "retransmit",
        alerts: "TcpRetransmit.+",
        annotations: Vec::new(),
        variables: vec![
            prometheus(),
            nodes(),
            label(
                "cgroup",
                "Cgroup",
                r#"label_values(hearth_tcp_retransmitted_segments_total{instance=~"$instance"}, cgroup)"#,
            ),
        ],
        panels: layout(vec![
            Band {
                heading: None,
                height: 4,
                panels: overview(),
            },
            Band {
                heading: Some("How much"),
                height: 9,
                panels: shares(),
            },
            Band {
                heading: Some("Whose, and where to"),
                height: 9,
                panels: by(),
            },
            Band {
                heading: None,
                height: 10,
                panels: pairs(),
            },
        ]),
    };
    frame.dashboard()
}

/// Of all segments, those sent again, by these labels; only where both are known.
fn share(by: &str, window: &str) -> String {
    let again = format!("sum by ({by}) (rate({AGAIN}{{{NODE}}}[{window}]))");
    let sent = format!("sum by ({by}) (rate({SENT}{{{NODE}}}[{window}]))");
    format!("{again} / ({sent} + {again})")
}

fn overview() -> Vec<Panel> {
    vec![
        Panel::stat("Segments sent again", "short", 6, None)
            .describe(
                "As many as the kernels' own RetransSegs grew by, of the cgroups and nodes picked.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!("sum(increase({AGAIN}{{{PICKED}}}[$__range]))")),
        Panel::stat("Worst share", "percentunit", 6, Some((0.01, 0.05)))
            .describe(
                "Of all segments of one network namespace, those sent again. One in a hundred \
                 costs bulk transfers speed; one in twenty costs everybody time: runbook of \
                 TcpRetransmitShareHigh.",
            )
            .value(&format!("max({})", share("instance, netns", "$__range"))),
        Panel::stat("Namespaces", "short", 6, None)
            .describe(
                "Network namespaces whose segments sent are known: the agents' own, and those in \
                 which segments were sent again and a process was found.",
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .value(&format!("count({SENT}{{{NODE}}})")),
        Panel::stat("Agents", "short", 6, None)
            .describe(
                "Nodes whose agent reports now. Fewer than nodes: runbook of HearthAgentDown.",
            )
            .value(&format!("count(hearth_agent_memory_pss_bytes{{{NODE}}})")),
    ]
}

fn shares() -> Vec<Panel> {
    vec![
        Panel::time_series("Share sent again, by namespace", "percentunit", 12)
            .describe(
                "The ten worst. All namespaces of a node at once: its link, or a switch. One \
                 alone: its shaping, or whom it talks to. `lsns -t net` on the node says who is in \
                 a namespace.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("topk(10, {})", share("instance, netns", "$__rate_interval")),
                "{{instance}} {{netns}}",
            ),
        Panel::time_series("Segments sent again, by protocol", "suffix: /s", 12)
            .describe(
                "What goes over the wire: an IPv4 peer of an IPv6 socket is IPv4. Only one of the \
                 two: a route, a tunnel or a filter that the other does not pass.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(
                &format!("sum by (network_type) (rate({AGAIN}{{{PICKED}}}[$__rate_interval]))"),
                "{{network_type}}",
            )
            .stack(),
    ]
}

fn by() -> Vec<Panel> {
    let top = |label: &str| {
        format!("topk(10, sum by ({label}) (rate({AGAIN}{{{PICKED}}}[$__rate_interval])))")
    };
    vec![
        Panel::time_series("By cgroup", "suffix: /s", 12)
            .describe(
                "The ten that send most again; ~other all that are not told by name, ~unknown \
                 sockets older than the agent on a node with the v1 memory controller. One \
                 alone: its own load or limits.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(&top("cgroup"), "{{cgroup}}")
            .stack(),
        Panel::time_series("By destination", "suffix: /s", 12)
            .describe(
                "The ten networks that most is sent to again: /24 of IPv4, /48 of IPv6. One alone \
                 is where the loss is, or on the way there.",
            )
            .set("/fieldConfig/defaults/min", json!(0))
            .curve(&top("destination"), "{{destination}}")
            .stack(),
    ]
}

fn pairs() -> Vec<Panel> {
    vec![
        Panel::table("Who sends again, and where to", "short", 24)
            .describe("Over the whole range. The first row is where to begin.")
            .rows(&format!(
                "topk(50, sum by (instance, cgroup, destination) \
                 (increase({AGAIN}{{{PICKED}}}[$__range]))) > 0"
            ))
            .transform(
                "filterFieldsByName",
                &json!({ "include": { "names": ["Value", "instance", "cgroup", "destination"] } }),
            )
            .transform(
                "organize",
                &json!({
                    "excludeByName": {},
                    "indexByName": { "instance": 0, "cgroup": 1, "destination": 2, "Value": 3 },
                    "renameByName": {
                        "Value": "Segments", "instance": "Node", "cgroup": "Cgroup",
                        "destination": "Destination",
                    },
                }),
            )
            .set("/fieldConfig/defaults/decimals", json!(0))
            .set(
                "/options/sortBy",
                json!([{ "displayName": "Segments", "desc": true }]),
            ),
    ]
}
