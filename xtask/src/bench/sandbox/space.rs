//! Memory, as the kernel tells it.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_tests::node::Node;

/// Bytes of memory.
pub(super) struct Space;

impl Space {
    /// What could still be had on this machine, once all is back that was given back.
    pub(super) fn available() -> Result<f64> {
        thread::sleep(Duration::from_secs(2));
        kilobytes("/proc/meminfo", "MemAvailable:")
    }

    /// Of the processes in a node's sandboxes; what several have counts once, in shares.
    pub(super) fn of_sandboxes(node: &Node) -> Result<f64> {
        let mut sum = 0.0;
        for (pid, _) in node.remains()?.processes {
            sum += kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        }
        Ok(sum)
    }
}

fn kilobytes(file: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    let kilobytes: f64 = value
        .with_context(|| format!("{file} has no {field}"))?
        .parse()?;
    Ok(kilobytes * 1024.0)
}
