//! Whose image a process is on: that of the runtime which starts it, or one of its own.

use std::collections::{HashMap, HashSet};

use hearth_abi::Kind;

use super::rules::Role;
use super::start::{Process, Stamped, Start};

/// Whose image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The runtime's.
    Own,
    /// Not the runtime's. Once outside, a process and its children stay so.
    Outside,
    /// The records that would tell were lost.
    Unknown,
}

/// For each mark of a start, the image that its process was on, after an exec the new one.
pub(super) struct Images {
    at: Vec<Image>,
    /// Whether any process left the cgroup of the opener.
    own_cgroups: bool,
}

impl Images {
    pub(super) fn of(start: &Start) -> Self {
        if start.opening.role != Role::Runtime {
            return Self {
                at: vec![Image::Outside; start.marks().len()],
                own_cgroups: false,
            };
        }
        let mut own_files = HashSet::new();
        let mut on: HashMap<Process, Image> = HashMap::new();
        if let Some(process) = start.opening.process {
            on.insert(process, Image::Own);
            if let Some((_, exec)) = start.marks_of(process).find(|(_, m)| m.kind == Kind::Exec) {
                own_files.insert(file_of(exec));
            }
        }
        let images = start.marks().iter().map(|mark| {
            let process = mark.process();
            let mut image = on.get(&process).copied().unwrap_or(Image::Unknown);
            if mark.kind == Kind::Exec && image != Image::Outside {
                let name = start.name_of(mark).map(|name| &*name.file);
                if name.is_some_and(names_itself) {
                    own_files.insert(file_of(mark));
                }
                image = match name {
                    _ if own_files.contains(&file_of(mark)) => Image::Own,
                    Some(_) => Image::Outside,
                    None => Image::Unknown,
                };
            }
            on.insert(process, image);
            if mark.kind == Kind::Fork {
                on.entry(Process::child(mark)).or_insert(image);
            }
            image
        });
        let at = images.collect();
        let mut cgroups = start
            .marks()
            .iter()
            .map(|mark| mark.cgroup)
            .filter(|&id| id != 0);
        let first = cgroups.next();
        Self {
            at,
            own_cgroups: cgroups.any(|id| Some(id) != first),
        }
    }

    /// The image at the mark with this index.
    pub(super) fn at(&self, index: usize) -> Image {
        self.at.get(index).copied().unwrap_or(Image::Unknown)
    }

    /// Whether an exec out of the runtime's image is that of a hook, not of the start's program.
    ///
    /// A hook is a child of a runtime process that waits for it: made by `vfork`, or still
    /// having that parent alive in the same cgroup. The program's process is left alone by
    /// those that made it before it execs, or was put into the container's cgroup.
    pub(super) fn is_hook(&self, start: &Start, exec: &Stamped) -> bool {
        const CLONE_VFORK: u64 = 0x4000;
        let Some(fork) = start
            .fork_of(exec.process())
            .map(|index| &start.marks()[index])
        else {
            return false;
        };
        if fork.args[2] & CLONE_VFORK != 0 {
            return true;
        }
        // Without cgroups of their own there is nothing to tell a hook by.
        self.own_cgroups
            && fork.cgroup != 0
            && fork.cgroup == exec.cgroup
            && !start.ended_before(fork.process(), exec.at())
    }
}

/// Inode and device of the new image.
fn file_of(exec: &Stamped) -> (u64, u64) {
    (exec.args[0], exec.args[1])
}

/// Names by which a program execs its own image, or a sealed copy of it.
fn names_itself(file: &str) -> bool {
    file == "/proc/self/exe"
        || file == "/proc/thread-self/exe"
        || file.starts_with("/proc/self/fd/")
        || file.starts_with("/dev/fd/")
        || file.starts_with("memfd:")
        || file.starts_with("/memfd:")
}
