//! The aggregates: histograms by lock and operation, and totals by cgroup as well.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use hearth_abi::{
    Fate, LOCK_BUCKETS, LOCK_ROWS, Lock, LockCgroup, LockRow, LockTimes, LockTotals, LockWay,
    OPERATIONS, Operation, bucket_of,
};

use super::settings;

#[map]
static LOCK_COUNTS: PerCpuArray<LockRow> = PerCpuArray::with_max_entries(LOCK_ROWS, 0);

/// The least recently used go first; what they had is still in `LOCK_COUNTS`.
#[map]
static LOCK_CGROUPS: LruHashMap<LockCgroup, LockTotals> = LruHashMap::with_max_entries(4096, 0);

/// A wait, or a hold, that is over.
#[derive(Clone, Copy)]
pub struct Interval {
    /// What measured it.
    pub way: LockWay,
    /// The lock.
    pub lock: Lock,
    /// [`Operation`] of the task.
    pub operation: u32,
    /// Cgroup of the task.
    pub cgroup: u64,
    /// How long it was, ns.
    pub ns: u64,
}

/// Adds a wait.
#[inline(always)]
pub fn wait(interval: Interval) -> Fate {
    let Some(row) = row(&interval) else {
        return Fate::DroppedMap;
    };
    // SAFETY: this CPU's row.
    unsafe { add(&raw mut (*row).wait, interval.ns) };
    if let Some(totals) = totals(&interval) {
        // SAFETY: a map value; what is lost when it is evicted meanwhile is lost with it.
        unsafe {
            plus(&raw mut (*totals).wait_count, 1);
            plus(&raw mut (*totals).wait_sum_ns, interval.ns);
            longest(&raw mut (*totals).wait_max_ns, interval.ns);
        }
    }
    Fate::Aggregated
}

/// Adds a hold.
#[inline(always)]
pub fn hold(interval: Interval) -> Fate {
    let Some(row) = row(&interval) else {
        return Fate::DroppedMap;
    };
    // SAFETY: as above.
    unsafe { add(&raw mut (*row).hold, interval.ns) };
    if let Some(totals) = totals(&interval) {
        // SAFETY: as above.
        unsafe {
            plus(&raw mut (*totals).hold_count, 1);
            plus(&raw mut (*totals).hold_sum_ns, interval.ns);
            longest(&raw mut (*totals).hold_max_ns, interval.ns);
        }
    }
    Fate::Aggregated
}

#[inline(always)]
fn row(interval: &Interval) -> Option<*mut LockRow> {
    let operation = if interval.operation < OPERATIONS as u32 {
        interval.operation
    } else {
        Operation::Other as u32
    };
    let compared = settings::get()?.compare != 0;
    let base = if compared {
        interval.way as u32 * LOCK_ROWS
    } else {
        0
    };
    LOCK_COUNTS.get_ptr_mut(base + interval.lock as u32 * OPERATIONS as u32 + operation)
}

#[inline(always)]
fn totals(interval: &Interval) -> Option<*mut LockTotals> {
    const NONE: LockTotals = LockTotals {
        wait_count: 0,
        wait_sum_ns: 0,
        wait_max_ns: 0,
        hold_count: 0,
        hold_sum_ns: 0,
        hold_max_ns: 0,
    };
    const BPF_NOEXIST: u64 = 1;
    let key = LockCgroup {
        lock: interval.lock as u32,
        operation: interval.operation,
        cgroup: interval.cgroup,
    };
    if let Some(totals) = LOCK_CGROUPS.get_ptr_mut(key) {
        return Some(totals);
    }
    // Of two that come at once, one makes it.
    let _ = LOCK_CGROUPS.insert(key, NONE, BPF_NOEXIST);
    LOCK_CGROUPS.get_ptr_mut(key)
}

#[inline(always)]
unsafe fn add(times: *mut LockTimes, ns: u64) {
    let mut bucket = core::mem::MaybeUninit::<usize>::uninit();
    // SAFETY: written and read back. Volatile, so that the bound below is checked where the
    // verifier sees it: it does not follow how the number is made.
    let bucket = unsafe {
        bucket.as_mut_ptr().write_volatile(bucket_of(ns));
        bucket.as_ptr().read_volatile()
    };
    // SAFETY: the caller's row. Atomic: a program can be preempted by another of this row.
    unsafe {
        plus(&raw mut (*times).count, 1);
        plus(&raw mut (*times).sum_ns, ns);
        longest(&raw mut (*times).max_ns, ns);
        if bucket < LOCK_BUCKETS {
            plus((&raw mut (*times).buckets).cast::<u64>().add(bucket), 1);
        }
    }
}

#[inline(always)]
unsafe fn plus(total: *mut u64, value: u64) {
    // SAFETY: an aligned word of a map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, value) };
}

/// Of two that meet here the shorter one may win, once in a while: it is for people.
#[inline(always)]
unsafe fn longest(max: *mut u64, value: u64) {
    // SAFETY: an aligned word of a map value.
    unsafe {
        if max.read_volatile() < value {
            max.write_volatile(value);
        }
    }
}
