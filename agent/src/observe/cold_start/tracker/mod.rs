//! Collects the marks of each start until it ends; bounded, and what goes is counted.

mod claims;
mod ended;
mod open;
mod settle;
mod stats;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use hearth_abi::{Kind, LockWait, Mark, Opener, Text};

pub use claims::Claim;
pub use stats::{Reason, Stats};

use self::claims::Claims;
use self::ended::Ended;
use self::open::{Key, Open, OpenedBy, alive};
use super::ready::ReadyRule;
use super::settings::{Mode, Settings};
use super::start::{ExecName, Process, Stamped};
use super::{ColdStart, Role, parts};
use crate::kernel::event::Event;
use crate::observe::cgroup_lock::Wait;
use crate::observe::identity::{CgroupNames, Place};
use crate::observe::text::until_zero;
use crate::time::{Boottime, Nanos};

/// Marks that a start at its limit loses between two looks for some that nobody needs.
const PRUNE_EVERY: u64 = 1024;

/// Execs whose names may still come; they follow at once, so that few are enough.
const RECENT_EXECS: usize = 64;

/// A start that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The observation.
    pub start: ColdStart,
    /// Processes (tgids) of its group that live on and need not be watched any longer.
    pub watched: Vec<u32>,
}

/// Groups marks by start, finds out when each has ended, and folds it.
#[derive(Debug)]
pub struct Tracker {
    settings: Settings,
    cgroups: CgroupNames,
    open: HashMap<Key, Open>,
    /// Open starts by when to look at them next.
    due: BTreeSet<(Boottime, Key)>,
    /// Open starts by age.
    age: BTreeSet<(Boottime, Key)>,
    ended: Ended,
    claims: Claims,
    recent_execs: VecDeque<(Process, Boottime, Key)>,
    unwatch: BTreeSet<u32>,
    lost: u64,
    bytes: usize,
    stats: Stats,
}

impl Tracker {
    /// A tracker that knows `cgroups`.
    #[must_use]
    pub fn new(settings: Settings, cgroups: CgroupNames) -> Self {
        Self {
            ended: Ended::new(settings.limits.ended),
            settings,
            cgroups,
            open: HashMap::new(),
            due: BTreeSet::new(),
            age: BTreeSet::new(),
            claims: Claims::default(),
            recent_execs: VecDeque::new(),
            unwatch: BTreeSet::new(),
            lost: 0,
            bytes: 0,
            stats: Stats::default(),
        }
    }

    /// Takes in one event.
    pub fn accept(&mut self, event: &Event) {
        match *event {
            Event::Mark(kind, mark) => self.accept_mark(kind, &mark),
            Event::Text(Kind::ExecText, ref text) => self.accept_name(text),
            Event::Text(Kind::CgroupPath, ref text) => {
                self.cgroups.tell(text.id, &until_zero(&text.long));
            }
            Event::Text(Kind::CgroupGone, ref text) => {
                self.cgroups.gone(text.id, Boottime(text.boottime_ns));
            }
            Event::LockWait(ref record) => self.accept_wait(record),
            Event::Text(..) | Event::Oom(_) => {}
        }
    }

    /// Path of the cgroup `id`, as far as it was told; one that was not is looked for in the
    /// hierarchy, for the next time.
    pub fn cgroup_path(&mut self, id: u64, now: Boottime) -> Option<String> {
        self.cgroups.ask(id, now).map(str::to_owned)
    }

    /// Path of the cgroup `id`, as far as it was told.
    #[must_use]
    pub fn told_path(&self, id: u64) -> Option<&str> {
        self.cgroups.path(id)
    }

    /// Whether `process` is in a start that has not ended.
    #[must_use]
    pub fn is_starting(&self, process: Process) -> bool {
        let in_start = |open: &Open| {
            let mut marks = open.marks().iter();
            marks.any(|mark| mark.process() == process)
        };
        self.open.contains_key(&Key::Process(process)) || self.open.values().any(in_start)
    }

    /// This many records were lost on their way: each open start may miss some of them.
    pub fn note_lost(&mut self, records: u64) {
        self.lost = self.lost.saturating_add(records);
    }

    /// The watch set was attached at `since` and brings these strategies, or was detached.
    pub fn set_watching(&mut self, watching: Option<(Boottime, BTreeMap<String, String>)>) {
        self.settings.about.watching = watching;
    }

    /// The starts that have ended by `now`.
    pub fn advance(&mut self, now: Boottime) -> Vec<Finished> {
        let mut finished = Vec::new();
        while let Some(&(due, key)) = self.due.first() {
            if due > now {
                break;
            }
            finished.extend(self.look_at(key, now));
        }
        // Not before: what has ended may have been in a cgroup that is gone.
        self.cgroups.sweep(now);
        finished
    }

    /// Processes (tgids) that need not be watched: of starts that turned out to be none, were
    /// evicted, or left stragglers. Those of a [`Finished`] are told with it.
    pub fn take_unwatched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unwatch).into_iter().collect()
    }

    /// What it did and holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            open: self.open.len(),
            bytes: self.bytes,
            cgroups_evicted: self.cgroups.evicted(),
            ..self.stats.clone()
        }
    }

    fn accept_mark(&mut self, kind: Kind, mark: &Mark) {
        let mark = Stamped { kind, mark: *mark };
        if kind == Kind::CgroupPopulated {
            self.cgroups.populated(mark.args[0], mark.at());
            return;
        }
        let mut key = match self.settings.mode {
            _ if mark.watch != 0 => Key::Watch(mark.watch),
            Mode::Daemon { every_exec: true } => Key::Process(mark.process()),
            _ => return,
        };
        if self.ended.contains(key) {
            self.late(key, &mark);
            let own = Key::Process(mark.process());
            if !self.open.contains_key(&own) {
                return;
            }
            key = own;
        }
        if !self.open.contains_key(&key) {
            self.open(key, &mark);
        }
        if kind == Kind::Exec {
            self.recent_execs.truncate(RECENT_EXECS - 1);
            self.recent_execs
                .push_front((mark.process(), mark.at(), key));
        }
        self.collect(key, mark);
        self.make_room(key);
    }

    /// Gives the marks of a watched start that was none to the starts that its processes had of
    /// their own, from before they entered its cgroup.
    fn hand_over(&mut self, marks: &[Stamped]) {
        for mark in marks {
            let own = Key::Process(mark.process());
            if self.open.contains_key(&own) {
                self.collect(own, *mark);
            }
        }
    }

    /// A mark of a start that has ended.
    fn late(&mut self, key: Key, mark: &Stamped) {
        self.stats.late += 1;
        match (key, mark.kind) {
            (Key::Process(_), Kind::Exit) => self.ended.forget(key),
            (Key::Process(_), _) | (_, Kind::Exit) => {}
            // What was forked before its creator was let go is still being watched.
            _ => self.unwatch.extend(alive(std::slice::from_ref(mark))),
        }
    }

    fn open(&mut self, key: Key, first: &Stamped) {
        let mut open = Open::new(key, first.at(), self.settings.mode, self.lost);
        let execs = matches!(first.kind, Kind::Exec | Kind::ExecBegin);
        open.due = if matches!(key, Key::Watch(_)) || execs {
            after(
                open.opening.begin,
                self.settings.deadline,
                self.settings.grace,
            )
        } else {
            // Its exec is on its way, or was before the agent.
            after(first.at(), self.settings.grace, Nanos(0))
        };
        self.due.insert((open.due, key));
        self.age.insert((open.opening.begin, key));
        self.bytes += open.bytes();
        self.stats.opened += 1;
        self.open.insert(key, open);
    }

    fn collect(&mut self, key: Key, mark: Stamped) {
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let before = open.bytes();
        let rule = ready_rule(&self.settings, open);
        let may_end = open.may_end_by(&mark, rule);
        let limit = self.settings.limits.marks_per_start;
        if open.marks().len() >= limit {
            if !open.may_have_ended && open.dropped >= open.prune_after {
                let dropped = open.prune(rule) as u64;
                open.dropped += dropped;
                self.stats.marks_dropped += dropped;
                if dropped == 0 {
                    // It takes a look at every mark: not for each of a storm.
                    open.prune_after = open.dropped + PRUNE_EVERY;
                }
            }
            // What may end the start is worth a little more than the limit.
            let limit = if may_end { limit + limit / 8 } else { limit };
            if open.marks().len() >= limit {
                open.dropped += 1;
                self.stats.marks_dropped += 1;
                self.bytes = self.bytes - before + open.bytes();
                return;
            }
        }
        open.push(mark, self.settings.mode);
        let by_source = opened_by_fork(&self.settings, open, &mark);
        let sooner = after(mark.at(), self.settings.grace, Nanos(0));
        if may_end && (!open.may_have_ended || sooner < open.due) {
            open.may_have_ended = true;
            self.due.remove(&(open.due, key));
            open.due = sooner;
            self.due.insert((open.due, key));
        }
        self.bytes = self.bytes - before + open.bytes();
        if by_source {
            self.opened_by_claim(key, &mark);
        }
        self.check(key, &mark);
    }

    /// Rejects a start as soon as a mark shows that it is none.
    fn check(&mut self, key: Key, mark: &Stamped) {
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        if let OpenedBy::Cgroup(cgroup) = open.cgroup
            && let Some(path) = self.cgroups.path(cgroup)
        {
            if !Place::opens_start(path) {
                self.give_up(key, Reason::OtherCgroup);
                return;
            }
            open.cgroup = OpenedBy::Place;
        }
        let begin = open.opening.begin;
        let own = open.marks().first().map_or(0, |first| first.cgroup);
        let runtime = open.opening.role == Role::Runtime && mark.kind == Kind::Exec;
        if runtime && own != 0 && mark.cgroup != own && self.was_populated(mark.cgroup, begin) {
            self.give_up(key, Reason::Joined);
        }
    }

    /// A long wait for a lock: part of the start whose process waited, if that is open.
    fn accept_wait(&mut self, record: &LockWait) {
        let Some(wait) = Wait::of(record) else { return };
        let key = match (wait.watch, self.settings.mode) {
            (Some(watch @ 1..), _) => Key::Watch(watch),
            (_, Mode::Daemon { every_exec: true }) => Key::Process(Process {
                tgid: wait.waiter.pid,
                start_boottime: wait.waiter.start_boottime.0,
            }),
            _ => return,
        };
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let before = open.bytes();
        open.wait(parts::of_wait(&wait));
        self.bytes = self.bytes - before + open.bytes();
        self.make_room(key);
    }

    fn accept_name(&mut self, text: &Text) {
        let process = Process {
            tgid: text.tgid,
            start_boottime: text.start_boottime,
        };
        let at = Boottime(text.boottime_ns);
        let exec = self
            .recent_execs
            .iter()
            .position(|&(p, t, _)| (p, t) == (process, at));
        let key = exec
            .and_then(|index| self.recent_execs.remove(index))
            .map(|(.., key)| key);
        let Some((key, open)) = key.and_then(|key| Some((key, self.open.get_mut(&key)?))) else {
            self.stats.names_dropped += 1;
            return;
        };
        let file: Box<str> = until_zero(&text.long).into();
        let argv0 = Some(until_zero(&text.short)).filter(|argv0| !argv0.is_empty());
        let by_exec = open.opening.opener == Opener::Exec && open.rule.is_none();
        let opens = by_exec && open.opening.process.is_none_or(|opener| opener == process);
        let watched = matches!(key, Key::Watch(_));
        let mut other = false;
        if opens && watched {
            let rules = &self.settings.rules;
            open.rule = rules.iter().position(|rule| rule.executable.matches(&file));
            if let Some(rule) = open.rule {
                open.opening.role = rules[rule].role;
                open.opening.process = Some(process);
                let deadline = rules[rule].deadline.unwrap_or(self.settings.deadline);
                if !open.may_have_ended {
                    self.due.remove(&(open.due, key));
                    open.due = after(open.opening.begin, deadline, self.settings.grace);
                    self.due.insert((open.due, key));
                }
            }
            other = open.rule.is_none() && open.opening.process == Some(process);
        }
        // A traced command that is a runtime is cut as one: what it starts is the program.
        if open.opening.opener == Opener::Trace && !open.has_names() {
            let mut rules = self.settings.rules.iter();
            open.rule =
                rules.position(|rule| rule.role == Role::Runtime && rule.executable.matches(&file));
            if open.rule.is_some() {
                open.opening.role = Role::Runtime;
            }
        }
        let before = open.bytes();
        open.name(ExecName {
            process,
            at,
            file,
            argv0: argv0.map(Into::into),
        });
        self.bytes = self.bytes - before + open.bytes();
        if other {
            self.give_up(key, Reason::OtherExecutable);
        }
    }
}

fn ready_rule<'a>(settings: &'a Settings, open: &Open) -> &'a ReadyRule {
    if open.claim.is_some() {
        return &settings.ready_of_claimed;
    }
    let rule = open
        .rule
        .and_then(|rule| settings.rules[rule].ready.as_ref());
    rule.unwrap_or(&settings.ready)
}

/// Which fork server this process is. The kernel side knows it by its name; where several
/// have a rule, the server, which lives on, is looked at.
fn fork_server_rule(settings: &Settings, server: u32) -> Option<usize> {
    let rules = settings.rules.iter().enumerate();
    let servers: Vec<_> = rules
        .filter(|(_, rule)| rule.role == Role::ForkServer)
        .collect();
    if let [(only, _)] = servers[..] {
        return Some(only);
    }
    let exe = std::fs::read_link(format!("/proc/{server}/exe")).ok()?;
    let exe = exe.to_string_lossy();
    servers
        .iter()
        .find(|(_, rule)| rule.executable.matches(&exe))
        .map(|&(index, _)| index)
}

/// Gives a start opened by a fork its rule, or its cgroup to be looked at; whether a source forked
/// it.
fn opened_by_fork(settings: &Settings, open: &mut Open, mark: &Stamped) -> bool {
    let by_child = open.opening.process == Some(mark.process());
    let by_opener = mark.kind == Kind::Fork && mark.at() == open.opening.begin;
    match open.opening.opener {
        Opener::Cgroup if by_child && open.cgroup == OpenedBy::Unknown && mark.cgroup != 0 => {
            open.cgroup = OpenedBy::Cgroup(mark.cgroup);
        }
        Opener::Fork if by_opener => {
            open.opening.role = Role::ForkServer;
            open.rule = fork_server_rule(settings, mark.tgid);
            return true;
        }
        _ => {}
    }
    false
}

fn after(at: Boottime, length: Nanos, more: Nanos) -> Boottime {
    Boottime(at.0.saturating_add(length.0).saturating_add(more.0))
}
