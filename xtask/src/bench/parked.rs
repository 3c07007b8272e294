//! Processes that sleep, as a parked `hearth-init` does.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::programs;

/// They are gone when this is dropped, and when this process is.
pub(crate) struct Parked {
    parent: Child,
    pids: Vec<i32>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

impl Parked {
    /// As many as that.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let mut parent = Command::new(programs::c_static("sleepers")?)
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start parked processes")?;
        let stdout = parent.stdout.take();
        let mut parked = Self {
            parent,
            pids: Vec::new(),
        };
        for line in BufReader::new(stdout.context("nothing to read from")?).lines() {
            parked.pids.push(line?.parse().context("a process id")?);
        }
        ensure!(
            parked.pids.len() == count,
            "{} of {count} processes could be started: see kernel.threads-max",
            parked.pids.len()
        );
        Ok(parked)
    }

    /// Their numbers.
    pub(crate) fn pids(&self) -> &[i32] {
        &self.pids
    }
}
