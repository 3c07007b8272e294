//! What one run of each of the agent's programs costs, by the kernel's own count.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;

use super::agent::Agent;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel counts runs and their time while this is held: it costs a little on every run.
pub(crate) struct Counting {
    before: String,
}

impl Counting {
    pub(crate) fn start() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("switch {SWITCH} on"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.before.trim());
    }
}

/// Runs and their total time since counting began, by program name.
///
/// Names are as the kernel keeps them: cut at 15 characters.
pub(crate) fn costs(agent: &Agent) -> Result<BTreeMap<String, (u64, Duration)>> {
    let own = agent.program_ids()?;
    let mut costs: BTreeMap<String, (u64, Duration)> = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("list the programs in the kernel")?;
        if own.contains(&program.id()) && program.run_count() > 0 {
            let name = program.name_as_str().unwrap_or("?").to_owned();
            let cost = costs.entry(name).or_default();
            cost.0 += program.run_count();
            cost.1 += program.run_time();
        }
    }
    Ok(costs)
}
