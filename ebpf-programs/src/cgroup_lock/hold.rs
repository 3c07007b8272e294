//! Holds, bracketed by the functions that take and drop a lock.

use core::ffi::c_void;

use aya_ebpf::{macros::map, maps::LruHashMap};
use hearth_abi::{Fate, Lock, LockWay, lcb};

use super::{
    counts::{self, Interval},
    settings,
    stack::{self, Slot},
    wait,
    which::{self, Known},
};
use crate::{clock, task::Task};

/// Whose bracket, of which lock, by which way to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Bracket {
    tid: u32,
    lock: u16,
    way: u16,
}

/// One that is open.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Open {
    /// When the lock was asked for, ns.
    pub begin_ns: u64,
    /// When it was had, ns; 0 until then.
    pub acquired_ns: u64,
    cgroup: u64,
    operation: u32,
    /// Thread.
    pub tid: u32,
    /// How often it had slept when it asked.
    sleeps: u64,
    /// Since then: how long it waited for RCU, ns, and how often it slept for that.
    rcu_ns: u64,
    rcu_sleeps: u64,
    /// Whether a tracepoint has told the wait.
    is_told: u64,
}

impl Open {
    /// Notes a wait for RCU.
    #[inline(always)]
    pub fn waited_for_rcu(&mut self, ns: u64, sleeps: u64) {
        self.rcu_ns += ns;
        self.rcu_sleeps += sleeps;
    }
}

/// Open brackets. Whoever was inside when the programs were attached has none, and is left out.
#[map]
static LOCK_BRACKETS: LruHashMap<Bracket, Open> = LruHashMap::with_max_entries(4096, 0);

#[inline(always)]
fn bracket(way: LockWay, lock: Lock) -> Bracket {
    Bracket {
        tid: Task::current().tid(),
        lock: lock as u16,
        way: way as u16,
    }
}

/// A function that takes a lock begins; the stack says what for.
#[inline(always)]
pub fn asks(ctx: *mut c_void, way: LockWay, lock: Lock, slot: Slot) -> Fate {
    // The stack is looked at before the time: before the lock, and not inside of the wait.
    let operation = stack::caller(ctx, slot).operation;
    asked(way, lock, operation)
}

/// The same of a per-CPU semaphore for writing, if it is one between fork, exit and attach.
#[inline(always)]
pub fn asks_semaphore(ctx: *mut c_void, way: LockWay, address: u64, slot: Slot) -> Fate {
    let known = which::at(address, lcb::PERCPU);
    if matches!(known, Known::Not) {
        return Fate::Filtered;
    }
    let caller = stack::caller(ctx, slot);
    let lock = match known {
        Known::Is(lock) => Some(lock),
        _ => which::by_caller(address, lcb::PERCPU, caller),
    };
    match lock {
        Some(lock) => asked(way, lock, caller.operation),
        None => Fate::Filtered,
    }
}

#[inline(always)]
fn asked(way: LockWay, lock: Lock, operation: u32) -> Fate {
    let task = Task::current();
    let open = Open {
        operation,
        begin_ns: clock::now(),
        acquired_ns: 0,
        cgroup: task.memory_cgroup().id(),
        tid: task.tid(),
        sleeps: task.sleeps(),
        rcu_ns: 0,
        rcu_sleeps: 0,
        is_told: 0,
    };
    match LOCK_BRACKETS.insert(bracket(way, lock), open, 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

/// The running task's open bracket.
#[inline(always)]
pub fn open(way: LockWay, lock: Lock) -> Option<&'static mut Open> {
    // SAFETY: the running task's own entry; evicted meanwhile, it is another bracket's, whose
    // times are wrong once.
    LOCK_BRACKETS
        .get_ptr_mut(bracket(way, lock))
        .map(|open| unsafe { &mut *open })
}

/// The function has returned with the lock.
#[inline(always)]
pub fn has(way: LockWay, lock: Lock) -> Fate {
    let Some(open) = open(way, lock) else {
        // It was inside when the programs were attached.
        return Fate::Filtered;
    };
    if open.acquired_ns != 0 && !matches!(lock, Lock::CgroupMutex) {
        // It was had before: its drop was missed, and the begin of this one too.
        forget(way, lock);
        return Fate::Filtered;
    }
    open.acquired_ns = clock::now();
    let Some(settings) = settings::get() else {
        return Fate::DroppedMap;
    };
    let address = match lock {
        Lock::CgroupMutex => settings.mutex_address,
        Lock::ThreadgroupRwsem => settings.threadgroup_address,
        _ => 0,
    };
    if settings.compare != 0 {
        // In other cases the waits are those of the tracepoints.
        counts::wait(Interval {
            way,
            lock,
            operation: open.operation,
            cgroup: open.cgroup,
            ns: open.acquired_ns.saturating_sub(open.begin_ns),
        });
    } else {
        waits_untold(way, lock, open);
        if address != 0 {
            wait::has(
                address,
                open.acquired_ns,
                open.tid,
                open.operation,
                open.cgroup,
            );
        }
    }
    Fate::Aggregated
}

/// A writer that has the semaphore and waits for its readers to leave fires no tracepoint (one of
/// 6.1 does): it waited if it slept for more than RCU.
#[inline(always)]
fn waits_untold(way: LockWay, lock: Lock, open: &Open) {
    if matches!(lock, Lock::CgroupMutex) || open.is_told != 0 {
        return;
    }
    let sleeps = Task::current().sleeps().wrapping_sub(open.sleeps);
    if sleeps <= open.rcu_sleeps {
        return;
    }
    let waited_ns = open.acquired_ns.saturating_sub(open.begin_ns);
    counts::wait(Interval {
        way,
        lock,
        operation: open.operation,
        cgroup: open.cgroup,
        ns: waited_ns.saturating_sub(open.rcu_ns),
    });
}

/// The tracepoint of 6.1 fires for every writer of a per-CPU semaphore, and in its time is that of
/// RCU: that time, ns, and how often it slept for it.
#[inline(always)]
pub fn told(lock: Lock) -> (u64, u64) {
    if let Some(open) = open(LockWay::Fentry, lock) {
        open.is_told = 1;
        return (open.rcu_ns, open.rcu_sleeps);
    }
    match open(LockWay::Kprobe, lock) {
        Some(open) => {
            open.is_told = 1;
            (open.rcu_ns, open.rcu_sleeps)
        }
        None => (0, 0),
    }
}

/// Whichever of the two semaphores the running task asks for or has.
#[inline(always)]
pub fn semaphore(way: LockWay) -> Option<(Lock, &'static mut Open)> {
    if let Some(open) = open(way, Lock::ThreadgroupRwsem) {
        return Some((Lock::ThreadgroupRwsem, open));
    }
    open(way, Lock::ProcessRwsem).map(|open| (Lock::ProcessRwsem, open))
}

/// The function has returned with the semaphore.
#[inline(always)]
pub fn has_semaphore(way: LockWay) -> Fate {
    match semaphore(way) {
        Some((lock, _)) => has(way, lock),
        None => Fate::Filtered,
    }
}

/// It is about to be dropped. A task that has one of ours takes no other in between.
#[inline(always)]
pub fn drops_semaphore(way: LockWay) -> Fate {
    match semaphore(way) {
        Some((lock, _)) => drops(way, lock),
        None => Fate::Filtered,
    }
}

/// The running task has got a lock after waiting: brackets of whole functions begin to hold now.
#[inline(always)]
pub fn contended(lock: Lock, now: u64) {
    if lock as u32 != Lock::CgroupMutex as u32 {
        return;
    }
    if let Some(open) = open(LockWay::Fentry, lock) {
        open.acquired_ns = now;
    }
    if let Some(open) = open(LockWay::Kprobe, lock) {
        open.acquired_ns = now;
    }
}

/// The lock is about to be dropped.
#[inline(always)]
pub fn drops(way: LockWay, lock: Lock) -> Fate {
    let now = clock::now();
    let Some(open) = open(way, lock) else {
        return Fate::Filtered;
    };
    let acquired_ns = open.acquired_ns;
    let interval = Interval {
        way,
        lock,
        operation: open.operation,
        cgroup: open.cgroup,
        ns: now.saturating_sub(acquired_ns),
    };
    forget(way, lock);
    if acquired_ns == 0 {
        // The function that takes it also drops it, when the cgroup is dead: no hold of anyone's.
        return Fate::Filtered;
    }
    counts::hold(interval)
}

/// A function that holds the lock from about its begin to about its end is over.
#[inline(always)]
pub fn ends(way: LockWay, lock: Lock) -> Fate {
    if let Some(open) = open(way, lock)
        && open.acquired_ns == 0
    {
        open.acquired_ns = open.begin_ns;
    }
    drops(way, lock)
}

/// No bracket any more.
#[inline(always)]
pub fn forget(way: LockWay, lock: Lock) {
    let _ = LOCK_BRACKETS.remove(bracket(way, lock));
}
