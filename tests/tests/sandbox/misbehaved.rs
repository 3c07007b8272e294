//! Functions that make trouble for the `hearth-init` that looks after them, or for the node.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_runtime::sandbox::message::fault;
use hearth_runtime::sandbox::start::Start;
use hearth_tests::node::{Language, Node, PATIENCE};
use hearth_tests::programs;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use serde_json::json;

use crate::scene::{Instance, resources};

/// Puts the program into a layer.
fn fill(layer: &Path) -> Result<()> {
    fs::copy(programs::c_static("misbehave")?, layer.join("misbehave"))?;
    Ok(())
}

fn start(layer: &Path, how: &str) -> Result<Start> {
    let mut start = Language::Shell.start()?;
    start.root.layers = vec![layer.to_owned()];
    start.program.command = vec!["/misbehave".into(), how.into()];
    Ok(start)
}

/// Lets it misbehave until its end, which must be told as it was; what it wrote.
fn misbehave(node: &Node, how: &str, left: Duration, end: &str) -> Result<String> {
    let layer = tempfile::tempdir()?;
    fill(layer.path())?;
    let mut instance = Instance::ready(node, &start(layer.path(), how)?)?;
    let (kind, said) = instance.failure(&json!({}), left)?;
    assert_eq!(kind, end, "{how}: {said}");
    let log = instance.log.clone();
    let ended = instance.end()?;
    assert_eq!(ended.oom_kills, Some(0), "{how}: {ended:?}");
    Ok(log)
}

/// It is of the function's memory, and would be what is killed first where it holds the most.
#[test]
fn a_function_cannot_make_its_init_hold_what_it_likes() -> Result<()> {
    let node = Node::start("holds", 1)?;
    for how in ["deaf", "bodies"] {
        misbehave(&node, how, Duration::from_secs(4), fault::TIMED_OUT)?;
    }
    Ok(())
}

#[test]
fn bytes_in_sockets_are_memory_of_the_function() -> Result<()> {
    let node = Node::start("sockets", 1)?;
    let layer = tempfile::tempdir()?;
    fill(layer.path())?;
    let mut instance = Instance::ready(&node, &start(layer.path(), "sockets")?)?;
    let told = instance.failure(&json!({}), PATIENCE);
    let log = instance.log.clone();
    // Where they are counted with all other memory, more of them may be a kill.
    if instance.end()?.oom_kills == Some(0) {
        assert_eq!(told?.0, fault::EXITED);
        let sent: u64 = log.trim().parse()?;
        let limit = resources().memory_bytes.context("it has a limit")?;
        assert!(sent > 1 << 20 && sent < 2 * limit, "{sent} of {limit}");
    }
    Ok(())
}

/// A service manager may have the spawner killed last; functions are not it.
#[test]
fn a_function_cannot_take_the_spawners_place_in_the_order_of_oom_kills() -> Result<()> {
    let node = Node::start("score", 0)?;
    let spawner = format!("/proc/{}/oom_score_adj", node.spawner_pid()?);
    if let Err(error) = fs::write(spawner, "-900") {
        eprintln!("not tried without CAP_SYS_RESOURCE: {error}");
        return Ok(());
    }
    let least = misbehave(&node, "score", PATIENCE, fault::EXITED)?;
    assert_eq!(least.trim(), "0");
    Ok(())
}

/// A file system of the node that parked sandboxes see as the node does.
struct Shared(tempfile::TempDir);

impl Shared {
    fn mount() -> Result<Self> {
        let shared = Self(tempfile::tempdir()?);
        mount(
            "hearth",
            shared.0.path(),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        mount_change(shared.0.path(), MountPropagationFlags::SHARED)?;
        Ok(shared)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = unmount(self.0.path().join("later"), UnmountFlags::DETACH);
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn what_waits_parked_follows_the_mounts_of_the_node() -> Result<()> {
    let shared = Shared::mount()?;
    let node = Node::start("mounts", 1)?;
    node.parked(1)?;
    let later = shared.0.path().join("later");
    fs::create_dir(&later)?;
    mount("hearth", &later, "tmpfs", MountFlags::empty(), None)?;
    fill(&later)?;
    // The one that was parked before that.
    let instance = Instance::ready(&node, &start(&later, "score")?)?;
    assert!(instance.claimed.was_parked);
    instance.end()?;
    node.parked(1)?;
    unmount(&later, UnmountFlags::empty())?;
    for (pid, name) in node.remains()?.processes {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        assert!(!mounts.contains("/later "), "{name} keeps it busy");
    }
    Ok(())
}
