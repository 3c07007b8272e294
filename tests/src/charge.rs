//! Memory that a cgroup is charged for, for as long as a test needs it.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::cgroup::Cgroup;
use crate::child::Guard;

/// Shared memory that is charged to a cgroup, and a process in it that does nothing else.
#[derive(Debug)]
pub struct Charge {
    _memory: OwnedFd,
    _process: Guard,
}

impl Charge {
    /// Charges `bytes` to `cgroup`, soon.
    pub fn to(cgroup: &Cgroup, bytes: u64) -> Result<Self> {
        let memory = memfd_create("charge", MemfdFlags::CLOEXEC).context("make memory")?;
        // Whoever writes first to a page pays for it.
        let line = format!("echo $$ > \"$0\" && head -c {bytes} /dev/zero && exec sleep 600");
        let process = Command::new("/bin/sh")
            .args(["-c", &line])
            .arg(cgroup.directory.join("cgroup.procs"))
            .stdin(Stdio::null())
            .stdout(memory.try_clone().context("share the memory")?)
            .spawn()
            .context("start a shell")?;
        Ok(Self {
            _memory: memory,
            _process: Guard(process),
        })
    }
}
