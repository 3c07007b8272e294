//! What the tracker is told once.

use super::fold::About;
use super::{ReadyRule, StartRule};
use crate::time::Nanos;

/// How starts come about and end.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every start of this agent shares.
    pub about: About,
    /// What the kernel side was told to watch.
    pub mode: Mode,
    /// Which execs open a start; the first that matches counts.
    pub rules: Vec<StartRule>,
    /// When a start is ready, where no rule says otherwise.
    pub ready: ReadyRule,
    /// When a function in a sandbox of our own runtime is ready: it asks for work.
    pub ready_of_claimed: ReadyRule,
    /// When a start is given up, where no rule says otherwise.
    pub deadline: Nanos,
    /// How long after the end of a start its late marks are waited for.
    pub grace: Nanos,
    /// What is kept at most.
    pub limits: Limits,
}

/// What the kernel side was told to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The children of this process (`hearth trace`).
    Trace {
        /// Its process id.
        source: u32,
    },
    /// Runtimes, rules, cgroups and fork servers; every other exec too if it says so.
    Daemon {
        /// Whether each process that execs is a start of its own.
        every_exec: bool,
    },
}

/// What is kept at most. What goes is counted by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open starts; the oldest goes.
    pub starts: usize,
    /// Marks of one start; those of processes that ended go first, then the newest.
    pub marks_per_start: usize,
    /// Memory of all open starts, in bytes; the oldest start goes.
    pub bytes: usize,
    /// Ended starts that are remembered, so that their late marks open none anew.
    pub ended: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            starts: 4096,
            marks_per_start: 8192,
            bytes: 8 << 20,
            ended: 16_384,
        }
    }
}

impl Settings {
    /// The defaults: deadline 5 min, grace 50 ms, no rules.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            about: About::default(),
            mode,
            rules: Vec::new(),
            ready: ReadyRule::default(),
            ready_of_claimed: ReadyRule::next(),
            deadline: Nanos(300_000_000_000),
            grace: Nanos(50_000_000),
            limits: Limits::default(),
        }
    }
}
