//! A cgroup with a limit, in which programs are killed for want of memory.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cgroup::Cgroup;
use crate::programs::Leak;

/// Its limit, bytes.
pub const LIMIT: u64 = 24 << 20;

/// The cgroup; removed when dropped.
#[derive(Debug)]
pub struct Pen {
    /// Which one.
    pub cgroup: Cgroup,
}

impl Pen {
    /// Makes one.
    pub fn new(what: &str) -> Result<Self> {
        let cgroup = Cgroup::create(what)?;
        let files = ["memory.max", "memory.limit_in_bytes"];
        let files = files.map(|name| cgroup.directory.join(name));
        let file = files.iter().find(|file| file.exists()).context("a limit")?;
        fs::write(file, LIMIT.to_string()).context("set a limit")?;
        Ok(Self { cgroup })
    }

    /// Runs `leak` until it is killed; its process id.
    pub fn kill(&self, leak: &Leak) -> Result<u32> {
        let procs = self.cgroup.directory.join("cgroup.procs");
        let enter = format!(
            "echo $$ > {}; exec {} --token=hunter2",
            procs.display(),
            leak.program.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &enter])
            .stderr(Stdio::null())
            .spawn()
            .context("run the leak")?;
        let pid = child.id();
        let status = child.wait().context("wait for the leak")?;
        ensure!(status.signal() == Some(9), "it ended with {status}");
        Ok(pid)
    }
}
