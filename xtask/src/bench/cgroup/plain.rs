//! Cgroups as most who start containers handle them: by path, each file opened, written, closed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hearth_runtime::cgroup::{Controller, Layout, Subtree, Version};

use super::{CPU_QUOTA_US, MEMORY, PERIOD_US, PIDS, SUBTREE};

/// Our part of every hierarchy in which a slot has a cgroup, and what is written there.
pub(super) struct Plain {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Clone)]
struct Hierarchy {
    folder: PathBuf,
    version: Version,
    limits: Vec<(&'static str, String)>,
}

impl Hierarchy {
    fn configure(&self, cgroup: &Path) -> io::Result<()> {
        let mut limits = self.limits.iter();
        limits.try_for_each(|(file, text)| fs::write(cgroup.join(file), text))
    }
}

impl Plain {
    /// The same hierarchies and the same limits as those of slots.
    pub(super) fn new(layout: &Layout, subtree: &Subtree) -> Self {
        let mut hierarchies = Vec::new();
        for hierarchy in &layout.hierarchies {
            let folder = hierarchy.mount.join(SUBTREE);
            if !folder.is_dir() {
                continue;
            }
            let version = hierarchy.version;
            // On a hybrid host v2 carries none of them.
            let has = |controller| {
                subtree.carrier(controller) == Some(version)
                    && (version == Version::V2 || hierarchy.controllers.contains(&controller))
            };
            let all = [Controller::Memory, Controller::Cpu, Controller::Pids];
            let limits = all.into_iter().filter(|controller| has(*controller));
            hierarchies.push(Hierarchy {
                folder,
                version,
                limits: limits.flat_map(|of| limits_of(of, version)).collect(),
            });
        }
        Self { hierarchies }
    }

    /// Those in which a cgroup can be renamed: v2 refuses. None where there is none.
    pub(super) fn v1(&self) -> Option<Self> {
        let is_v1 = |hierarchy: &&Hierarchy| hierarchy.version == Version::V1;
        let hierarchies: Vec<_> = self.hierarchies.iter().filter(is_v1).cloned().collect();
        (!hierarchies.is_empty()).then_some(Self { hierarchies })
    }

    /// A new cgroup in every hierarchy.
    pub(super) fn make(&self, name: &str) -> Result<()> {
        self.each(name, |_, path| fs::create_dir(path))
            .context("make a cgroup")
    }

    /// Gives it another name, as `RunD` does when it takes one from its pool.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.each(from, |_, path| fs::rename(path, path.with_file_name(to)))
            .context("rename a cgroup")
    }

    /// Writes its limits, and reads nothing back.
    pub(super) fn configure(&self, name: &str) -> Result<()> {
        self.each(name, Hierarchy::configure)
            .context("configure a cgroup")
    }

    /// Puts a process into it.
    pub(super) fn attach(&self, name: &str, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.each(name, |_, path| fs::write(path.join("cgroup.procs"), &pid))
            .context("attach a process")
    }

    /// Removes it wherever it is.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.each(name, |_, path| match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .context("remove a cgroup")
    }

    fn each(
        &self,
        name: &str,
        mut act: impl FnMut(&Hierarchy, &Path) -> io::Result<()>,
    ) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let path = hierarchy.folder.join(name);
            act(hierarchy, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn limits_of(controller: Controller, version: Version) -> Vec<(&'static str, String)> {
    match (controller, version) {
        (Controller::Memory, Version::V1) => vec![("memory.limit_in_bytes", MEMORY.to_string())],
        (Controller::Memory, Version::V2) => vec![
            ("memory.high", (MEMORY / 8 * 7).to_string()),
            ("memory.max", MEMORY.to_string()),
            ("memory.oom.group", "1".to_owned()),
        ],
        (Controller::Cpu, Version::V1) => vec![
            ("cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", CPU_QUOTA_US.to_string()),
        ],
        (Controller::Cpu, Version::V2) => {
            vec![("cpu.max", format!("{CPU_QUOTA_US} {PERIOD_US}"))]
        }
        (Controller::Pids, _) => vec![("pids.max", PIDS.to_string())],
        _ => Vec::new(),
    }
}
