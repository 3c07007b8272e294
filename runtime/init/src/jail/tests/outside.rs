//! What the node sees of a function.

use std::collections::BTreeMap;
use std::fs;

use super::scene::{Running, layer, script, spawn};

/// Of `/proc/PID/status`.
fn status(pid: u32) -> BTreeMap<String, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn namespace(pid: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

/// A function that says something and then waits to be ended.
fn waiting(layer: &std::path::Path) -> Running {
    let mut running = spawn(&script(layer, "echo here; sleep 1000")).unwrap();
    assert_eq!(running.says(), "here");
    running
}

#[test]
fn no_namespace_of_it_is_the_nodes() {
    let layer = layer();
    let running = waiting(layer.path());
    let function = running.function().to_string();
    let init = running.init.to_string();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let here = namespace("self", kind);
        assert_ne!(namespace(&function, kind), here, "{kind} of the function");
        // Its clocks are the function's alone: those of `hearth-init` go on.
        if kind != "time" {
            assert_ne!(namespace(&init, kind), here, "{kind} of hearth-init");
        }
    }
}

#[test]
fn it_has_a_user_of_its_own_and_no_power_at_all() {
    let layer = layer();
    let running = waiting(layer.path());
    let user = running.user;
    let function = status(running.function());
    assert_eq!(function["Uid"], format!("{user}\t{user}\t{user}\t{user}"));
    assert_eq!(function["Gid"], format!("{user}\t{user}\t{user}\t{user}"));
    assert_eq!(function["Groups"].trim(), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(function[set], "0000000000000000", "{set}");
    }
    assert_eq!(function["NoNewPrivs"], "1");
    assert_eq!(function["Seccomp"], "2");
}

#[test]
fn hearth_init_keeps_one_capability_and_only_inside() {
    let layer = layer();
    let running = waiting(layer.path());
    let user = running.user - 1;
    let init = status(running.init);
    assert_eq!(init["Uid"], format!("{user}\t{user}\t{user}\t{user}"));
    assert_eq!(init["Groups"].trim(), "");
    // CAP_KILL, of its user namespace.
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(init[set], "0000000000000020", "{set}");
    }
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(init[set], "0000000000000000", "{set}");
    }
    assert_eq!(init["NoNewPrivs"], "1");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", running.init)).unwrap();
    let map: Vec<u32> = map
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(map, [0, user, 1, 1000, user + 1, 1]);
    // Its memory and descriptors are for the node's root only, not for a user of the same number.
    let owner = fs::metadata(format!("/proc/{}/mem", running.init)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

#[test]
fn it_has_three_descriptors_and_the_nodes_mounts_are_not_there() {
    let layer = layer();
    let running = waiting(layer.path());
    let function = running.function();
    let descriptors = fs::read_dir(format!("/proc/{function}/fd")).unwrap();
    let mut descriptors: Vec<_> = descriptors
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    descriptors.sort();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let mounts = fs::read_to_string(format!("/proc/{function}/mountinfo")).unwrap();
    let at = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
    let mut places: Vec<_> = mounts.lines().map(at).collect();
    places.retain(|place| !place.starts_with("/proc/"));
    places.sort();
    assert_eq!(places, ["/", "/dev", "/dev/shm", "/proc"], "{mounts}");
}

#[test]
fn nothing_is_left_when_it_is_gone() {
    let layer = layer();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let running = waiting(layer.path());
    let pids = [running.init, running.function()];
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    drop(running);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    for pid in pids {
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid}");
    }
}
