//! When a start ended, how, and by whom.

use std::collections::HashSet;

use hearth_abi::{Kind, Opener};

use super::Ready;
use super::image::{Image, Images};
use super::ready::ReadyRule;
use super::rules::Role;
use super::start::{Process, Stamped, Start};
use crate::time::Boottime;

/// The end of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Boottime,
    /// How.
    pub ready: Ready,
    /// The process that became ready, or ended; the chain is its ancestry.
    pub process: Option<Process>,
    /// Index of the mark that said so; `None` at a deadline.
    pub mark: Option<usize>,
}

impl End {
    /// The end of a start that passed its deadline at `at`.
    #[must_use]
    pub fn not_ready(start: &Start, at: Boottime) -> Self {
        let process = match start.opening.role {
            Role::Runtime => entry(start).or_else(|| first_process(start)),
            _ => first_process(start),
        };
        Self {
            at: at.max(start.opening.begin),
            ready: Ready::NotReady,
            process,
            mark: None,
        }
    }
}

/// The process that was first to leave the runtime's own image, hooks apart.
#[must_use]
pub(super) fn entry(start: &Start) -> Option<Process> {
    let images = Images::of(start);
    let mut execs = start
        .marks()
        .iter()
        .enumerate()
        .filter(|(_, mark)| mark.kind == Kind::Exec);
    let entered = execs
        .find(|&(index, exec)| images.at(index) == Image::Outside && !images.is_hook(start, exec));
    entered.map(|(_, exec)| exec.process())
}

/// The first mark, in order of time, that ends the start under `rule`.
///
/// "Listen, else exit": a program that ends well and leaves processes behind (a daemon that
/// forks itself into the background) may still listen, until the last of them is gone.
#[must_use]
pub fn find(start: &Start, rule: &ReadyRule) -> Option<End> {
    search(start, rule).ok()
}

/// As [`find`], when nothing is waited for any more: the exit of a program that left processes
/// behind is its end then.
#[must_use]
pub fn find_at_deadline(start: &Start, rule: &ReadyRule) -> Option<End> {
    search(start, rule).map_or_else(|left| left, Some)
}

/// The end; or else the exit that is the end unless one of the processes left behind does more.
fn search(start: &Start, rule: &ReadyRule) -> Result<End, Option<End>> {
    let images = Images::of(start);
    let mut group = Group::of(start);
    let mut left = None;
    for (index, mark) in start.marks().iter().enumerate() {
        group.saw(mark);
        let image = images.at(index);
        let process = mark.process();
        let end = |ready| End {
            at: mark.at(),
            ready,
            process: Some(process),
            mark: Some(index),
        };
        match mark.kind {
            Kind::Exec if start.opening.role == Role::Runtime => match image {
                Image::Outside if !images.is_hook(start, mark) => {
                    group.entries.insert(process);
                }
                Image::Unknown => group.doubtful = true,
                _ => {}
            },
            Kind::Exit => {
                let entry_ended = group.entries.contains(&process);
                if (entry_ended && ran(start, process)) || group.ended_in_doubt() {
                    let end = end(rule.ends(Kind::Exit).unwrap_or(Ready::Exited));
                    let well = start.opening.role != Role::Runtime && mark.args[0] == 0;
                    if well && rule.waits_for_more_than_exit() && !group.alive.is_empty() {
                        left = left.or(Some(end));
                        continue;
                    }
                    return Ok(end);
                }
                let all_ended = start.opening.role == Role::Runtime && group.alive.is_empty();
                if entry_ended || all_ended {
                    return Ok(end(Ready::Exited));
                }
                if let Some(left) = left.filter(|_| group.alive.is_empty()) {
                    return Ok(left);
                }
            }
            kind => {
                if image != Image::Own
                    && let Some(ready) = rule.ends(kind)
                {
                    return Ok(end(ready));
                }
            }
        }
    }
    Err(left)
}

/// The processes of a start, as far as its marks tell.
struct Group {
    alive: HashSet<Process>,
    gone: HashSet<Process>,
    /// Processes whose exit is the end of the start's program.
    entries: HashSet<Process>,
    /// Whether an exec could not be told from one of the runtime's own.
    doubtful: bool,
}

impl Group {
    fn of(start: &Start) -> Self {
        let entry = first_process(start).filter(|_| start.opening.role != Role::Runtime);
        Self {
            alive: start.opening.process.into_iter().collect(),
            gone: HashSet::new(),
            entries: entry.into_iter().collect(),
            doubtful: false,
        }
    }

    fn saw(&mut self, mark: &Stamped) {
        let process = match mark.kind {
            Kind::Exit => {
                self.alive.remove(&mark.process());
                self.gone.insert(mark.process());
                return;
            }
            // The stamping process may be one that is itself no part of the start.
            Kind::Fork => Process::child(mark),
            Kind::CgroupAttach => Process::moved(mark),
            _ => mark.process(),
        };
        if !self.gone.contains(&process) {
            self.alive.insert(process);
        }
    }

    /// Whether nothing is left of a group whose program could not be told from its runtime.
    fn ended_in_doubt(&self) -> bool {
        self.doubtful && self.entries.is_empty() && self.alive.is_empty()
    }
}

/// Where the chain begins; if that was lost, whoever made the first mark.
fn first_process(start: &Start) -> Option<Process> {
    start
        .opening
        .process
        .or_else(|| start.marks().first().map(Stamped::process))
}

/// Whether a process ran any program. Without one its exit is a failure to start; where
/// marks were lost that cannot be said.
fn ran(start: &Start, process: Process) -> bool {
    start.lost > 0
        || matches!(start.opening.opener, Opener::Fork | Opener::Exec)
        || start.marks_of(process).any(|(_, mark)| {
            matches!(
                mark.kind,
                Kind::Exec | Kind::ExecBegin | Kind::Entry | Kind::Main
            )
        })
}
