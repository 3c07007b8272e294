//! Two thousand sandboxes, one after the other.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use hearth_tests::cgroup;
use hearth_tests::machine;
use hearth_tests::node::{Language, Node, namespaces};
use serde_json::json;

use crate::scene::{Instance, resources};

/// Sandboxes before it is looked what is normal, as caches fill; and in all. A twentieth where every
/// instruction is emulated.
fn rounds() -> (u32, u32) {
    if machine::is_emulated() {
        (20, 100)
    } else {
        (400, 2000)
    }
}

/// One of so many runs a function.
const WITH_FUNCTION: u32 = 10;

/// What would grow if anything of a sandbox were left behind.
fn counts(node: &Node) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let spawner = node.spawner_pid()?;
    let descriptors = fs::read_dir(format!("/proc/{spawner}/fd"))?.count();
    counts.insert("descriptors of the spawner".to_owned(), descriptors as u64);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    counts.insert("mounts of the node".to_owned(), mounts as u64);
    for kind in ["mnt", "net", "pid", "user", "cgroup", "time"] {
        let there = namespaces(kind)?.len();
        counts.insert(format!("namespaces of kind {kind}"), there as u64);
    }
    // Of v1: with those that were removed and are still in use.
    for line in fs::read_to_string("/proc/cgroups")?.lines().skip(1) {
        let mut fields = line.split_whitespace();
        if let (Some(name), Some(count)) = (fields.next(), fields.nth(1)) {
            counts.insert(format!("cgroups with {name}"), count.parse()?);
        }
    }
    for mount in cgroup::mounts()? {
        let Ok(stat) = fs::read_to_string(mount.join("cgroup.stat")) else {
            continue;
        };
        for line in stat.lines() {
            if let Some((name @ ("nr_descendants" | "nr_dying_descendants"), count)) =
                line.split_once(' ')
            {
                counts.insert(format!("v2 {name}"), count.parse()?);
            }
        }
    }
    Ok(counts)
}

/// KiB that the spawner, and the kernel for whomever, hold.
fn memory(node: &Node) -> Result<BTreeMap<&'static str, u64>> {
    let field = |text: &str, name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name}"))?;
        Ok(line.trim_end_matches("kB").trim().parse()?)
    };
    let status = fs::read_to_string(format!("/proc/{}/status", node.spawner_pid()?))?;
    let node = fs::read_to_string("/proc/meminfo")?;
    Ok(BTreeMap::from([
        ("spawner", field(&status, "RssAnon:")?),
        ("slab", field(&node, "SUnreclaim:")?),
        ("percpu", field(&node, "Percpu:")?),
    ]))
}

#[test]
fn two_thousand_sandboxes_leave_no_more_than_four_hundred() -> Result<()> {
    // What is counted is of the whole machine.
    let _alone = machine::quiet()?;
    let node = Node::start("many", 4)?;
    node.parked(4)?;
    let before = node.remains()?;
    let start = Language::Rust.start()?;
    let (first, all) = rounds();
    let mut normal = None;
    for number in 0..all {
        let mut instance = Instance::claim(&node, &start, resources())?;
        if number % WITH_FUNCTION == 0 {
            instance.start(&start, hearth_tests::node::PATIENCE)?;
            instance.answer(&json!({ "number": number }))?;
        }
        instance.end()?;
        if number == first {
            node.parked(4)?;
            node.settled(&before)?;
            normal = Some((counts(&node)?, memory(&node)?));
        }
    }
    node.parked(4)?;
    node.settled(&before)?;
    let (counted, held) = normal.context("there was a first part")?;
    let now = counts(&node)?;
    for (what, then) in counted {
        let now = now.get(&what).copied().unwrap_or_default();
        // Others on this machine may come and go; two thousand do not hide in this.
        assert!(
            now <= then + 40,
            "{what}: {then} after {first}, {now} after {all}"
        );
    }
    let now = memory(&node)?;
    for (what, then) in held {
        let now = now.get(what).copied().unwrap_or_default();
        // 1,600 sandboxes that left a page each would be 6.4 MB.
        assert!(
            now <= then + 6 * 1024,
            "{what}: {then} KiB after {first}, {now} after {all}"
        );
    }
    Ok(())
}
