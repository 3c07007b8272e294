//! The file systems and the network of a node.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use hearth_vm_init::OUT;
use rustix::mount::{MountFlags, mount as mount_one};

/// In this order; (file system, where).
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
];

const CGROUP: &str = "/sys/fs/cgroup";

pub(crate) fn mount() -> Result<()> {
    for &(kind, place) in MOUNTS {
        // Below /sys the places are made by the kernel; making them fails and that is right.
        let _ = fs::create_dir_all(place);
        mount_one(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    fs::create_dir_all(OUT)?;
    delegate_controllers()?;
    // Servers of the tests listen on loopback.
    let up = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .status()?;
    if !up.success() {
        bail!("cannot bring loopback up: busybox ended with {up}");
    }
    Ok(())
}

/// Lets groups below the root have every controller, as a service manager does.
fn delegate_controllers() -> Result<()> {
    let controllers = fs::read_to_string(format!("{CGROUP}/cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(
            format!("{CGROUP}/cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("cannot switch the controller {controller} on"))?;
    }
    Ok(())
}
