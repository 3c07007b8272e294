//! What is on disk of a kill before its capture is: who was killed, so that the next agent can say
//! so where this one dies in between.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use hearth_abi::OomKill;
use serde::{Deserialize, Serialize};

use crate::observe::oom::fields;
use crate::observe::oom::model::{Capture, CaptureId, Cgroup};
use crate::time::Boottime;

/// Bytes of a note that are read: one is far shorter.
pub(super) const MAX_BYTES: u64 = 16 << 10;

/// A kill whose capture is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When the victim was chosen.
    #[serde(rename = "killed_ns")]
    pub killed: Boottime,
    /// The same, nanoseconds since 1970.
    pub killed_unix_ns: u64,
    /// Process.
    pub pid: u32,
    /// The kernel's name of it.
    pub comm: String,
    /// Its cgroup.
    pub cgroup: Cgroup,
}

/// Which kill a note or a capture is of: the wall clock, and the name with it, may have been set
/// between the two.
pub(super) type Kill = (Boottime, u32);

impl Note {
    /// Of `kill`, at `unix_ns`; `path` is that of the victim's cgroup.
    #[must_use]
    pub fn of(kill: &OomKill, unix_ns: u64, path: Option<&str>) -> Self {
        Self {
            killed: Boottime(kill.id),
            killed_unix_ns: unix_ns,
            pid: kill.victim.tgid,
            comm: fields::comm(&kill.victim),
            cgroup: fields::cgroup(kill.victim.cgroup, path),
        }
    }

    /// Name that its capture is to have.
    pub(super) fn id(&self) -> CaptureId {
        CaptureId::of(self.killed_unix_ns, self.pid)
    }

    pub(super) const fn kill(&self) -> Kill {
        (self.killed, self.pid)
    }
}

pub(super) const fn kill_of(capture: &Capture) -> Kill {
    (capture.killed, capture.victim.pid)
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_nanos(self.killed_unix_ns);
        let time = humantime::format_rfc3339_millis(time);
        // Names are the program's own: they must not act on whoever reads the log.
        write!(f, "{:?} (pid {}), ", self.comm, self.pid)?;
        match self.cgroup.path.value() {
            Some(path) => write!(f, "in the cgroup {path:?}, ")?,
            None => write!(f, "in the cgroup with the inode {}, ", self.cgroup.id)?,
        }
        write!(f, "killed for want of memory at {time}")
    }
}

/// What an agent that died left of a kill, and is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Name that the capture would have had: time and process.
    pub name: String,
    /// Who was killed, where that can be read.
    pub note: Option<Note>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.note {
            Some(note) => note.fmt(f),
            None => write!(f, "{:?}", self.name),
        }
    }
}
