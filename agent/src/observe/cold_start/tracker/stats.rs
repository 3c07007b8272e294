//! What the tracker did and holds.

use std::collections::BTreeMap;

/// Why a start ended without an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Evicted: too many starts were open.
    Starts,
    /// Evicted: the open starts took too much memory.
    Memory,
    /// Rejected: the executable is not the one that the rule means.
    OtherExecutable,
    /// Rejected: the record that names the executable was lost.
    Nameless,
    /// Rejected: the runtime joined a container that was running (`runc exec`).
    Joined,
    /// Rejected: the runtime started no container (`runc state`, `runc start`, ...).
    NoContainer,
    /// Rejected: the cgroup is neither a unit's nor a container's.
    OtherCgroup,
    /// Ended before its exec could be seen, or began before the agent did.
    Headless,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Starts,
        Self::Memory,
        Self::OtherExecutable,
        Self::Nameless,
        Self::Joined,
        Self::NoContainer,
        Self::OtherCgroup,
        Self::Headless,
    ];

    /// The word used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::Memory => "memory",
            Self::OtherExecutable => "other_executable",
            Self::Nameless => "nameless",
            Self::Joined => "joined",
            Self::NoContainer => "no_container",
            Self::OtherCgroup => "other_cgroup",
            Self::Headless => "headless",
        }
    }

    /// Whether a start was lost by it, rather than found to be none.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Starts | Self::Memory | Self::Nameless)
    }
}

/// What the tracker did and holds. `opened = open + finished + the sum of gone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Starts open now.
    pub open: usize,
    /// Memory of the open starts, in bytes.
    pub bytes: usize,
    /// Starts opened.
    pub opened: u64,
    /// Starts told as observations.
    pub finished: u64,
    /// Starts that ended without an observation, by reason.
    pub gone: BTreeMap<Reason, u64>,
    /// Marks dropped from starts that had too many.
    pub marks_dropped: u64,
    /// Names of execs whose mark was lost.
    pub names_dropped: u64,
    /// Marks that came after their start had ended.
    pub late: u64,
    /// Cgroup names dropped because there were too many.
    pub cgroups_evicted: u64,
}
