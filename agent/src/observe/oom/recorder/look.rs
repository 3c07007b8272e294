//! One look at the processes of a cgroup: who holds most, and what they have mapped.

use std::cmp::Reverse;
use std::fs;
use std::path::Path;

use super::maps::Maps;
use crate::observe::oom::before::ProcessMemory;
use crate::time::Boottime;

/// Processes that one look asks for their memory, by one or two short files each; a look at more
/// says that there are more. The one that holds most may be the last that is listed, so that it
/// is as many as a node has: Linux gives out 32,768 ids unless it is told to give out more.
const ASKED: usize = 32_768;
/// Cgroups below the one that is looked at whose processes are looked at too: those of a node
/// full of pods.
const DIRECTORIES: usize = 1024;
/// Processes that are told.
const TOLD: usize = 8;
/// Of these, processes whose mappings are read.
const MAPPED: usize = 4;
/// The `oom_score_adj` of a process that the kernel does not kill.
const NEVER: i16 = -1000;

/// What one look saw.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The processes that hold most, largest first.
    pub(super) processes: Vec<ProcessMemory>,
    /// Mappings of those that the kernel would choose from.
    pub(super) maps: Vec<Mapped>,
    /// Processes that were not asked because there are too many.
    pub(super) more: u64,
}

/// The mappings of one process.
#[derive(Debug)]
pub(super) struct Mapped {
    /// Which.
    pub(super) pid: u32,
    /// When it started, in ticks since boot: its id may have been another's.
    pub(super) start_ticks: u64,
    /// Its list.
    pub(super) maps: Maps,
}

/// A process that may be told.
#[derive(Debug)]
struct Candidate {
    pid: u32,
    rss: u64,
    adj: i16,
}

impl Candidate {
    fn of(pid: u32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        if pages == 0 {
            // A kernel thread, or one that is about to be gone.
            return None;
        }
        // Of small ones too: those that may be killed first often are.
        let adj = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
        Some(Self {
            pid,
            rss: pages * rustix::param::page_size() as u64,
            adj: adj.trim().parse().unwrap_or(0),
        })
    }

    /// What the kernel weighs a process by, as far as two short files tell (swap and page
    /// tables are left out); `None` for one that it does not kill.
    fn points(&self, limit: u64) -> Option<i128> {
        let adj = i128::from(self.adj) * i128::from(limit) / 1000;
        (self.adj != NEVER).then(|| i128::from(self.rss) + adj)
    }
}

/// Looks at the processes of `directory` and below it; the kernel would kill among them at
/// `limit`.
pub(super) fn at_cgroup(directory: &Path, limit: u64, at: Boottime, room: &mut Vec<u8>) -> Look {
    let mut pids = Pids::default();
    pids.below(directory);
    look(pids, limit, at, room)
}

/// Looks at all processes of the node, which has `total` bytes.
pub(super) fn at_node(total: u64, at: Boottime, room: &mut Vec<u8>) -> Look {
    let mut pids = Pids::default();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.for_each(|pid| pids.add(pid));
    look(pids, total, at, room)
}

fn look(pids: Pids, limit: u64, at: Boottime, room: &mut Vec<u8>) -> Look {
    let mut candidates: Vec<_> = pids.asked.into_iter().filter_map(Candidate::of).collect();
    let chosen = |one: &Candidate| Reverse(one.points(limit));
    candidates.sort_by_key(chosen);
    let mut look = Look {
        more: pids.more,
        ..Look::default()
    };
    for candidate in candidates.iter().take(MAPPED) {
        let Some((_, start_ticks)) = name_and_start(candidate.pid) else {
            continue;
        };
        let maps = Maps::of(candidate.pid, at, room);
        // One that is about to be gone has none.
        if let Ok(maps) = maps
            && !maps.text.is_empty()
        {
            look.maps.push(Mapped {
                pid: candidate.pid,
                start_ticks,
                maps,
            });
        }
    }
    candidates.sort_by_key(|one| Reverse(one.rss));
    candidates.truncate(TOLD);
    look.processes = candidates
        .into_iter()
        .map(|one| ProcessMemory {
            pid: one.pid,
            name: name_and_start(one.pid).map_or_else(String::new, |(name, _)| name),
            at,
            rss_bytes: one.rss,
            oom_score_adj: one.adj,
        })
        .collect();
    look
}

/// Name and start, in ticks since boot, from `/proc/PID/stat`. The name may hold anything but
/// ends with the last parenthesis; the start is field 22.
fn name_and_start(pid: u32) -> Option<(String, u64)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once(" (")?;
    Some((name.to_owned(), after.split(' ').nth(19)?.parse().ok()?))
}

/// Processes, up to a bound.
#[derive(Debug, Default)]
struct Pids {
    asked: Vec<u32>,
    more: u64,
}

impl Pids {
    fn add(&mut self, pid: u32) {
        if self.asked.len() < ASKED {
            self.asked.push(pid);
        } else {
            self.more += 1;
        }
    }

    fn below(&mut self, directory: &Path) {
        let mut directories = vec![directory.to_owned()];
        let mut visited = 0;
        while let Some(directory) = directories.pop() {
            visited += 1;
            // A threaded cgroup has none of its own.
            let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            procs
                .lines()
                .filter_map(|pid| pid.parse().ok())
                .for_each(|pid| self.add(pid));
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let inside = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let room = DIRECTORIES.saturating_sub(visited + directories.len());
            directories.extend(inside.take(room).map(|entry| entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Processes that are ended when dropped.
    struct Ended(Vec<Child>);

    impl Drop for Ended {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn start(program: &str, argument: &str) -> Child {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::piped());
        command.stdout(Stdio::null()).spawn().expect("starts")
    }

    #[test]
    fn the_largest_of_the_node_is_seen_however_many_come_before_it() {
        const HELD: usize = 64 << 20;
        let small = (0..256).map(|_| start("sleep", "300"));
        let mut processes = Ended(small.collect());
        // It keeps all that it is given until there is no more.
        let mut large = start("tail", &format!("--bytes={HELD}"));
        let given = large.stdin.as_mut().expect("a pipe");
        given.write_all(&vec![1; HELD]).expect("written");
        let pid = large.id();
        processes.0.push(large);
        let own = Candidate::of(pid).expect("it lives");
        assert!(own.rss > HELD as u64 / 2, "{own:?}");
        let look = at_node(1 << 30, Boottime(1), &mut Vec::new());
        assert_eq!(look.more, 0);
        // Other programs of this machine may hold yet more.
        let larger = look.processes.iter().filter(|one| one.rss_bytes > own.rss);
        let is_told = look.processes.iter().any(|one| one.pid == pid);
        assert!(is_told || larger.count() == TOLD, "{:?}", look.processes);
    }

    #[test]
    fn the_kernel_weighs_what_is_held_and_what_was_adjusted() {
        let one = |rss, adj| Candidate { pid: 1, rss, adj }.points(1000);
        assert_eq!(one(300, 0), Some(300));
        assert_eq!(one(300, 500), Some(800));
        assert_eq!(one(300, -500), Some(-200));
        assert_eq!(one(300, NEVER), None);
        assert!(one(300, NEVER) < one(300, -999), "it comes last");
    }

    #[test]
    fn this_process_is_known_by_name_and_start() {
        let pid = std::process::id();
        let (name, start) = name_and_start(pid).expect("own stat");
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).expect("own name");
        assert_eq!(name, comm.trim_end());
        let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
        let seconds = uptime.split('.').next().and_then(|up| up.parse().ok());
        let seconds: u64 = seconds.expect("uptime");
        let ticks = (seconds + 1) * rustix::param::clock_ticks_per_second();
        assert!(start > 0 && start <= ticks);
        assert!(Candidate::of(pid).is_some_and(|own| own.rss > 1 << 20));
    }

    #[test]
    fn processes_are_bounded_and_the_rest_counted() {
        let mut pids = Pids::default();
        (0..ASKED + 5).for_each(|_| pids.add(1));
        assert_eq!((pids.asked.len(), pids.more), (ASKED, 5));
    }
}
