//! Processes and cgroups of a node, as the kernel has them.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Result;
use hearth_tests::cgroup;
use hearth_tests::serving::Serving;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

pub(crate) fn descriptors(serving: &Serving) -> Result<usize> {
    let pid = serving.node.spawner_pid()?;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The memory that the sandbox in a slot may have, as the kernel has it; none where it is gone, and
/// its slot has no limit any more or that of another one.
pub(crate) fn limit(node: &str, slot: &str, init: u64) -> Option<u64> {
    let mounts = cgroup::mounts().ok()?;
    let files = mounts.iter().flat_map(|mount| {
        let slot = mount.join(node).join(slot);
        ["memory.limit_in_bytes", "memory.max"].map(|file| slot.join(file))
    });
    let mut limits = files.filter_map(|file| fs::read_to_string(file).ok());
    let limit = limits.find_map(|text| text.trim().parse().ok())?;
    // It was there when that was read.
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).ok()?;
    let is_there = cgroup.contains(&format!("/{node}/{slot}")) && is_alive(init);
    is_there.then_some(limit)
}

/// Whether a process has not ended. One that has and was not waited for yet still names its cgroup
/// of v2, which nobody is in any more: its slot may be clean.
fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// The only child of the first process of a sandbox, if it is there yet.
pub(crate) fn child(init: u64) -> Option<u64> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Signals a process of this node; one that is gone needs no signal.
pub(crate) fn kill(pid: u64, node: &str, signal: Signal) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(process) = process else {
        return false;
    };
    // Whoever has the number now is the one that is held.
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroup.contains(&format!("/{node}/slot-")) && pidfd_send_signal(process, signal).is_ok()
}

#[test]
fn who_has_ended_is_not_alive_though_nobody_waited_for_it() -> Result<()> {
    assert!(is_alive(u64::from(std::process::id())));
    let mut child = Command::new("/proc/self/exe")
        .arg("--list")
        .stdout(Stdio::null())
        .spawn()?;
    let pid = Pid::from_child(&child);
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    let is_alive = is_alive(u64::from(child.id()));
    child.wait()?;
    assert!(!is_alive);
    Ok(())
}
