//! One long wait: who waited for what, and who had it.

use hearth_abi::{Lock, LockTask, LockWait, Operation, lock_flags};

use crate::observe::text::until_zero;
use crate::time::{Boottime, Nanos};

/// A task that waited for a lock, or had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Thread.
    pub tid: u32,
    /// Process.
    pub pid: u32,
    /// `start_boottime` of the process's leader.
    pub start_boottime: Boottime,
    /// Its name; of a thread, the thread's.
    pub comm: String,
    /// Id of its cgroup in the hierarchy with the memory controller; 0 when unknown.
    pub cgroup: u64,
}

impl Task {
    fn of(task: &LockTask) -> Self {
        Self {
            tid: task.tid,
            pid: task.tgid,
            start_boottime: Boottime(task.start_boottime),
            comm: until_zero(&task.comm).into_owned(),
            cgroup: task.cgroup,
        }
    }

    /// `runc[1234]`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}[{}]", self.comm, self.pid)
    }
}

/// Who had the lock when the wait began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The task.
    pub task: Task,
    /// Since when it had it, where its acquisition was seen.
    pub since: Option<Boottime>,
    /// What it had it for, likewise.
    pub operation: Option<Operation>,
}

/// One wait that was longer than the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What was waited for.
    pub lock: Lock,
    /// What for.
    pub operation: Operation,
    /// From.
    pub begin: Boottime,
    /// To.
    pub end: Boottime,
    /// By whom.
    pub waiter: Task,
    /// Who had it; `None` where that is not known, and of a grace period, which nobody holds.
    pub holder: Option<Holder>,
    /// Id of the watched start that the waiter belongs to, if it does.
    pub watch: Option<u64>,
    /// The waiter's kernel stack, return addresses, innermost first.
    pub stack: Vec<u64>,
}

impl Wait {
    /// What a record says; `None` of a lock or an operation that this build does not know.
    #[must_use]
    pub fn of(record: &LockWait) -> Option<Self> {
        let has = |flag| record.flags & flag != 0;
        let seen = has(lock_flags::HOLDER_SINCE);
        let frames = record.stack.iter().take(record.frames as usize);
        Some(Self {
            lock: Lock::from_u32(record.lock)?,
            operation: Operation::from_u32(record.operation)?,
            begin: Boottime(record.begin_ns),
            end: Boottime(record.end_ns),
            waiter: Task::of(&record.waiter),
            holder: has(lock_flags::HOLDER).then(|| Holder {
                task: Task::of(&record.holder),
                since: seen.then_some(Boottime(record.holder_since_ns)),
                operation: seen
                    .then(|| Operation::from_u32(record.holder_operation))
                    .flatten(),
            }),
            watch: has(lock_flags::WATCHED).then_some(record.watch),
            stack: frames.copied().filter(|&address| address != 0).collect(),
        })
    }

    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Nanos {
        self.end.since(self.begin)
    }
}

/// A lock in words: `cgroup_mutex held by runc[1234]`, `an RCU grace period`.
#[must_use]
pub fn in_words(lock: &str, holder: Option<&str>) -> String {
    if lock == Lock::Rcu.name() {
        return "an RCU grace period".to_owned();
    }
    match holder {
        Some(holder) => format!("{lock} held by {holder}"),
        None => lock.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hearth_abi::{COMM_BYTES, LOCK_FRAMES, LOCK_WAIT};

    use super::*;

    pub(crate) fn task(tgid: u32, name: &str) -> LockTask {
        let mut comm = [0; COMM_BYTES];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        LockTask {
            tid: tgid,
            tgid,
            start_boottime: 77,
            cgroup: 5,
            comm,
        }
    }

    pub(crate) fn record(begin_ns: u64, end_ns: u64) -> LockWait {
        LockWait {
            kind: LOCK_WAIT,
            flags: lock_flags::HOLDER,
            cpu: 0,
            begin_ns,
            end_ns,
            lock: Lock::CgroupMutex as u32,
            operation: Operation::Mkdir as u32,
            address: 0,
            waiter: task(1235, "runc"),
            holder: task(1234, "runc"),
            holder_since_ns: 0,
            holder_operation: 0,
            frames: 1,
            watch: 0,
            stack: [9; LOCK_FRAMES],
        }
    }

    #[test]
    fn what_is_not_known_is_none() {
        let wait = Wait::of(&record(10, 30)).expect("known words");
        assert_eq!(
            (wait.length(), wait.watch, wait.stack.len()),
            (Nanos(20), None, 1)
        );
        let holder = wait.holder.expect("a holder");
        assert_eq!(holder.task.label(), "runc[1234]");
        assert_eq!((holder.since, holder.operation), (None, None));

        let mut seen = record(10, 30);
        seen.flags |= lock_flags::HOLDER_SINCE | lock_flags::WATCHED;
        (seen.holder_since_ns, seen.watch) = (4, 8);
        seen.holder_operation = Operation::Attach as u32;
        let wait = Wait::of(&seen).expect("known words");
        assert_eq!(wait.watch, Some(8));
        let holder = wait.holder.expect("a holder");
        let wanted = (Some(Boottime(4)), Some(Operation::Attach));
        assert_eq!((holder.since, holder.operation), wanted);

        seen.flags = 0;
        assert_eq!(Wait::of(&seen).expect("known words").holder, None);
        seen.lock = u32::MAX;
        assert_eq!(Wait::of(&seen), None);
    }

    #[test]
    fn a_grace_period_has_no_holder() {
        assert_eq!(in_words("rcu", Some("x")), "an RCU grace period");
        let held = in_words("cgroup_mutex", Some("runc[1]"));
        assert_eq!(held, "cgroup_mutex held by runc[1]");
        assert_eq!(in_words("kernfs", None), "kernfs");
    }
}
