//! The cgroup of one sandbox: one directory in every hierarchy, made and removed together.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::dir::{Dir, fault};
use super::error::{Error, Result};
use super::flat;
use super::layout::{Controller, Version};
use super::subtree::{Name, Subtree};

/// A cgroup. It is removed by [`Cgroup::delete`] only: what outlives its owner is found again by
/// [`Subtree::names`] and [`Cgroup::open`].
#[derive(Debug)]
pub struct Cgroup {
    name: Name,
    subtree: Arc<Subtree>,
    pub(super) dirs: Vec<Dir>,
    /// Whether `cgroup.kill` may have been used on it.
    pub(super) was_killed: AtomicBool,
}

impl Cgroup {
    /// Makes a new one. What was made is undone where one of the hierarchies refuses.
    pub fn create(subtree: &Arc<Subtree>, name: Name) -> Result<Self> {
        let mut made: Vec<&Dir> = Vec::new();
        let mut dirs = Vec::new();
        for parent in &subtree.dirs {
            let child = parent.make(name.as_path()).and_then(|()| {
                made.push(parent);
                parent.child(name.as_path())
            });
            match child {
                Ok(child) => dirs.push(child),
                Err(error) => {
                    for parent in made {
                        parent.unmake(name.as_path());
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self {
            name,
            subtree: Arc::clone(subtree),
            dirs,
            was_killed: AtomicBool::new(false),
        })
    }

    /// Takes one that is there, and makes it anew in the hierarchies in which it is missing.
    pub fn open(subtree: &Arc<Subtree>, name: Name) -> Result<Self> {
        let mut dirs = Vec::new();
        for parent in &subtree.dirs {
            parent.make_if_missing(name.as_path())?;
            dirs.push(parent.child(name.as_path())?);
        }
        Ok(Self {
            name,
            subtree: Arc::clone(subtree),
            dirs,
            was_killed: AtomicBool::new(true),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory for `CLONE_INTO_CGROUP`; `None` where there is no v2 hierarchy, and once
    /// processes in it were killed together: 6.18 compares how often that was done to the cgroup of
    /// the parent and to this one, takes a difference for a kill that came in between, and kills the
    /// child. A process that begins there must still go to [the others](Self::other_fds).
    #[must_use]
    pub fn birth_fd(&self) -> Option<BorrowedFd<'_>> {
        let was_killed = self.was_killed.load(Ordering::Relaxed);
        self.v2().filter(|_| !was_killed).map(|dir| dir.as_fd())
    }

    /// The directories, into each of which a process must go that was not born there.
    pub fn other_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let born_there = self.birth_fd().is_some();
        let is_other = move |dir: &&Dir| !(born_there && dir.version == Version::V2);
        self.dirs.iter().filter(is_other).map(|dir| dir.as_fd())
    }

    /// Puts a process into it, in every hierarchy.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.dirs.iter().try_for_each(|dir| dir.attach(pid))
    }

    /// The processes in it and below it, in any of its hierarchies.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in &self.dirs {
            collect(dir, &mut pids, MAX_DEPTH)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether any process is in it or below it.
    pub fn is_populated(&self) -> Result<bool> {
        if let Some(v2) = self.v2()
            && populated(&v2.read("cgroup.events")?) == Some(true)
        {
            return Ok(true);
        }
        // On a hybrid host a process may have left the twin and stayed in the others.
        Ok(self
            .subtree
            .dirs
            .iter()
            .any(|dir| dir.version == Version::V1)
            && !self.procs()?.is_empty())
    }

    /// Whether it is still there, in every hierarchy.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.dirs.iter().all(Dir::is_there)
    }

    /// Removes it from every hierarchy, with the cgroups that were made in it.
    ///
    /// Processes that are ending hold it for a moment: it is tried again until `deadline`. One
    /// that somebody else has removed is removed; one that somebody made under its name since is
    /// left alone.
    pub fn delete(&self, deadline: Instant) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        loop {
            let mut is_busy = false;
            for (parent, dir) in self.subtree.dirs.iter().zip(&self.dirs) {
                match remove(parent, self.name.as_path(), dir, MAX_DEPTH) {
                    Err(Errno::BUSY) => is_busy = true,
                    removed => removed.map_err(|errno| fault("remove", &dir.path, errno))?,
                }
            }
            if !is_busy {
                return Ok(());
            }
            if Instant::now() + pause > deadline {
                return Err(Error::Busy {
                    path: self.path().to_path_buf(),
                    pids: self.survivors(),
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether somebody made cgroups in it, or gave it controllers for such.
    pub(super) fn is_altered(&self) -> Result<bool> {
        for dir in &self.dirs {
            let control = dir.read_if("cgroup.subtree_control")?.unwrap_or_default();
            if !control.trim().is_empty() || !dir.children()?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn gone(&self) -> Error {
        Error::Gone {
            path: self.path().to_path_buf(),
        }
    }

    pub(super) fn v2(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.version == Version::V2)
    }

    /// The directory in the hierarchy that carries a controller.
    pub(super) fn carrier(&self, controller: Controller) -> Option<&Dir> {
        let carries = |dir: &&Dir| dir.controllers.contains(&controller);
        self.dirs.iter().find(carries)
    }

    /// Where it is in the hierarchy that carries memory, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        let first = self.carrier(Controller::Memory).or(self.dirs.first());
        first.map_or(self.name.as_path(), |dir| &dir.path)
    }

    /// For messages, when listing may fail as well.
    pub(super) fn survivors(&self) -> Vec<i32> {
        self.procs().unwrap_or_default()
    }
}

/// How deep cgroups inside of a sandbox's are followed; the kernel removes no deeper ones for us.
const MAX_DEPTH: u32 = 16;

/// What `cgroup.events` says.
pub(super) fn populated(events: &str) -> Option<bool> {
    flat::value(events, "populated").map(|value| value != 0)
}

fn collect(dir: &Dir, pids: &mut Vec<i32>, depth: u32) -> Result<()> {
    let of_dir = dir.procs();
    match of_dir {
        Err(error) if error.is_gone() => return Ok(()),
        of_dir => pids.extend(of_dir?),
    }
    for name in dir.children()? {
        match dir.child(&name) {
            Err(error) if error.is_gone() => {}
            child if depth > 0 => collect(&child?, pids, depth - 1)?,
            _ => {}
        }
    }
    Ok(())
}

fn remove(parent: &Dir, name: &Path, dir: &Dir, depth: u32) -> std::result::Result<(), Errno> {
    match parent.remove(name, dir) {
        Err(Errno::BUSY) if depth > 0 => {}
        removed => return removed,
    }
    for name in dir.children().map_err(|_| Errno::BUSY)? {
        if let Ok(child) = dir.child(&name) {
            remove(dir, &name, &child, depth - 1)?;
        }
    }
    parent.remove(name, dir)
}
