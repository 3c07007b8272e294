//! One start as it was collected: its opener and its marks in order of time.

use std::collections::HashMap;
use std::ops::Deref;

use hearth_abi::{Kind, Mark, Opener};

use super::rules::Role;
use crate::time::Boottime;

/// A process, together with the boot id, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Process id (initial PID namespace).
    pub tgid: u32,
    /// `start_boottime` of its leader, ns.
    pub start_boottime: u64,
}

impl Process {
    /// The process that stamped a mark.
    #[must_use]
    pub const fn of(mark: &Mark) -> Self {
        Self {
            tgid: mark.tgid,
            start_boottime: mark.start_boottime,
        }
    }

    /// The child of a `Fork` mark.
    #[must_use]
    pub const fn child(fork: &Mark) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the kernel wrote a tgid there"
        )]
        let tgid = fork.args[0] as u32;
        Self {
            tgid,
            start_boottime: fork.args[1],
        }
    }

    /// The process that a `CgroupAttach` mark tells about.
    #[must_use]
    pub const fn moved(attach: &Mark) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the kernel wrote a tgid there"
        )]
        let tgid = attach.args[1] as u32;
        Self {
            tgid,
            start_boottime: attach.args[2],
        }
    }
}

/// A mark with its kind decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// What it says.
    pub kind: Kind,
    /// The record.
    pub mark: Mark,
}

impl Stamped {
    /// When.
    #[must_use]
    pub const fn at(&self) -> Boottime {
        Boottime(self.mark.boottime_ns)
    }

    /// By whom.
    #[must_use]
    pub const fn process(&self) -> Process {
        Process::of(&self.mark)
    }
}

impl Deref for Stamped {
    type Target = Mark;

    fn deref(&self) -> &Mark {
        &self.mark
    }
}

/// Names of one exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecName {
    /// Whose.
    pub process: Process,
    /// Time of the `Exec` mark.
    pub at: Boottime,
    /// File name as given to exec.
    pub file: Box<str>,
    /// `argv[0]`, where it could be read.
    pub argv0: Option<Box<str>>,
}

/// How a start was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// By what.
    pub opener: Opener,
    /// When; of a watched start also its id.
    pub begin: Boottime,
    /// What the opening program is to the start.
    pub role: Role,
    /// Where the chain begins; `None` when the mark that said so was lost.
    pub process: Option<Process>,
}

impl Opening {
    /// Whether the opener is itself an exec of the program, so that nothing is created first.
    #[must_use]
    pub fn is_program_exec(&self) -> bool {
        self.opener == Opener::Exec && self.role != Role::Runtime
    }

    /// The word used in JSON, metrics and pictures.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.opener {
            Opener::Trace => "trace",
            Opener::Exec => "exec",
            Opener::Cgroup => "cgroup",
            Opener::Fork => "fork",
            Opener::Claim => "claim",
        }
    }
}

/// Everything collected about one start.
#[derive(Clone, Debug)]
pub struct Start {
    /// How it was opened.
    pub opening: Opening,
    /// Records known to be lost while it was open.
    pub lost: u64,
    marks: Vec<Stamped>,
    names: HashMap<(Process, Boottime), ExecName>,
    by_process: HashMap<Process, Vec<usize>>,
    forks: HashMap<Process, usize>,
}

impl Start {
    /// Sorts what was collected. Marks older than the opener are none of this start.
    #[must_use]
    pub fn new(
        opening: Opening,
        mut marks: Vec<Stamped>,
        names: impl IntoIterator<Item = ExecName>,
        lost: u64,
    ) -> Self {
        marks.retain(|mark| mark.at() >= opening.begin);
        // Stable: among marks of one instant the ring's order is the best there is.
        marks.sort_by_key(Stamped::at);
        let mut by_process: HashMap<Process, Vec<usize>> = HashMap::new();
        let mut forks = HashMap::new();
        for (index, mark) in marks.iter().enumerate() {
            by_process.entry(mark.process()).or_default().push(index);
            if mark.kind == Kind::Fork {
                forks.entry(Process::child(mark)).or_insert(index);
            }
        }
        let names = names
            .into_iter()
            .map(|name| ((name.process, name.at), name))
            .collect();
        Self {
            opening,
            lost,
            marks,
            names,
            by_process,
            forks,
        }
    }

    /// Marks in order of time.
    #[must_use]
    pub fn marks(&self) -> &[Stamped] {
        &self.marks
    }

    /// Marks stamped by one process, in order of time, with their indices.
    pub fn marks_of(&self, process: Process) -> impl DoubleEndedIterator<Item = (usize, &Stamped)> {
        let indices = self.by_process.get(&process).map_or(&[][..], Vec::as_slice);
        indices.iter().map(|&index| (index, &self.marks[index]))
    }

    /// Index of the `Fork` mark that made a process.
    #[must_use]
    pub fn fork_of(&self, child: Process) -> Option<usize> {
        self.forks.get(&child).copied()
    }

    /// The names that belong to an `Exec` mark.
    #[must_use]
    pub fn name_of(&self, exec: &Stamped) -> Option<&ExecName> {
        self.names.get(&(exec.process(), exec.at()))
    }

    /// Whether a process is known to have ended before `at`.
    #[must_use]
    pub fn ended_before(&self, process: Process, at: Boottime) -> bool {
        self.marks_of(process)
            .any(|(_, mark)| mark.kind == Kind::Exit && mark.at() < at)
    }

    /// What was collected, back again.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Stamped>, Vec<ExecName>) {
        (self.marks, self.names.into_values().collect())
    }
}
