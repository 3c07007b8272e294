//! The part of every hierarchy that is ours: a cgroup with the controllers of its children on.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::dir::Dir;
use super::error::{Error, Result};
use super::layout::{Controller, Hierarchy, Layout, Version};

/// Name of a cgroup: nothing that leads elsewhere, nothing that the kernel names so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Takes 1 to 64 of `a-z`, `A-Z`, `0-9`, `-` and `_`.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=64).contains(&name.len()) && name.bytes().all(is_good) {
            Ok(Self(name))
        } else {
            Err(Error::Name { name })
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Default for Name {
    fn default() -> Self {
        Self("hearth".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Below which cgroup the subtree lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The cgroup of this process: what a service manager delegates.
    Own,
    /// The root of what is mounted.
    Root,
}

/// What sandboxes are limited and accounted by.
const WANTED: [Controller; 5] = [
    Controller::Memory,
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Pids,
    Controller::Io,
];

/// Our cgroup in every hierarchy that sandboxes need; it holds cgroups, and no process.
#[derive(Debug)]
pub struct Subtree {
    name: Name,
    parents: Vec<Dir>,
    pub(super) dirs: Vec<Dir>,
}

impl Subtree {
    /// Makes it, or takes the one that is there, with the controllers of its children on.
    pub fn open(layout: &Layout, place: Place, name: Name) -> Result<Arc<Self>> {
        let has_v2 = layout.v2().is_some();
        let is_needed = |hierarchy: &&Hierarchy| match hierarchy.version {
            Version::V2 => true,
            // v2 freezes better. No cgroup is made in `cpuset`, where one cannot be entered
            // until it has been given processors.
            Version::V1 => hierarchy.controllers.iter().any(|controller| {
                WANTED.contains(controller) || (*controller == Controller::Freezer && !has_v2)
            }),
        };
        let mut subtree = Self {
            name,
            parents: Vec::new(),
            dirs: Vec::new(),
        };
        for hierarchy in layout.hierarchies.iter().filter(is_needed) {
            let parent = base(hierarchy, place)?;
            parent.make_if_missing(subtree.name.as_path())?;
            let mut dir = parent.child(subtree.name.as_path())?;
            if hierarchy.version == Version::V2 {
                delegate(&parent)?;
                dir.controllers = delegate(&dir)?;
            }
            subtree.parents.push(parent);
            subtree.dirs.push(dir);
        }
        Ok(Arc::new(subtree))
    }

    /// Which hierarchy carries a controller for cgroups in it; `None` where none does.
    #[must_use]
    pub fn carrier(&self, controller: Controller) -> Option<Version> {
        let carries = |dir: &&Dir| dir.controllers.contains(&controller);
        self.dirs.iter().find(carries).map(|dir| dir.version)
    }

    /// Whether cgroups in it are in a v2 hierarchy, be it without controllers.
    #[must_use]
    pub fn has_v2(&self) -> bool {
        self.dirs.iter().any(|dir| dir.version == Version::V2)
    }

    /// In how many hierarchies it is: so many directories each cgroup in it keeps open.
    #[must_use]
    pub fn hierarchies(&self) -> usize {
        self.dirs.len()
    }

    /// Keeps all others who ask for the same from it, for as long as this value is there: two must
    /// not look after the same cgroups. Whether nobody else has it.
    pub fn lock(&self) -> Result<bool> {
        let Some(dir) = self.dirs.first() else {
            return Ok(true);
        };
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(super::dir::fault("lock", &dir.path, errno)),
        }
    }

    /// The names of the cgroups in it, in any of its hierarchies.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for dir in &self.dirs {
            let children = dir.children()?.into_iter();
            names.extend(children.filter_map(|name| Name::new(name.to_str()?).ok()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Removes it from every hierarchy; it must be empty.
    pub fn remove(&self) -> Result<()> {
        for (parent, dir) in self.parents.iter().zip(&self.dirs) {
            parent
                .remove(self.name.as_path(), dir)
                .map_err(|errno| super::dir::fault("remove", &dir.path, errno))?;
        }
        Ok(())
    }
}

/// Moves this process from its own v2 cgroup into a leaf below it, so that the cgroup may have
/// children with controllers. Nothing to do on a host without v2, or in the root.
pub fn step_down(layout: &Layout, leaf: &Name) -> Result<()> {
    let Some(v2) = layout.v2() else {
        return Ok(());
    };
    let own = base(v2, Place::Own)?;
    if v2.own.as_deref() == Some(Path::new("")) {
        return Ok(());
    }
    own.make_if_missing(leaf.as_path())?;
    own.child(leaf.as_path())?
        .attach(rustix::process::getpid().as_raw_nonzero().get())
}

/// The cgroup below which a subtree lies.
fn base(hierarchy: &Hierarchy, place: Place) -> Result<Dir> {
    let mut dir = Dir::root(hierarchy)?;
    if place == Place::Root {
        return Ok(dir);
    }
    let unreachable = || Error::Unreachable {
        path: hierarchy.mount.clone(),
    };
    let own: &PathBuf = hierarchy.own.as_ref().ok_or_else(unreachable)?;
    for part in own.components() {
        let Component::Normal(part) = part else {
            return Err(unreachable());
        };
        dir = dir.child(Path::new(part))?;
    }
    Ok(dir)
}

/// Switches on for the children of a v2 cgroup what of the wanted it may; those that are on.
fn delegate(dir: &Dir) -> Result<Vec<Controller>> {
    let offered = dir.read("cgroup.controllers")?;
    let on = dir.read("cgroup.subtree_control")?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    let mut delegated = Vec::new();
    for controller in WANTED {
        let Some(name) = controller
            .name(Version::V2)
            .filter(|name| has(&offered, name))
        else {
            continue;
        };
        if !has(&on, name) {
            match dir.write("cgroup.subtree_control", &format!("+{name}")) {
                Err(error) if error.is(Errno::BUSY) => {
                    return Err(Error::Occupied {
                        path: dir.path.clone(),
                        pids: dir.procs()?,
                    });
                }
                written => written?,
            }
        }
        delegated.push(controller);
    }
    Ok(delegated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "memory.max",
            "a b",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in ["slot-0001", "a", "A_9"] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
    }
}
