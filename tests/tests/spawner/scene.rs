//! A spawner whose sandboxes obey.

use std::fs;
use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::Claimed;
use hearth_tests::machine::{self, Hold};
use hearth_tests::node::{Node, PATIENCE, Remains};
use hearth_tests::{cgroup, programs};

pub(crate) const MIB: u64 = 1 << 20;

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(crate) struct Scene {
    node: Node,
    _hold: Hold,
}

impl Deref for Scene {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Scene {
    /// With a spawner and so many parked sandboxes.
    pub(crate) fn new(what: &str, slots: u16) -> Result<Self> {
        let mut scene = Self::empty(what)?;
        scene.node.start_spawner(slots)?;
        scene.node.parked(slots.into())?;
        Ok(scene)
    }

    /// Without one.
    pub(crate) fn empty(what: &str) -> Result<Self> {
        Ok(Self {
            _hold: machine::shared()?,
            node: Node::new(what, Some(programs::c_static("parked")?))?,
        })
    }

    pub(crate) fn claim(&self, resources: Resources) -> Result<Claimed> {
        Ok(self.spawner()?.claim("resize".parse()?, resources)?)
    }

    /// Has the first process of a sandbox do something, and waits until it is done.
    pub(crate) fn order(&self, sandbox: SandboxId, order: u8) -> Result<()> {
        let mut stream = UnixStream::connect(self.places().sandbox(sandbox))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[order])?;
        stream.read_exact(&mut [0]).context("it ended")
    }

    /// Where the kernel shows a slot, in each hierarchy that has it.
    pub(crate) fn directories(&self, slot: &str) -> Result<Vec<PathBuf>> {
        let mounts = cgroup::mounts()?.into_iter();
        let all = mounts.map(|mount| mount.join(self.name()).join(slot));
        Ok(all.filter(|directory| directory.exists()).collect())
    }

    /// Waits until no more is left than what so many parked ones have.
    pub(crate) fn only_parked(&self, count: usize) -> Result<()> {
        until("all but the parked ones are gone", || {
            let Remains {
                processes, sockets, ..
            } = self.remains()?;
            let slots = self.spawner()?.slots()?;
            Ok(processes.len() == count && sockets.len() == count && slots.waiting == 0)
        })
    }
}

/// A file of the kernel, without the newline.
pub(crate) fn read(file: impl Into<PathBuf>) -> Result<String> {
    let file = file.into();
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim_end().to_owned())
}
