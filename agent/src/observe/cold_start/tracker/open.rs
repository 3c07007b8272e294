//! One start that has not ended yet.

use std::collections::{BTreeSet, HashMap, HashSet};

use hearth_abi::{Kind, Opener, flags};

use super::claims::Claim;
use crate::observe::cold_start::settings::{Mode, Settings};
use crate::observe::cold_start::start::{ExecName, Opening, Process, Stamped, Start};
use crate::observe::cold_start::{PartSpan, Role, Waited, end, ready::ReadyRule};
use crate::time::{Boottime, Nanos};

/// What tells starts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// Id of a watched start.
    Watch(u64),
    /// A process of which every exec is told.
    Process(Process),
}

/// Whether the cgroup that opened a start is that of a unit or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenedBy {
    /// No cgroup, or one of which not even the id is known.
    Unknown,
    /// This one, whose path is not known.
    Cgroup(u64),
    /// One that is.
    Place,
}

/// What was collected of one start so far.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) opening: Opening,
    /// Position of the rule that opened it.
    pub(super) rule: Option<usize>,
    /// The claim that opened it.
    pub(super) claim: Option<Claim>,
    /// Whether a cgroup that opened it was found to be one that does.
    pub(super) cgroup: OpenedBy,
    /// When to look whether it has ended.
    pub(super) due: Boottime,
    /// Whether `due` is that of a mark which may be the end, not of the deadline.
    pub(super) may_have_ended: bool,
    /// Records lost by the agent before it was opened.
    pub(super) lost_before: u64,
    /// Marks of its own that were dropped.
    pub(super) dropped: u64,
    /// How many may be dropped before it is worth looking again for some that nobody needs.
    pub(super) prune_after: u64,
    marks: Vec<Stamped>,
    names: Vec<ExecName>,
    /// Long waits for locks, as parts.
    waits: Vec<PartSpan>,
    waits_dropped: u64,
    bytes: usize,
}

/// Long waits that one start keeps.
const WAITS: usize = 256;
/// One of them, with what it points to.
const WAIT_BYTES: usize = size_of::<PartSpan>() + size_of::<Waited>() + 16;
/// Beside its marks and names.
const OPEN_BYTES: usize = 2 * size_of::<Open>();

impl Open {
    /// A start of which nothing is known but its key.
    pub(super) fn new(key: Key, first: Boottime, mode: Mode, lost_before: u64) -> Self {
        let opener = match mode {
            Mode::Trace { .. } => Opener::Trace,
            Mode::Daemon { .. } => Opener::Exec,
        };
        let (begin, process) = match key {
            Key::Watch(id) => (Boottime(id), None),
            Key::Process(process) => (first, Some(process)),
        };
        Self {
            opening: Opening {
                opener,
                begin,
                role: Role::Program,
                process,
            },
            rule: None,
            claim: None,
            cgroup: OpenedBy::Unknown,
            due: Boottime(u64::MAX),
            may_have_ended: false,
            lost_before,
            dropped: 0,
            prune_after: 0,
            marks: Vec::new(),
            names: Vec::new(),
            waits: Vec::new(),
            waits_dropped: 0,
            bytes: OPEN_BYTES,
        }
    }

    /// When it is given up, after its begin.
    pub(super) fn deadline(&self, settings: &Settings) -> Nanos {
        let by_claim = self.claim.as_ref().map(|claim| claim.deadline);
        let by_rule = self.rule.and_then(|rule| settings.rules[rule].deadline);
        by_claim.or(by_rule).unwrap_or(settings.deadline)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn marks(&self) -> &[Stamped] {
        &self.marks
    }

    /// Takes in a mark; learns from it how a watched start was opened.
    pub(super) fn push(&mut self, mark: Stamped, mode: Mode) {
        let opener = mark.at() == self.opening.begin && mark.watch == mark.boottime_ns;
        if opener && self.opening.process.is_none() {
            self.opened_by(&mark, mode);
        }
        self.marks.push(mark);
        self.bytes += size_of::<Stamped>();
    }

    fn opened_by(&mut self, mark: &Stamped, mode: Mode) {
        let (opener, process) = match mark.kind {
            Kind::Fork => {
                let from_source = mark.flags & flags::WATCHED != 0;
                let opener = match mode {
                    Mode::Trace { source } if source == mark.tgid => Opener::Trace,
                    _ if from_source => Opener::Fork,
                    _ => Opener::Cgroup,
                };
                (opener, Process::child(mark))
            }
            Kind::CgroupAttach => (Opener::Cgroup, Process::moved(mark)),
            Kind::ExecBegin | Kind::Exec => (Opener::Exec, mark.process()),
            _ => return,
        };
        self.opening.opener = opener;
        self.opening.process = Some(process);
        if mark.kind == Kind::CgroupAttach {
            self.cgroup = OpenedBy::Cgroup(mark.args[0]);
        }
    }

    /// Whether the names of any exec are known.
    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Takes in the names of an exec.
    pub(super) fn name(&mut self, name: ExecName) {
        self.bytes += size_of::<ExecName>()
            + name.file.len()
            + name.argv0.as_ref().map_or(0, |argv0| argv0.len());
        self.names.push(name);
    }

    /// Takes in a long wait for a lock, while there is room.
    pub(super) fn wait(&mut self, wait: PartSpan) {
        if self.waits.len() < WAITS {
            self.bytes += WAIT_BYTES;
            self.waits.push(wait);
        } else {
            self.waits_dropped += 1;
        }
    }

    /// The long waits, and how many there was no room for.
    pub(super) fn into_waits(self) -> (Vec<PartSpan>, u64) {
        (self.waits, self.waits_dropped)
    }

    /// Whether this mark may end the start.
    pub(super) fn may_end_by(&self, mark: &Stamped, rule: &ReadyRule) -> bool {
        if mark.kind != Kind::Exit {
            return rule.ends(mark.kind).is_some();
        }
        let only = self
            .opening
            .process
            .filter(|_| self.opening.role != Role::Runtime);
        // Once the program itself has ended, the last of those that it left behind may end it.
        only.is_none_or(|process| {
            let exit = |other: &Stamped| other.kind == Kind::Exit && other.process() == process;
            exit(mark) || self.marks.iter().any(exit)
        })
    }

    /// What was collected, in order. What stays behind is empty until [`Self::put_back`].
    pub(super) fn take(&mut self, lost: u64) -> Start {
        let marks = std::mem::take(&mut self.marks);
        let names = std::mem::take(&mut self.names);
        Start::new(self.opening, marks, names, lost)
    }

    /// The start has not ended after all.
    pub(super) fn put_back(&mut self, start: Start) {
        (self.marks, self.names) = start.into_parts();
        let names = self.names.iter();
        let texts = names.map(|n| n.file.len() + n.argv0.as_ref().map_or(0, |a| a.len()));
        self.bytes = OPEN_BYTES
            + self.waits.len() * WAIT_BYTES
            + self.marks.len() * size_of::<Stamped>()
            + self.names.len() * size_of::<ExecName>()
            + texts.sum::<usize>();
    }

    /// Drops the marks of processes that ended, unless one that lives descends from them:
    /// they cannot be on the chain any more. Gives the number of marks dropped.
    pub(super) fn prune(&mut self, rule: &ReadyRule) -> usize {
        let before = self.marks.len();
        let start = self.take(0);
        if end::find(&start, rule).is_some() {
            self.put_back(start);
            return 0;
        }
        let mut parents = HashMap::new();
        let mut ended = HashSet::new();
        for mark in start.marks() {
            match mark.kind {
                Kind::Fork => {
                    parents.insert(Process::child(mark), mark.process());
                }
                Kind::Exit => {
                    ended.insert(mark.process());
                }
                _ => {}
            }
        }
        let mut needed: HashSet<Process> = start.opening.process.into_iter().collect();
        let processes: BTreeSet<Process> = start
            .marks()
            .iter()
            .map(Stamped::process)
            .chain(parents.keys().copied())
            .collect();
        for alive in processes
            .into_iter()
            .filter(|process| !ended.contains(process))
        {
            let mut next = Some(alive);
            while let Some(process) = next.filter(|&process| needed.insert(process)) {
                next = parents.get(&process).copied();
            }
        }
        let (mut marks, mut names) = start.into_parts();
        marks.retain(|mark| match mark.kind {
            Kind::Fork => needed.contains(&Process::child(mark)),
            _ => needed.contains(&mark.process()),
        });
        names.retain(|name| needed.contains(&name.process));
        let dropped = before - marks.len();
        let start = Start::new(self.opening, marks, names, 0);
        self.put_back(start);
        dropped
    }
}

/// Processes that these marks tell of and that have not ended; never those which only opened
/// the start by a fork.
pub(super) fn alive(marks: &[Stamped]) -> Vec<u32> {
    let mut alive = BTreeSet::new();
    let mut ended = BTreeSet::new();
    for mark in marks {
        match mark.kind {
            Kind::Fork => alive.insert(Process::child(mark)),
            Kind::CgroupAttach => alive.insert(Process::moved(mark)),
            Kind::Exit => ended.insert(mark.process()),
            _ => alive.insert(mark.process()),
        };
    }
    alive
        .difference(&ended)
        .map(|process| process.tgid)
        .collect()
}
