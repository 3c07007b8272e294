//! The locks of the statistics' trees, by their own tracepoints (6.10 and later): exact.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Lock, LockTask, LockWay, Operation, Probe};

use super::{
    counts::{self, Interval},
    stack::{self, Slot},
    wait::{self, Long},
};
use crate::{clock, ledger, task::Task};

/// Holds that nobody had to wait for and that are shorter are counted under `other`.
const WORTH_A_WALK_NS: u64 = 20_000;

/// One that waits for it or has it, by thread.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flush {
    /// When it found the lock taken, ns; 0 if it did not.
    contended_ns: u64,
    /// When it had it, ns.
    locked_ns: u64,
    operation: u32,
    unused: u32,
}

#[map]
static RSTAT: LruHashMap<u32, Flush> = LruHashMap::with_max_entries(1024, 0);

/// `cgroup_rstat_lock_contended(struct cgroup *cgrp, int cpu, bool contended)`, 6.10 and later.
#[btf_tracepoint(function = "cgroup_rstat_lock_contended")]
fn rstat_contended(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::LockRstat, || {
        let flush = Flush {
            operation: stack::caller(ctx.as_ptr(), Slot::Rstat).operation,
            contended_ns: clock::now(),
            locked_ns: 0,
            unused: 0,
        };
        match RSTAT.insert(Task::current().tid(), flush, 0) {
            Ok(()) => Fate::Aggregated,
            Err(_) => Fate::DroppedMap,
        }
    });
    0
}

/// `cgroup_rstat_locked(struct cgroup *cgrp, int cpu, bool contended)`, 6.10 and later.
#[btf_tracepoint(function = "cgroup_rstat_locked")]
fn rstat_locked(ctx: BtfTracePointContext) -> i32 {
    let is_contended = ctx.arg::<u32>(2) & 1 != 0;
    ledger::account(Probe::LockRstat, || locked(ctx.as_ptr(), is_contended));
    0
}

#[inline(always)]
fn locked(ctx: *mut c_void, is_contended: bool) -> Fate {
    let task = Task::current();
    let tid = task.tid();
    // SAFETY: the running task's own entry. One that was locked already, or of whose wait this is
    // not the end, is left over from before its unlock was attached, or missed.
    if is_contended
        && let Some(flush) = RSTAT.get_ptr_mut(tid)
        && unsafe { (*flush).contended_ns != 0 && (*flush).locked_ns == 0 }
    {
        // SAFETY: as above.
        let flush = unsafe { &mut *flush };
        flush.locked_ns = clock::now();
        let ns = flush.locked_ns.saturating_sub(flush.contended_ns);
        let fate = counts::wait(Interval {
            way: LockWay::Tracepoint,
            lock: Lock::Rstat,
            operation: flush.operation,
            cgroup: task.memory_cgroup().id(),
            ns,
        });
        let nobody = LockTask::default();
        wait::told(
            ctx,
            ns,
            &Long {
                lock: Lock::Rstat,
                address: 0,
                operation: flush.operation,
                begin_ns: flush.contended_ns,
                end_ns: flush.locked_ns,
                holder: &nobody,
                holder_since_ns: 0,
                holder_operation: 0,
                waiter: task,
                has_stack: true,
            },
        );
        return fate;
    }
    let flush = Flush {
        operation: Operation::Other as u32,
        contended_ns: 0,
        locked_ns: clock::now(),
        unused: 0,
    };
    match RSTAT.insert(tid, flush, 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

/// `cgroup_rstat_unlock(struct cgroup *cgrp, int cpu, bool contended)`, 6.10 and later: just
/// before.
#[btf_tracepoint(function = "cgroup_rstat_unlock")]
fn rstat_unlock(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::LockRstat, || {
        let now = clock::now();
        let task = Task::current();
        let tid = task.tid();
        let Some(flush) = RSTAT.get_ptr(tid) else {
            return Fate::Filtered;
        };
        // SAFETY: as above.
        let flush = unsafe { *flush };
        let _ = RSTAT.remove(tid);
        if flush.locked_ns == 0 {
            // When it had the lock was missed.
            return Fate::Filtered;
        }
        let ns = now.saturating_sub(flush.locked_ns);
        // Flushes that nobody waits for are many, and a walk of the stack costs more than they do.
        let operation = if flush.contended_ns == 0 && ns >= WORTH_A_WALK_NS {
            stack::caller(ctx.as_ptr(), Slot::Rstat).operation
        } else {
            flush.operation
        };
        counts::hold(Interval {
            way: LockWay::Tracepoint,
            lock: Lock::Rstat,
            operation,
            cgroup: task.memory_cgroup().id(),
            ns,
        })
    });
    0
}
