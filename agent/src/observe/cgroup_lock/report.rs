//! What was seen of the cgroup locks since some moment, as it is told.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::times::{Summary, merged, since};
use super::wait::{Task, Wait};
use crate::kernel::cgroup_lock::{LockCgroupCounts, LockCounts, LockSnapshot, Times};
use crate::kernel::symbols::{SymbolsError, kernel_names};
use crate::observe::identity::CgroupNames;
use crate::time::{Boottime, Nanos};

/// Cgroups told by name; the others are one row.
const CGROUPS: usize = 50;
/// Frames of a stack that are told.
const FRAMES: usize = 12;

/// One lock and operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockLine {
    /// Lock.
    pub lock: &'static str,
    /// Operation.
    pub operation: &'static str,
    /// Of those who had to wait for it; `None` where nobody had to.
    pub wait: Option<Summary>,
    /// Of those who had it; `None` where none was measured.
    pub hold: Option<Summary>,
    /// Whether `hold` is exact; else it is an upper bound, and of contended holds only.
    pub hold_exact: bool,
}

/// One cgroup: that of the tasks that waited, or had a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CgroupLine {
    /// Path within the hierarchy with the memory controller; `None` of all those together whose
    /// names are not known, because they are gone, or that are beyond the bound.
    pub path: Option<String>,
    /// Cgroups in this row.
    pub cgroups: u64,
    /// Waits of its tasks.
    pub waits: u64,
    /// How long they waited, all together.
    pub wait_ns: Nanos,
    /// The longest wait.
    pub wait_max_ns: Nanos,
    /// What they waited for longest, all together; `None` where they did not wait.
    pub lock: Option<&'static str>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskLine {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its cgroup's path, where that is known.
    pub cgroup: Option<String>,
}

/// Who had the lock when the wait began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderLine {
    /// The task.
    #[serde(flatten)]
    pub task: TaskLine,
    /// What it had the lock for, where its acquisition was seen.
    pub operation: Option<&'static str>,
    /// How long it had had it when the wait began, likewise.
    pub held_ns: Option<Nanos>,
}

/// One of the longest waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitLine {
    /// Lock.
    pub lock: &'static str,
    /// What the waiter was doing.
    pub operation: &'static str,
    /// When it began.
    #[serde(rename = "begin_ns")]
    pub begin: Boottime,
    /// How long it was.
    pub wait_ns: Nanos,
    /// Who waited.
    pub waiter: TaskLine,
    /// Who had it; `None` where that is not known, and of a grace period.
    pub holder: Option<HolderLine>,
    /// The waiter's kernel stack, innermost first; `None` where addresses have no names here.
    pub stack: Option<Vec<String>>,
}

/// Everything. Its JSON form is the stable interface described by
/// `docs/schema/locks.schema.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockReport {
    /// Since when.
    #[serde(rename = "begin_ns")]
    pub begin: Boottime,
    /// Until when.
    #[serde(rename = "end_ns")]
    pub end: Boottime,
    /// By kind, the strategy that measures it on this kernel.
    pub strategies: BTreeMap<String, String>,
    /// By lock and operation; what was waited for longest, all together, first.
    pub locks: Vec<LockLine>,
    /// By cgroup; which waited longest, all together, first.
    pub cgroups: Vec<CgroupLine>,
    /// The longest waits, longest first.
    pub worst: Vec<WaitLine>,
    /// Waits longer than the threshold of which there is a record.
    pub recorded: u64,
    /// Why the stacks have no names, where they have none.
    pub no_stacks: Option<String>,
    /// Records known to be lost.
    pub lost: u64,
}

/// The counts of the time between two readings.
#[must_use]
pub fn counts_since(now: &LockSnapshot, before: &LockSnapshot) -> Vec<LockCounts> {
    let earlier: HashMap<_, _> = before
        .counts
        .iter()
        .map(|counts| ((counts.lock, counts.operation), counts))
        .collect();
    let counts = now.counts.iter().map(|counts| {
        let Some(earlier) = earlier.get(&(counts.lock, counts.operation)) else {
            return *counts;
        };
        LockCounts {
            wait: since(&counts.wait, &earlier.wait),
            hold: since(&counts.hold, &earlier.hold),
            ..*counts
        }
    });
    counts
        .filter(|counts| counts.wait.count + counts.hold.count > 0)
        .collect()
}

/// Likewise by cgroup. The longest wait of the time since is not known where an older one was
/// longer; it was no longer than `longest`, and not longer than all together.
#[must_use]
pub fn cgroups_since(
    now: &LockSnapshot,
    before: &LockSnapshot,
    longest: Nanos,
) -> Vec<LockCgroupCounts> {
    let key = |one: &LockCgroupCounts| (one.lock, one.operation, one.cgroup);
    let earlier: HashMap<_, _> = before.cgroups.iter().map(|one| (key(one), one)).collect();
    let counts = now.cgroups.iter().map(|one| {
        let mut since = *one;
        let totals = &mut since.totals;
        // One that began anew has come as a whole.
        if let Some(before) = earlier.get(&key(one)).map(|before| before.totals)
            && before.wait_count <= totals.wait_count
        {
            totals.wait_count -= before.wait_count;
            totals.wait_sum_ns = totals.wait_sum_ns.saturating_sub(before.wait_sum_ns);
        }
        totals.wait_max_ns = totals.wait_max_ns.min(longest.0).min(totals.wait_sum_ns);
        since
    });
    counts.collect()
}

/// By lock and operation; what was waited for longest first, then what was held longest.
#[must_use]
pub fn lock_lines(counts: &[LockCounts]) -> Vec<LockLine> {
    let mut lines: Vec<LockLine> = counts
        .iter()
        .map(|counts| LockLine {
            lock: counts.lock.name(),
            operation: counts.operation.name(),
            wait: Summary::of(&counts.wait),
            hold: Summary::of(&counts.hold),
            hold_exact: counts.hold_exact,
        })
        .collect();
    let sum = |summary: &Option<Summary>| summary.map_or(Nanos(0), |summary| summary.sum_ns);
    lines.sort_by_key(|line| std::cmp::Reverse((sum(&line.wait), sum(&line.hold))));
    lines
}

/// All operations of one lock together.
#[must_use]
pub fn waits_of(counts: &[LockCounts], lock: hearth_abi::Lock) -> Times {
    let of = counts.iter().filter(|counts| counts.lock == lock);
    of.fold(Times::NONE, |sum, counts| merged(&sum, &counts.wait))
}

/// By cgroup, named, the longest waiters first; a bounded number, and one row for the rest.
#[must_use]
pub fn cgroup_lines(
    counts: &[LockCgroupCounts],
    names: &mut CgroupNames,
    now: Boottime,
) -> Vec<CgroupLine> {
    let mut by_id: HashMap<u64, (CgroupLine, BTreeMap<&'static str, u64>)> = HashMap::new();
    for one in counts.iter().filter(|one| one.totals.wait_count > 0) {
        let (line, locks) = by_id.entry(one.cgroup).or_insert_with(|| {
            let line = CgroupLine {
                path: names.look_up(one.cgroup, now).map(str::to_owned),
                cgroups: 1,
                waits: 0,
                wait_ns: Nanos(0),
                wait_max_ns: Nanos(0),
                lock: None,
            };
            (line, BTreeMap::new())
        });
        line.waits += one.totals.wait_count;
        line.wait_ns.0 += one.totals.wait_sum_ns;
        line.wait_max_ns.0 = line.wait_max_ns.0.max(one.totals.wait_max_ns);
        *locks.entry(one.lock.name()).or_default() += one.totals.wait_sum_ns;
    }
    let mut found: Vec<_> = by_id.into_values().collect();
    found.sort_by_key(|(line, _)| std::cmp::Reverse((line.wait_ns, line.waits)));
    let mut lines = Vec::new();
    let mut rest: Option<(CgroupLine, BTreeMap<&'static str, u64>)> = None;
    for (mut line, locks) in found {
        if line.path.is_some() && lines.len() < CGROUPS {
            line.lock = longest(&locks);
            lines.push(line);
            continue;
        }
        let Some((sum, sums)) = &mut rest else {
            line.path = None;
            rest = Some((line, locks));
            continue;
        };
        sum.cgroups += 1;
        sum.waits += line.waits;
        sum.wait_ns.0 += line.wait_ns.0;
        sum.wait_max_ns = sum.wait_max_ns.max(line.wait_max_ns);
        for (lock, ns) in locks {
            *sums.entry(lock).or_default() += ns;
        }
    }
    if let Some((mut line, locks)) = rest {
        line.lock = longest(&locks);
        let at = lines.partition_point(|other: &CgroupLine| other.wait_ns >= line.wait_ns);
        lines.insert(at, line);
    }
    lines
}

fn longest(locks: &BTreeMap<&'static str, u64>) -> Option<&'static str> {
    locks
        .iter()
        .max_by_key(|(_, ns)| **ns)
        .map(|(lock, _)| *lock)
}

/// Names of the functions in the stacks that are shown, each looked up once.
#[derive(Debug, Default)]
pub struct StackNames {
    known: HashMap<u64, Option<String>>,
}

impl StackNames {
    /// Names of `addresses`; forgets those of all others.
    fn of(&mut self, addresses: &[u64]) -> Result<Vec<Option<String>>, SymbolsError> {
        let new: Vec<u64> = addresses
            .iter()
            .copied()
            .filter(|address| !self.known.contains_key(address))
            .collect();
        match kernel_names(&new) {
            Ok(names) => self.known.extend(new.into_iter().zip(names)),
            // Others have names: these have none.
            Err(_) if self.known.values().any(Option::is_some) => {
                self.known
                    .extend(new.into_iter().map(|address| (address, None)));
            }
            Err(error) => return Err(error),
        }
        self.known.retain(|address, _| addresses.contains(address));
        let names = addresses.iter().map(|address| self.known.get(address));
        Ok(names.map(|name| name.cloned().flatten()).collect())
    }
}

/// The waits with the names of everything; and why stacks have none, where they have none.
#[must_use]
pub fn wait_lines(
    waits: &[Wait],
    names: &mut CgroupNames,
    stacks: &mut StackNames,
    now: Boottime,
) -> (Vec<WaitLine>, Option<String>) {
    let addresses: Vec<u64> = waits.iter().flat_map(|wait| &wait.stack).copied().collect();
    // A return address lies behind the call, which may be the last instruction of its function.
    let calls: Vec<u64> = addresses.iter().map(|address| address - 1).collect();
    let (symbols, why) = match stacks.of(&calls) {
        Ok(symbols) => (symbols, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut symbols = symbols.into_iter();
    let mut task = |task: &Task| TaskLine {
        pid: task.pid,
        tid: task.tid,
        comm: task.comm.clone(),
        cgroup: names.look_up(task.cgroup, now).map(str::to_owned),
    };
    let lines = waits.iter().map(|wait| WaitLine {
        lock: wait.lock.name(),
        operation: wait.operation.name(),
        begin: wait.begin,
        wait_ns: wait.length(),
        waiter: task(&wait.waiter),
        holder: wait.holder.as_ref().map(|holder| HolderLine {
            task: task(&holder.task),
            operation: holder.operation.map(hearth_abi::Operation::name),
            held_ns: holder.since.map(|since| wait.begin.since(since)),
        }),
        stack: (why.is_none() && !wait.stack.is_empty())
            .then(|| frames(symbols.by_ref().take(wait.stack.len()), &wait.stack)),
    });
    (lines.collect(), why)
}

/// Names of a stack's frames, without those of the probe that took it.
fn frames(symbols: impl Iterator<Item = Option<String>>, addresses: &[u64]) -> Vec<String> {
    let named: Vec<String> = symbols
        .zip(addresses)
        .map(|(name, address)| {
            let function = name.map(|name| match name.split_once('+') {
                Some((function, _)) => function.to_owned(),
                None => name,
            });
            function.unwrap_or_else(|| format!("{address:#x}"))
        })
        .collect();
    let of_probe = |name: &String| {
        ["bpf_", "__bpf_", "__traceiter_", "trace_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let first = named.iter().rposition(of_probe).map_or(0, |last| last + 1);
    named.into_iter().skip(first).take(FRAMES).collect()
}

#[cfg(test)]
mod tests {
    use hearth_abi::{Lock, LockTotals, Operation, bucket_of};

    use super::*;

    fn counts(lock: Lock, waits: &[u64]) -> LockCounts {
        let mut wait = Times::NONE;
        for &ns in waits {
            wait.count += 1;
            wait.sum.0 += ns;
            wait.max.0 = wait.max.0.max(ns);
            wait.buckets[bucket_of(ns)] += 1;
        }
        LockCounts {
            lock,
            operation: Operation::Mkdir,
            wait,
            hold: Times::NONE,
            hold_exact: true,
        }
    }

    fn of_cgroup(cgroup: u64, lock: Lock, wait_sum_ns: u64) -> LockCgroupCounts {
        LockCgroupCounts {
            lock,
            operation: Operation::Mkdir,
            cgroup,
            totals: LockTotals {
                wait_count: 1,
                wait_sum_ns,
                wait_max_ns: wait_sum_ns,
                ..LockTotals::default()
            },
        }
    }

    #[test]
    fn what_is_waited_for_longest_comes_first_and_no_wait_is_none() {
        let quiet = counts(Lock::Rcu, &[]);
        let lines = lock_lines(&[
            counts(Lock::Kernfs, &[5]),
            quiet,
            counts(Lock::CgroupMutex, &[9]),
        ]);
        let order: Vec<_> = lines.iter().map(|line| line.lock).collect();
        assert_eq!(order, ["cgroup_mutex", "kernfs", "rcu"]);
        assert!(lines[2].wait.is_none() && lines[0].hold.is_none());
    }

    #[test]
    fn only_what_came_since_is_counted() {
        let snapshot = |waits: &[u64]| LockSnapshot {
            counts: vec![counts(Lock::CgroupMutex, waits)],
            cgroups: Vec::new(),
        };
        let before = snapshot(&[7_000]);
        assert!(counts_since(&before, &before).is_empty());
        let now = counts_since(&snapshot(&[7_000, 9_000_000]), &before);
        assert_eq!((now[0].wait.count, now[0].wait.max), (1, Nanos(9_000_000)));
        assert_eq!(waits_of(&now, Lock::CgroupMutex).count, 1);
        assert_eq!(waits_of(&now, Lock::Rcu).count, 0);
    }

    #[test]
    fn cgroups_are_named_and_the_nameless_are_one_row() {
        let mut names = CgroupNames::new();
        names.tell(1, "/a");
        names.tell(2, "/b");
        let lines = cgroup_lines(
            &[
                of_cgroup(1, Lock::Kernfs, 3),
                of_cgroup(1, Lock::CgroupMutex, 4),
                of_cgroup(2, Lock::Rcu, 50),
                of_cgroup(8, Lock::Rcu, 5),
                of_cgroup(9, Lock::Kernfs, 6),
            ],
            &mut names,
            Boottime(0),
        );
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.path.as_deref(),
                    line.cgroups,
                    line.wait_ns.0,
                    line.lock,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Some("/b"), 1, 50, Some("rcu")),
                (None, 2, 11, Some("kernfs")),
                (Some("/a"), 1, 7, Some("cgroup_mutex")),
            ]
        );
    }

    #[test]
    fn cgroups_beyond_the_bound_are_one_row() {
        let mut names = CgroupNames::new();
        let ids = 1..=CGROUPS as u64 + 7;
        let counts: Vec<_> = ids
            .map(|id| {
                names.tell(id, "/x");
                of_cgroup(id, Lock::Rcu, 100 + id)
            })
            .collect();
        let lines = cgroup_lines(&counts, &mut names, Boottime(0));
        let rest = lines.iter().find(|line| line.path.is_none()).expect("rest");
        assert_eq!((lines.len(), rest.cgroups), (CGROUPS + 1, 7));
        let waits: u64 = lines.iter().map(|line| line.waits).sum();
        assert_eq!(waits, counts.len() as u64);
    }

    #[test]
    fn frames_of_the_probe_itself_are_left_out() {
        let names = [
            "bpf_prog_1_x",
            "bpf_trace_run2",
            "__mutex_lock.isra.0+0x1",
            "cgroup_mkdir",
        ];
        let symbols = names
            .iter()
            .map(|name| Some((*name).to_owned()))
            .chain([None]);
        let told = frames(symbols, &[1, 2, 3, 4, 255]);
        assert_eq!(told, ["__mutex_lock.isra.0", "cgroup_mkdir", "0xff"]);
    }
}
