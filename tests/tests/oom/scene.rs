//! A cgroup that is too small, and the victims in it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::cgroup::{Cgroup, Hierarchy};
use hearth_tests::child;
use hearth_tests::report::ReportFile;
use serde::Deserialize;

/// Room for a small program and little more.
pub(crate) const LIMIT: u64 = 32 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// What a victim knew of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Victim {
    pub(crate) pid: u32,
    /// Where the function begins that it died in.
    pub(crate) begin: u64,
    /// Where that ends.
    pub(crate) end: u64,
    /// The addresses that its callers would have gone on at, innermost first.
    pub(crate) callers: Vec<u64>,
}

/// The cgroup.
pub(crate) struct Scene {
    pub(crate) cgroup: Cgroup,
    pub(crate) v2: bool,
    reports: ReportFile,
}

impl Scene {
    pub(crate) fn new(what: &str) -> Result<Self> {
        let hierarchy = Hierarchy::memory()?;
        if hierarchy.v2 {
            let control = hierarchy.mount.join("cgroup.subtree_control");
            fs::write(control, "+memory").context("hand the memory controller down")?;
        }
        let cgroup = Cgroup::create(what)?;
        let scene = Self {
            cgroup,
            v2: hierarchy.v2,
            reports: ReportFile::new()?,
        };
        let file = if hierarchy.v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        scene.write(file, &LIMIT.to_string())?;
        Ok(scene)
    }

    pub(crate) fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.cgroup.directory.join(file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }

    /// As [`Scene::kill`], in the cgroup above it: the machine itself is what is short.
    pub(crate) fn kill_for_the_machine(&self, program: &[PathBuf]) -> Result<Victim> {
        let above = self.cgroup.directory.parent().context("a cgroup above")?;
        let mut line = Command::new(&program[0]);
        line.arg("global")
            .arg(above.join("cgroup.procs"))
            .arg(self.reports.path());
        child::run(&mut line, PATIENCE)?;
        let victim = self.victims()?.pop();
        victim.context("it told nothing of itself")
    }

    /// Kills in it, by the kernel's own count.
    pub(crate) fn kills(&self) -> Result<u64> {
        let file = if self.v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let path = self.cgroup.directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.with_context(|| format!("{} counts no kills", path.display()))?
            .trim()
            .parse()
            .context("a count")
    }

    /// The line of a victim.
    pub(crate) fn command(&self, program: &[PathBuf], mode: &str) -> Command {
        let mut line = Command::new(&program[0]);
        line.args(&program[1..])
            .arg(mode)
            .arg(self.cgroup.directory.join("cgroup.procs"))
            .arg(self.reports.path());
        line
    }

    /// Lets a victim die; what it knew of itself.
    pub(crate) fn kill(&self, program: &[PathBuf], mode: &str) -> Result<Victim> {
        child::run(&mut self.command(program, mode), PATIENCE)?;
        let victims = self.victims()?;
        let last = victims.last().context("it told nothing of itself")?;
        Ok(last.clone())
    }

    /// What victims know of themselves that have not died yet, when there are `count`.
    pub(crate) fn waiting(&self, count: usize) -> Result<Vec<Victim>> {
        let begin = Instant::now();
        loop {
            let victims = self.victims().unwrap_or_default();
            if victims.len() == count {
                return Ok(victims);
            }
            ensure!(begin.elapsed() < PATIENCE, "{} victims", victims.len());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the victims knew of themselves.
    pub(crate) fn victims(&self) -> Result<Vec<Victim>> {
        self.reports.lines()
    }
}
