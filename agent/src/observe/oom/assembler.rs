//! Records of one kill to one capture: bounded, deduplicated by thread, and never held longer
//! than a deadline.

use std::collections::{BTreeMap, HashMap, VecDeque};

use hearth_abi::{OomContent, OomEnd, OomKill, OomMemory, OomThread, OomVma, oom_thread};

use super::command;
use super::fields;
use super::looker::Looked;
use super::model::{
    Absent, Asker, Before, Capture, CaptureId, CgroupState, Completeness, Known, Reason, Thread,
    TraceLink, Victim,
};
use crate::kernel::event::OomEvent;
use crate::observe::identity::Place;
use crate::time::{Boottime, Nanos};

/// How long a capture waits for the threads of its victim.
const DEADLINE: Nanos = Nanos(2_000_000_000);
/// How long it waits once the last thread is gone, for records that are under way on other CPUs.
const GRACE: Nanos = Nanos(30_000_000);
/// Captures that are open at once; the oldest is finished as it is when there are more.
const OPEN: usize = 128;
/// Bytes of records that wait, in open captures and of threads whose kill is yet to come.
const BYTES: usize = 12 << 20;

/// What is known around a kill the moment that its first record arrives.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Path of the victim's cgroup.
    pub victim_cgroup: Option<String>,
    /// Path of the asker's cgroup.
    pub asker_cgroup: Option<String>,
    /// Path of the cgroup whose limit was hit, else of the victim's.
    pub cgroup: Option<String>,
    /// File of the victim's last exec.
    pub exe: Known<String>,
    /// What the files of the cgroup say.
    pub state: Known<CgroupState>,
    /// What the flight recorder saw.
    pub before: Known<Before>,
    /// Whether the cgroups are still being looked at: [`Assembler::looked`] tells the rest.
    pub is_pending: bool,
}

/// What is the same for all captures of this run.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Boot id of the node.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether command lines are masked.
    pub mask: bool,
}

/// What the assembler did and holds; totals but for `open` and `bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssemblerStats {
    /// Captures that are open.
    pub open: usize,
    /// Bytes that wait.
    pub bytes: usize,
    /// Kills that were told.
    pub kills: u64,
    /// Captures that were finished before their time to make room.
    pub hurried: u64,
    /// Records that told what was known already: of a thread, or of a kill.
    pub repeated: u64,
    /// Records of no kill: late, or of a process that died of another signal.
    pub unmatched: u64,
}

/// Id and process of a capture on its way.
pub type Key = (u64, u32);

/// That of `kill`.
#[must_use]
pub const fn key_of(kill: &OomKill) -> Key {
    (kill.id, kill.victim.tgid)
}

#[derive(Debug)]
struct Open {
    kill: Box<OomKill>,
    around: Surroundings,
    threads: BTreeMap<(u64, u32), Box<OomThread>>,
    memory: Vec<Box<OomMemory>>,
    vmas: Vec<OomVma>,
    end: Option<Box<OomEnd>>,
    due: Boottime,
    /// When it is finished at the latest.
    deadline: Boottime,
    bytes: usize,
}

/// Collects the records of each kill until its victim is gone.
#[derive(Debug)]
pub struct Assembler {
    about: About,
    open: HashMap<Key, Open>,
    /// Records whose kill has not been told yet, with the time from which nobody waits for it.
    early: VecDeque<(Boottime, OomEvent)>,
    early_bytes: usize,
    stats: AssemblerStats,
}

impl Assembler {
    /// An assembler that has seen nothing.
    #[must_use]
    pub fn new(about: About) -> Self {
        Self {
            about,
            open: HashMap::new(),
            early: VecDeque::new(),
            early_bytes: 0,
            stats: AssemblerStats::default(),
        }
    }

    /// Takes in one record. `look` is asked what is known around a kill as soon as it is told.
    pub fn accept(
        &mut self,
        event: OomEvent,
        now: Boottime,
        look: impl FnOnce(&OomKill) -> Surroundings,
    ) {
        match event {
            OomEvent::Kill(kill) => self.kill(kill, now, look),
            other => {
                if let Some(event) = self.add(other, now) {
                    self.early_bytes += bytes(&event);
                    self.early.push_back((after(now, DEADLINE), event));
                }
            }
        }
    }

    /// The captures that are complete by `now`, or are waited for no longer. `unix_ns` turns
    /// boot time into time since 1970.
    pub fn advance(&mut self, now: Boottime, unix_ns: impl Fn(Boottime) -> u64) -> Vec<Capture> {
        while let Some((until, _)) = self.early.front() {
            if *until > now && self.bytes() <= BYTES {
                break;
            }
            let dropped = self.early.pop_front();
            self.early_bytes -= dropped.map_or(0, |(_, event)| bytes(&event));
            self.stats.unmatched += 1;
        }
        let mut due: Vec<(Boottime, Key)> = self
            .open
            .iter()
            .map(|(key, open)| (open.due, *key))
            .collect();
        due.sort_unstable();
        let mut finished = Vec::new();
        for (due, key) in due {
            let crowded = self.open.len() > OPEN || self.bytes() > BYTES;
            if due > now && !crowded {
                break;
            }
            let waits = |open: &Open| open.around.is_pending && open.deadline > now;
            if !crowded && self.open.get(&key).is_some_and(waits) {
                continue;
            }
            self.stats.hurried += u64::from(due > now);
            if let Some(open) = self.open.remove(&key) {
                finished.push(self.finish(open, &unix_ns));
            }
        }
        finished
    }

    /// The cgroups of a kill were looked at.
    pub fn looked(&mut self, looked: Looked) {
        if let Some(open) = self.open.get_mut(&looked.key) {
            open.around.victim_cgroup = looked.cgroups.victim.1;
            open.around.asker_cgroup = looked.cgroups.asker.1;
            open.around.cgroup = looked.cgroups.concerned.1;
            open.around.state = looked.state;
            open.around.is_pending = false;
        }
    }

    /// What it did and holds.
    #[must_use]
    pub fn stats(&self) -> AssemblerStats {
        AssemblerStats {
            open: self.open.len(),
            bytes: self.bytes(),
            ..self.stats
        }
    }

    fn bytes(&self) -> usize {
        self.early_bytes + self.open.values().map(|open| open.bytes).sum::<usize>()
    }

    fn kill(
        &mut self,
        kill: Box<OomKill>,
        now: Boottime,
        look: impl FnOnce(&OomKill) -> Surroundings,
    ) {
        let key = key_of(&kill);
        if self.open.contains_key(&key) {
            self.stats.repeated += 1;
            return;
        }
        self.stats.kills += 1;
        let around = look(&kill);
        let open = Open {
            bytes: size_of::<OomKill>(),
            kill,
            around,
            threads: BTreeMap::new(),
            memory: Vec::new(),
            vmas: Vec::new(),
            end: None,
            due: after(now, DEADLINE),
            deadline: after(now, DEADLINE),
        };
        self.open.insert(key, open);
        // What came before its kill finds it now, and what is of others waits on.
        for (until, event) in std::mem::take(&mut self.early) {
            self.early_bytes -= bytes(&event);
            if let Some(event) = self.add(event, now) {
                self.early_bytes += bytes(&event);
                self.early.push_back((until, event));
            }
        }
    }

    /// Adds a record to its capture; hands it back where there is none.
    fn add(&mut self, event: OomEvent, now: Boottime) -> Option<OomEvent> {
        let (id, process, start) = whose(&event);
        let key = if id == 0 {
            let mut of_process = self.open.iter().filter(|(_, open)| {
                let victim = &open.kill.victim;
                (victim.tgid, victim.start_boottime) == (process, start)
            });
            of_process.next().map(|(key, _)| *key)
        } else {
            Some((id, process))
        };
        let Some(open) = key.and_then(|key| self.open.get_mut(&key)) else {
            return Some(event);
        };
        let added = bytes(&event);
        match event {
            OomEvent::Kill(_) => {}
            OomEvent::Thread(thread) => {
                let tid = thread.task.tid;
                if open.threads.keys().any(|(_, known)| *known == tid) {
                    self.stats.repeated += 1;
                    return None;
                }
                if thread.flags & oom_thread::LAST != 0 {
                    open.due = open.due.min(after(now, GRACE));
                }
                open.threads.insert((thread.boottime_ns, tid), thread);
            }
            OomEvent::Memory(memory) => open.memory.push(memory),
            OomEvent::Vma(vma) => {
                if open.vmas.iter().any(|known| known.start == vma.start) {
                    self.stats.repeated += 1;
                    return None;
                }
                open.vmas.push(*vma);
            }
            OomEvent::End(end) => {
                open.due = open.due.min(after(now, GRACE));
                open.end = Some(end);
            }
        }
        open.bytes += added;
        None
    }

    fn finish(&self, open: Open, unix_ns: &impl Fn(Boottime) -> u64) -> Capture {
        let Open {
            kill,
            around,
            threads: records,
            memory,
            mut vmas,
            end,
            ..
        } = open;
        vmas.sort_unstable_by_key(|vma| vma.start);
        let mappings: Vec<_> = vmas.iter().map(fields::mapping).collect();
        let of = |tid: u32, content: OomContent| {
            let mut found = memory
                .iter()
                .filter(|memory| memory.content == content as u16);
            found
                .find(|memory| memory.tid == tid)
                .map(|memory| &**memory)
        };
        let mut threads: Vec<Thread> = records
            .values()
            .map(|record| {
                let tid = record.task.tid;
                fields::thread(record, &mappings, of(tid, OomContent::Stack))
            })
            .collect();
        let expected = end
            .as_ref()
            .map_or(0, |end| end.recorded.saturating_add(end.unrecorded))
            .max(kill.threads);
        let seen = u32::try_from(threads.len()).unwrap_or(u32::MAX);
        let threads_missing = expected.saturating_sub(seen);
        let completeness = match (seen, threads_missing) {
            (0, _) => Completeness::KillOnly,
            (_, 0) => Completeness::Complete,
            _ => Completeness::SomeThreads,
        };
        if !threads.iter().any(|thread| thread.tid == kill.victim.tid) {
            threads.insert(0, fields::thread_at_kill(&kill));
        }
        let line = memory
            .iter()
            .find(|memory| memory.content == OomContent::CommandLine as u16);
        let killed = Boottime(kill.id);
        let killed_unix_ns = unix_ns(killed);
        Capture {
            id: CaptureId::of(killed_unix_ns, kill.victim.tgid),
            hearth: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.about.boot_id.clone(),
            kernel: self.about.kernel.clone(),
            killed,
            killed_unix_ns,
            completeness,
            masked: self.about.mask,
            kill: fields::kill(&kill),
            victim: self.victim(
                &kill,
                &around,
                line.map(|memory| &**memory),
                records
                    .values()
                    .find_map(|record| fields::no_command(record)),
            ),
            asker: Asker {
                pid: kill.asker.tgid,
                tid: kill.asker.tid,
                comm: fields::comm(&kill.asker),
                cgroup: fields::cgroup(kill.asker.cgroup, around.asker_cgroup.as_deref()),
                kernel_stack: fields::asker_stack(&kill),
            },
            cgroup: fields::cgroup(concerned(&kill), around.cgroup.as_deref()),
            state: around.state,
            before: around.before,
            threads,
            threads_missing,
            mappings,
            trace: no_trace(),
        }
    }

    fn victim(
        &self,
        kill: &OomKill,
        around: &Surroundings,
        line: Option<&OomMemory>,
        no_line: Option<Absent>,
    ) -> Victim {
        let place = around
            .victim_cgroup
            .as_deref()
            .map(|path| Place::of(path, None));
        let place = place.unwrap_or_default();
        let command = line.map(|memory| {
            let length = memory.bytes.len().min(memory.length as usize);
            let mut arguments = command::arguments(&memory.bytes[..length]);
            if self.about.mask {
                command::mask(&mut arguments);
            }
            (arguments, memory.available.saturating_sub(length as u64))
        });
        let (command, command_cut_bytes) = match command {
            Some((arguments, cut)) => (Known::Value(arguments), cut),
            None => (
                no_line.map_or_else(|| Known::absent(
                    Reason::NotTold,
                    "the record of it was lost, or the first thread to exit did not come to its \
                     exit in time",
                ), Known::Absent),
                0,
            ),
        };
        Victim {
            pid: kill.victim.tgid,
            start_boottime: Boottime(kill.victim.start_boottime),
            uid: fields::uid(kill),
            comm: fields::comm(&kill.victim),
            command,
            command_cut_bytes,
            exe: around.exe.clone(),
            oom_score_adj: fields::adjustment(kill),
            threads: kill.threads,
            memory: fields::memory(kill),
            cgroup: fields::cgroup(kill.victim.cgroup, around.victim_cgroup.as_deref()),
            container_id: place.container_id,
            unit: place.unit,
            pod_uid: place.pod_uid,
        }
    }
}

/// The cgroup that a kill concerns: the one whose limit was hit, else the victim's.
#[must_use]
pub const fn concerned(kill: &OomKill) -> u64 {
    if kill.memcg == 0 {
        kill.victim.cgroup
    } else {
        kill.memcg
    }
}

fn no_trace() -> Known<TraceLink> {
    Known::absent(
        Reason::NotTold,
        "no cold start of this process or its cgroup was seen",
    )
}

/// Id, process and start of its leader.
fn whose(event: &OomEvent) -> (u64, u32, u64) {
    match event {
        OomEvent::Kill(kill) => (kill.id, kill.victim.tgid, kill.victim.start_boottime),
        OomEvent::Thread(thread) => (thread.id, thread.task.tgid, thread.task.start_boottime),
        OomEvent::Memory(memory) => (memory.id, memory.tgid, memory.start_boottime),
        OomEvent::Vma(vma) => (vma.id, vma.tgid, vma.start_boottime),
        OomEvent::End(end) => (end.id, end.tgid, end.start_boottime),
    }
}

fn bytes(event: &OomEvent) -> usize {
    match event {
        OomEvent::Kill(_) => size_of::<OomKill>(),
        OomEvent::Thread(_) => size_of::<OomThread>(),
        OomEvent::Memory(_) => size_of::<OomMemory>(),
        OomEvent::Vma(_) => size_of::<OomVma>(),
        OomEvent::End(_) => size_of::<OomEnd>(),
    }
}

const fn after(at: Boottime, length: Nanos) -> Boottime {
    Boottime(at.0.saturating_add(length.0))
}

#[cfg(test)]
mod tests;
