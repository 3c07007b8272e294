//! Threads that make and remove cgroups as fast as they can, in a cgroup of their own.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cgroup::Cgroup;
use crate::programs;

/// Threads of a storm.
pub const THREADS: u64 = 8;

/// What a storm says of itself.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Told {
    /// Cgroups made and removed.
    pub cycles: u64,
    /// When it began, `CLOCK_BOOTTIME` ns.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

impl Told {
    /// The longest time that its threads can have waited for anything, all together, ns.
    #[must_use]
    pub fn time(&self) -> u64 {
        THREADS * (self.end_ns - self.begin_ns)
    }
}

/// A storm that runs; killed when dropped.
#[derive(Debug)]
pub struct Storm {
    child: Child,
    /// The cgroup that its threads are in.
    pub home: Cgroup,
    _field: Cgroup,
}

impl Storm {
    /// Begins one for so many milliseconds: each thread in a directory of its `own`, or all in one
    /// that is `shared`; with `attach`ing a process, or only to `make` cgroups.
    pub fn start(parents: &str, work: &str, milliseconds: u64) -> Result<Self> {
        let (home, field) = (Cgroup::create("storm")?, Cgroup::create("field")?);
        let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let threads = THREADS.to_string();
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(&home.directory)
            .arg(programs::c("cgroup_storm")?)
            .arg(&field.directory)
            .args([parents, work, &threads, &milliseconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("start a storm")?;
        Ok(Self {
            child,
            home,
            _field: field,
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; what it says of itself, and the cgroup that its threads were in.
    pub fn finish(mut self) -> Result<Told> {
        let mut text = String::new();
        let mut out = self.child.stdout.take().context("its output")?;
        out.read_to_string(&mut text).context("read what it says")?;
        let status = self.child.wait().context("wait for it")?;
        serde_json::from_str(text.trim()).with_context(|| format!("{status}: {text}"))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
