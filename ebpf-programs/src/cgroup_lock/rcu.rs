//! Grace periods of RCU that an attach waits for, with no lock that anybody holds.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Lock, LockTask, LockWay, Operation, Probe, lock_function};

use super::{
    counts::{self, Interval},
    hold,
    stack::{self, Slot},
    wait::{self, Long},
};
use crate::{clock, cold_start::account, ledger, task::Task};

/// Whose wait, by which way to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Waiter {
    tid: u32,
    way: u32,
}

/// When a wait began, ns, and how often the thread had slept before.
#[map]
static RCU_WAITS: LruHashMap<Waiter, [u64; 2]> = LruHashMap::with_max_entries(1024, 0);

/// It is known to sleep.
const ASLEEP: u64 = u64::MAX;
/// `TASK_UNINTERRUPTIBLE`, of `task_struct.__state`. The same bit always.
const UNINTERRUPTIBLE: u32 = 2;

/// `rcu_sync_enter` begins: of interest inside of an attach that has not got its lock yet.
#[inline(always)]
pub fn begins(way: LockWay) -> Fate {
    match hold::semaphore(way) {
        Some((_, open)) if open.acquired_ns == 0 => {
            let task = Task::current();
            begins_now(task, way, task.sleeps())
        }
        _ => Fate::Filtered,
    }
}

#[inline(always)]
fn begins_now(task: Task, way: LockWay, sleeps: u64) -> Fate {
    let waiter = Waiter {
        tid: task.tid(),
        way: way as u32,
    };
    match RCU_WAITS.insert(waiter, [clock::now(), sleeps], 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

/// It is over.
#[inline(always)]
pub fn ends(ctx: *mut c_void, way: LockWay) -> Fate {
    ended(ctx, Task::current(), way, true)
}

#[inline(always)]
fn ended(ctx: *mut c_void, task: Task, way: LockWay, has_stack: bool) -> Fate {
    let waiter = Waiter {
        tid: task.tid(),
        way: way as u32,
    };
    // SAFETY: the value is copied at once.
    let Some(&[begin_ns, sleeps]) = (unsafe { RCU_WAITS.get(waiter) }) else {
        return Fate::Filtered;
    };
    let _ = RCU_WAITS.remove(waiter);
    let end_ns = clock::now();
    let ns = end_ns.saturating_sub(begin_ns);
    // After a grace period that has just passed, or with `favordynmods`, nobody waits.
    if sleeps == task.sleeps() {
        return Fate::Filtered;
    }
    // The scheduler may not have been followed all the time since.
    if matches!(way, LockWay::Tracepoint) && !account::is_complete_since(begin_ns) {
        return Fate::Filtered;
    }
    if let Some((_, open)) = hold::semaphore(way) {
        open.waited_for_rcu(ns, task.sleeps().wrapping_sub(sleeps));
    }
    let fate = counts::wait(Interval {
        way,
        lock: Lock::Rcu,
        operation: Operation::Attach as u32,
        cgroup: task.memory_cgroup().id(),
        ns,
    });
    let nobody = LockTask::default();
    wait::told(
        ctx,
        ns,
        &Long {
            lock: Lock::Rcu,
            address: 0,
            operation: Operation::Attach as u32,
            begin_ns,
            end_ns,
            holder: &nobody,
            holder_since_ns: 0,
            holder_operation: 0,
            waiter: task,
            has_stack,
        },
    );
    fate
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, ...)`, the
/// same first arguments always: where no function can be bracketed, an attach that goes to sleep
/// in `rcu_sync_enter` waits until it runs again. Attached with the watch set only.
#[btf_tracepoint(function = "sched_switch")]
fn rcu_switch(ctx: BtfTracePointContext) -> i32 {
    let from = Task::of(ctx.arg::<*const c_void>(1));
    let to = Task::of(ctx.arg::<*const c_void>(2));
    ledger::account(Probe::LockRcu, || {
        ended(ctx.as_ptr(), to, LockWay::Tracepoint, false)
    });
    if from.state() & UNINTERRUPTIBLE != 0 && !from.in_iowait() {
        ledger::account(Probe::LockRcu, || {
            let caller = stack::caller(ctx.as_ptr(), Slot::Switch);
            if caller.means & lock_function::WAITS_FOR_RCU == 0
                || caller.operation != Operation::Attach as u32
            {
                return Fate::Filtered;
            }
            begins_now(from, LockWay::Tracepoint, ASLEEP)
        });
    }
    0
}
