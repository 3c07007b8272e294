//! What can go wrong with a cgroup, and what to do about it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

use super::limits::Setting;

/// Result of what this module does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing to make cgroups in.
    #[error("no cgroup hierarchy is mounted here: mount -t cgroup2 cgroup2 /sys/fs/cgroup")]
    NoHierarchy,
    /// Something else is mounted over the hierarchy.
    #[error("{} is not the cgroup file system that /proc/self/mountinfo tells of: \
             something is mounted over it", path.display())]
    Covered {
        /// Mount point.
        path: PathBuf,
    },
    /// The own cgroup is outside of what is mounted here.
    #[error("the cgroup of this process is not below {}: \
             mount the hierarchy inside of this cgroup namespace, or use the root", path.display())]
    Unreachable {
        /// Mount point.
        path: PathBuf,
    },
    /// A name that is no name of a cgroup.
    #[error("{name:?} is no name of a cgroup: use 1 to 64 of a-z, A-Z, 0-9, - and _")]
    Name {
        /// The name.
        name: String,
    },
    /// Controllers cannot be switched on for children of a v2 cgroup that holds processes.
    #[error("{} holds processes {pids:?}, so cgroup v2 gives its children no controllers: \
             start hearth in a leaf of its own (systemd: Delegate=yes and DelegateSubgroup=), \
             or let it step down", path.display())]
    Occupied {
        /// The cgroup.
        path: PathBuf,
        /// Who is in it.
        pids: Vec<i32>,
    },
    /// A cgroup that could not be removed in time.
    #[error("{} cannot be removed in time, processes {pids:?} are in it: kill them first",
            path.display())]
    Busy {
        /// The cgroup.
        path: PathBuf,
        /// Who is in it.
        pids: Vec<i32>,
    },
    /// Processes that outlived their kill, or did not stop, until the deadline.
    #[error("processes {pids:?} of {} are not {wanted} in time", path.display())]
    Late {
        /// The cgroup.
        path: PathBuf,
        /// What they should be.
        wanted: &'static str,
        /// Who is in it.
        pids: Vec<i32>,
    },
    /// A limit that makes no sense; `remedy` says what would.
    #[error("{setting} = {value}: {remedy}")]
    Limit {
        /// Which setting.
        setting: Setting,
        /// What was asked for.
        value: String,
        /// What to ask for instead.
        remedy: &'static str,
    },
    /// The kernel took a limit and reads back another one.
    #[error("{setting}: wrote {wrote:?} to {}, which reads {read:?}", path.display())]
    NotTaken {
        /// Which setting.
        setting: Setting,
        /// File it was written to.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What was read back.
        read: String,
    },
    /// A file of the kernel with content that is not known.
    #[error("{} holds {text:?}, which is not {wanted}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// Its beginning.
        text: String,
    },
    /// This kernel or this host has no such thing.
    #[error("{what} is not to be had here: {why}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why it is not there.
        why: &'static str,
    },
    /// Somebody else removed the cgroup.
    #[error("{} was removed by somebody else", path.display())]
    Gone {
        /// The cgroup.
        path: PathBuf,
    },
}

impl Error {
    /// Whether the cgroup is no longer there.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone { .. } => true,
            Self::Io { .. } => self.is(Errno::NOENT) || self.is(Errno::NODEV),
            _ => false,
        }
    }

    /// Whether the kernel refused with this.
    pub(super) fn is(&self, errno: Errno) -> bool {
        let number = Some(errno.raw_os_error());
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == number)
    }
}
