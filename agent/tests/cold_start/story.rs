//! Hand-made marks: a start told mark by mark, in microseconds after its opener.

use std::collections::HashMap;

use hearth::kernel::event::Event;
use hearth::observe::cold_start::start::Process;
use hearth::observe::cold_start::{ColdStart, Finished, Mode, Settings, Tracker};
use hearth::observe::identity::CgroupNames;
use hearth::time::Boottime;
use hearth_abi::{Counters, Kind, Mark, Part, TEXT_LONG, TEXT_SHORT, Text, flags};

/// Microsecond 0 of every story, ns after boot.
pub(crate) const ZERO_NS: u64 = 1_000_000_000_000;
/// Who traces.
pub(crate) const SOURCE: u32 = 100;
/// Flags of `vfork`.
pub(crate) const VFORK: u64 = 0x4000 | 0x100;

/// A process by its number; it was started that many ns after boot.
pub(crate) fn p(tgid: u32) -> Process {
    Process {
        tgid,
        start_boottime: u64::from(tgid),
    }
}

pub(crate) fn at(us: u64) -> u64 {
    ZERO_NS + us * 1000
}

#[derive(Clone, Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    /// Id given to marks; 0 in process mode.
    pub(crate) watch: u64,
    pub(crate) cgroups: HashMap<u32, u64>,
    born: HashMap<Process, u64>,
}

impl Story {
    /// Of a start whose opener is at 0.
    pub(crate) fn watched() -> Self {
        Self {
            watch: ZERO_NS,
            ..Self::default()
        }
    }

    /// Of processes nobody watches.
    pub(crate) fn unwatched() -> Self {
        Self::default()
    }

    /// Adds a mark of a process that ran all the time since it was forked.
    pub(crate) fn mark(&mut self, kind: Kind, us: u64, process: Process) -> &mut Mark {
        let born = *self.born.entry(process).or_insert(at(us));
        let mark = Mark {
            kind: kind as u16,
            flags: flags::ACCOUNTED | flags::RUN_DELAY | flags::WATCHED,
            cpu: 0,
            boottime_ns: at(us),
            tid: process.tgid,
            tgid: process.tgid,
            start_boottime: process.start_boottime,
            parent: 1,
            threads: 1,
            cgroup: self.cgroups.get(&process.tgid).copied().unwrap_or(1),
            watch: self.watch,
            args: [0; 3],
            counters: Counters {
                running_ns: at(us) - born,
                minor_faults: u32::try_from((at(us) - born) / 1000).expect("a short story"),
                ..Counters::default()
            },
        };
        self.events.push(Event::Mark(kind, mark));
        match self.events.last_mut() {
            Some(Event::Mark(_, mark)) => mark,
            _ => unreachable!("pushed just now"),
        }
    }

    pub(crate) fn fork(&mut self, us: u64, creator: Process, child: Process) -> &mut Mark {
        self.born.insert(child, at(us));
        let mark = self.mark(Kind::Fork, us, creator);
        mark.args = [child.tgid.into(), child.start_boottime, 17];
        mark
    }

    pub(crate) fn exec(&mut self, begin: u64, done: u64, process: Process, file: &str) {
        let inode = file
            .bytes()
            .fold(7, |sum, byte| sum * 31 % 65_521 + u64::from(byte));
        self.exec_of(begin, done, process, file, inode);
    }

    pub(crate) fn exec_of(
        &mut self,
        begin: u64,
        done: u64,
        process: Process,
        file: &str,
        inode: u64,
    ) {
        self.mark(Kind::ExecBegin, begin, process);
        self.mark(Kind::Exec, done, process).args = [inode, 1, 0];
        self.text(Kind::ExecText, done, process, inode, file);
    }

    pub(crate) fn text(&mut self, kind: Kind, us: u64, process: Process, id: u64, long: &str) {
        let mut text = Text {
            kind: kind as u16,
            flags: 0,
            tgid: process.tgid,
            boottime_ns: at(us),
            start_boottime: process.start_boottime,
            id,
            long: [0; TEXT_LONG],
            short: [0; TEXT_SHORT],
        };
        text.long[..long.len()].copy_from_slice(long.as_bytes());
        let argv0 = long.rsplit('/').next().unwrap_or(long);
        text.short[..argv0.len()].copy_from_slice(argv0.as_bytes());
        self.events.push(Event::Text(kind, text));
    }

    /// A cgroup became populated.
    pub(crate) fn populated(&mut self, us: u64, cgroup: u64, path: &str) {
        self.text(Kind::CgroupPath, us, p(1), cgroup, path);
        let mark = self.mark(Kind::CgroupPopulated, us, p(1));
        mark.args = [cgroup, 1, 0];
        mark.watch = 0;
    }

    pub(crate) fn part(&mut self, part: Part, begin: u64, end: u64, process: Process) {
        self.mark(Kind::Part, end, process).args = [part as u64, at(begin), 0];
    }

    /// `exec`, `entry`, `main` of one program.
    pub(crate) fn program(&mut self, us: [u64; 4], process: Process, file: &str) {
        self.exec(us[0], us[1], process, file);
        self.mark(Kind::Entry, us[2], process);
        self.mark(Kind::Main, us[3], process);
    }

    /// Loses the `nth` mark of a kind.
    pub(crate) fn without(mut self, kind: Kind, nth: usize) -> Self {
        let mut seen = 0;
        self.events.retain(|event| match event {
            Event::Mark(of, _) if *of == kind => {
                seen += 1;
                seen != nth + 1
            }
            _ => true,
        });
        self
    }

    /// The starts that a tracker makes of it.
    pub(crate) fn starts(&self, settings: Settings) -> Vec<ColdStart> {
        self.tell(&mut Tracker::new(settings, CgroupNames::new()))
            .into_iter()
            .map(|finished| finished.start)
            .collect()
    }

    /// The one start of a `hearth trace`.
    pub(crate) fn traced(&self) -> ColdStart {
        let mut starts = self.starts(trace());
        assert_eq!(starts.len(), 1, "{starts:#?}");
        starts.remove(0)
    }

    /// Tells it all, then lets ten minutes pass.
    pub(crate) fn tell(&self, tracker: &mut Tracker) -> Vec<Finished> {
        for event in &self.events {
            tracker.accept(event);
        }
        tracker.advance(Boottime(at(600_000_000)))
    }
}

pub(crate) fn trace() -> Settings {
    Settings::new(Mode::Trace { source: SOURCE })
}

pub(crate) fn daemon(every_exec: bool) -> Settings {
    Settings::new(Mode::Daemon { every_exec })
}

/// `create 0..100, exec 100..150, ...`, in microseconds after the opener.
pub(crate) fn shape(start: &ColdStart) -> String {
    let us = |at: Boottime| (at.0 - start.begin.0) / 1000;
    let phases = start.phases.iter();
    let words =
        phases.map(|phase| format!("{} {}..{}", phase.label(), us(phase.begin), us(phase.end)));
    words.collect::<Vec<_>>().join(", ")
}

/// A wait for `cgroup_mutex` of a process of the story, held by process 9.
pub(crate) fn lock_wait(from: u64, to: u64, process: Process, watch: u64) -> Event {
    let task = |tgid, start_boottime, name: &[u8; 4]| {
        let mut comm = [0; hearth_abi::COMM_BYTES];
        comm[..4].copy_from_slice(name);
        hearth_abi::LockTask {
            tid: tgid,
            tgid,
            start_boottime,
            cgroup: 1,
            comm,
        }
    };
    let watched = if watch == 0 {
        0
    } else {
        hearth_abi::lock_flags::WATCHED
    };
    Event::LockWait(Box::new(hearth_abi::LockWait {
        kind: hearth_abi::LOCK_WAIT,
        flags: hearth_abi::lock_flags::HOLDER | watched,
        cpu: 0,
        begin_ns: at(from),
        end_ns: at(to),
        lock: hearth_abi::Lock::CgroupMutex as u32,
        operation: hearth_abi::Operation::Mkdir as u32,
        address: 0,
        waiter: task(process.tgid, process.start_boottime, b"runc"),
        holder: task(9, 9, b"crun"),
        holder_since_ns: 0,
        holder_operation: 0,
        frames: 0,
        watch,
        stack: [0; hearth_abi::LOCK_FRAMES],
    }))
}
