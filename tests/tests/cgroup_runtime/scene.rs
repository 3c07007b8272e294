//! A subtree of the test's own, and programs in its cgroups.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::cgroup::{Cgroup, Layout, Name, Place, Subtree, Version};
use hearth_tests::cgroup::{Hierarchy, unique};
use hearth_tests::machine::{self, Hold};
use hearth_tests::programs;

pub(crate) const MIB: u64 = 1 << 20;

/// Soon enough: an emulated machine is slow.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = soon();
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(crate) struct Scene {
    pub(crate) layout: Layout,
    pub(crate) subtree: Arc<Subtree>,
    pub(crate) name: String,
    _hold: Hold,
}

impl Scene {
    /// On this host as it is.
    pub(crate) fn new(what: &str) -> Result<Self> {
        Self::on(Layout::discover()?, what)
    }

    /// On this host as it is, and where it is hybrid, on what it is without v2.
    pub(crate) fn each(what: &str) -> Result<Vec<Self>> {
        let whole = Layout::discover()?;
        let mut scenes = Vec::new();
        if whole.is_hybrid() {
            let mut v1 = whole.clone();
            v1.hierarchies
                .retain(|hierarchy| hierarchy.version == Version::V1);
            scenes.push(Self::on(v1, what)?);
        }
        scenes.push(Self::on(whole, what)?);
        Ok(scenes)
    }

    fn on(layout: Layout, what: &str) -> Result<Self> {
        let name = unique(what);
        let hold = machine::shared()?;
        Ok(Self {
            subtree: Subtree::open(&layout, Place::Root, Name::new(&name)?)?,
            layout,
            name,
            _hold: hold,
        })
    }

    pub(crate) fn group(&self, name: &str) -> Result<Cgroup> {
        Ok(Cgroup::create(&self.subtree, Name::new(name)?)?)
    }

    /// Where the kernel shows a group's directory with the memory controller.
    pub(crate) fn memory(&self, group: &str) -> Result<PathBuf> {
        Ok(Hierarchy::memory()?.mount.join(&self.name).join(group))
    }

    /// Where it shows it in every hierarchy.
    pub(crate) fn directories(&self, group: &str) -> Vec<PathBuf> {
        let mounts = self
            .layout
            .hierarchies
            .iter()
            .map(|hierarchy| &hierarchy.mount);
        let all = mounts.map(|mount| mount.join(&self.name).join(group));
        all.filter(|directory| directory.exists()).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for name in self.subtree.names().unwrap_or_default() {
            let gone = Cgroup::open(&self.subtree, name)
                .and_then(|group| group.kill(soon()).and_then(|()| group.delete(soon())));
            if let Err(error) = gone {
                eprintln!("left behind: {error}");
            }
        }
        if let Err(error) = self.subtree.remove() {
            eprintln!("left behind: {error}");
        }
    }
}

/// A program in a cgroup; killed and reaped when dropped.
pub(crate) struct Tenant {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Tenant {
    /// Starts it in the group, where it waits.
    pub(crate) fn waiting(group: &Cgroup, arguments: &[&str]) -> Result<Self> {
        let program = programs::c_static("tenant")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a tenant")?;
        let stdin = child.stdin.take();
        let tenant = Self { child, stdin };
        group.attach(tenant.pid()?)?;
        Ok(tenant)
    }

    /// Starts it in the group, and lets it do what it is told.
    pub(crate) fn start(group: &Cgroup, arguments: &[&str]) -> Result<Self> {
        let mut tenant = Self::waiting(group, arguments)?;
        let mut stdin = tenant.stdin.take().context("its standard input")?;
        stdin.write_all(b"x").context("let it begin")?;
        Ok(tenant)
    }

    /// The same, to its end.
    pub(crate) fn run(group: &Cgroup, arguments: &[&str]) -> Result<ExitStatus> {
        Self::start(group, arguments)?.wait()
    }

    pub(crate) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("wait for a tenant")
    }

    /// The first line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("its standard output")?;
        let mut line = String::new();
        let mut byte = [0];
        while stdout.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0].into());
        }
        Ok(line)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number that a counting tenant has come to.
pub(crate) fn counted(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// A file of the kernel, without the newline.
pub(crate) fn read(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim_end().to_owned())
}
