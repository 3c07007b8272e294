//! What this kernel, and this process, can do.

use std::fs;

use serde::Serialize;

use super::btf::VMLINUX;

/// Facts that explain refusals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the kernel publishes its types.
    pub has_btf: bool,
    /// Whether lockdown is on; `None` where the kernel does not say.
    pub lockdown: Option<String>,
    /// Whether kprobes are compiled in.
    pub has_kprobes: bool,
    /// Capabilities that loading needs and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether the cgroup v2 hierarchy carries the memory controller, or v1's does.
    pub memory_hierarchy: Option<&'static str>,
}

impl Capability {
    /// Of this kernel and process.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|release| release.trim().to_owned())
                .unwrap_or_default(),
            has_btf: fs::metadata(VMLINUX).is_ok(),
            lockdown: lockdown(),
            has_kprobes: fs::metadata("/sys/bus/event_source/devices/kprobe").is_ok(),
            missing_capabilities: missing_capabilities(),
            memory_hierarchy: memory_hierarchy(),
        }
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let begin = text.find('[')?;
    let end = text[begin..].find(']')?;
    Some(text[begin + 1..begin + end].to_owned())
}

/// Whether lockdown is known to be on.
#[must_use]
pub fn locked_down() -> bool {
    lockdown().is_some_and(|mode| mode != "none")
}

fn missing_capabilities() -> Vec<&'static str> {
    use caps::{CapSet, Capability as Cap, has_cap};
    // CAP_SYS_ADMIN stands for both, as in kernels before 5.8.
    let has = |cap| has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    if has(Cap::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(Cap::CAP_BPF, "CAP_BPF"), (Cap::CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter_map(|(cap, name)| (!has(cap)).then_some(name))
        .collect()
}

fn memory_hierarchy() -> Option<&'static str> {
    // Columns: name, hierarchy id (0 is v2), cgroups, enabled.
    let text = fs::read_to_string("/proc/cgroups").ok()?;
    let line = text
        .lines()
        .find(|line| line.split('\t').next() == Some("memory"));
    let Some(line) = line else {
        // 6.12 without v1 support lists no memory controller here.
        let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok()?;
        return controllers
            .split_whitespace()
            .any(|name| name == "memory")
            .then_some("v2");
    };
    Some(if line.split('\t').nth(1)? == "0" {
        "v2"
    } else {
        "v1"
    })
}
