//! A node with sandboxes on it: their cgroups, each with a process that sleeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hearth_runtime::cgroup::limits::{Cpu, Memory, Pids};
use hearth_runtime::cgroup::{Cgroup, Layout, Limits, Name, Place, Subtree};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::plain::Plain;
use super::{CPU_QUOTA_US, MEMORY, PERIOD_US, PIDS, SUBTREE};
use crate::bench::parked::Parked;

/// Where processes are that are in no sandbox.
pub(super) const HOME: &str = "home";

/// How long one cgroup may take to be emptied and removed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Our part of the machine's cgroups; what is in it is removed when this is dropped, and what a run
/// that was killed has left is removed when the next one begins.
pub(super) struct Node {
    pub(super) subtree: Arc<Subtree>,
    pub(super) plain: Plain,
    pub(super) limits: Limits,
    others: Parked,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = sweep(&self.subtree) {
            eprintln!("cgroups {SUBTREE} are left: {error:#}");
        }
    }
}

impl Node {
    /// With as many sandboxes.
    pub(super) fn new(others: usize) -> Result<Self> {
        // Each slot keeps a dozen files open.
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum;
        setrlimit(Resource::Nofile, files).context("raise the limit of open files")?;

        let layout = Layout::discover()?;
        let open = || Subtree::open(&layout, Place::Root, Name::new(SUBTREE)?);
        sweep(&open()?).context("remove what an earlier run left")?;
        let subtree = open()?;
        let limits = Limits::default()
            .memory(Memory::new(MEMORY)?)
            .cpu(Cpu::new(CPU_QUOTA_US, PERIOD_US)?)
            .pids(Pids::new(PIDS)?)
            .oom_group();
        let node = Self {
            plain: Plain::new(&layout, &subtree),
            subtree,
            limits,
            others: Parked::start(others)?,
        };
        node.plain.make(HOME)?;
        for (number, &pid) in node.others.pids().iter().enumerate() {
            let name = format!("other-{number}");
            node.plain.make(&name)?;
            node.plain.configure(&name)?;
            node.plain.attach(&name, pid)?;
        }
        Ok(node)
    }

    /// Processes that are in no sandbox yet.
    pub(super) fn park(&self, count: usize) -> Result<Parked> {
        let parked = Parked::start(count)?;
        for &pid in parked.pids() {
            self.plain.attach(HOME, pid)?;
        }
        Ok(parked)
    }

    /// Removes all of it, and says what could not be.
    pub(super) fn close(self) -> Result<()> {
        sweep(&self.subtree)
    }
}

/// Ends all processes in it, and removes it.
fn sweep(subtree: &Arc<Subtree>) -> Result<()> {
    for name in subtree.names()? {
        let cgroup = Cgroup::open(subtree, name)?;
        cgroup.kill(Instant::now() + PATIENCE)?;
        cgroup.delete(Instant::now() + PATIENCE)?;
    }
    Ok(subtree.remove()?)
}
