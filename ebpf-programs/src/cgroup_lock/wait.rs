//! Waits, from the tracepoints of contention: exact on every kernel. Where nothing brackets a
//! lock, the time between two successive acquisitions bounds the hold between them.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_smp_processor_id, bpf_get_stack},
    macros::{btf_tracepoint, map},
    maps::{LruHashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use hearth_abi::{
    Contended, Fate, LOCK_FRAMES, LOCK_WAIT, Lock, LockTask, LockWait, LockWay, Probe, lcb,
    lock_flags,
};

use super::{
    counts::{self, Interval},
    hold, reference, settings,
    stack::{self, Slot},
    which::{self, Known},
};
use crate::{
    clock::now,
    cold_start::watch,
    globals::offset,
    ledger, ring,
    task::{Address, Task},
};

/// Who waits, and for what.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Waiter {
    address: u64,
    /// Thread; of idle tasks, which share one id, the CPU.
    tid: u64,
}

/// A wait under way.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pending {
    begin_ns: u64,
    cgroup: u64,
    lock: u32,
    operation: u32,
    holder_operation: u32,
    unused: u32,
    holder_since_ns: u64,
    /// The last begin of it.
    last: Contended,
    holder: LockTask,
}

/// The last one to have got a lock.
#[derive(Clone, Copy)]
#[repr(C)]
struct Last {
    acquired_ns: u64,
    cgroup: u64,
    tid: u32,
    operation: u32,
}

/// Waits under way. A thread that dies while it waits cannot happen but in a crash; what is left
/// by a missed end is replaced by the next wait, or goes as the least recently used.
#[map]
static LOCK_PENDING: LruHashMap<Waiter, Pending> = LruHashMap::with_max_entries(4096, 0);

/// By address of the lock.
#[map]
static LOCK_LAST: LruHashMap<u64, Last> = LruHashMap::with_max_entries(1024, 0);

/// Second and records made in it, by CPU.
#[map]
static LOCK_RATE: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// The tasks that a mutex or a semaphore names as its owner have flags in these bits.
const OWNER_FLAGS: u64 = 7;
/// `RWSEM_READER_OWNED`: whoever is named read last, and may be gone.
const READER_OWNED: u64 = 1;

/// `contention_begin(void *lock, unsigned int flags)`, 5.19 and later. Of the several that a wait
/// for a mutex fires the first one counts: see [`Contended::goes_on_with`].
#[btf_tracepoint(function = "contention_begin")]
fn lock_begin(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::LockBegin, || {
        begins(ctx.as_ptr(), ctx.arg::<u64>(0), ctx.arg::<u32>(1))
    });
    0
}

/// `contention_end(void *lock, int ret)`, 5.19 and later; `ret` is negative when it was given up.
#[btf_tracepoint(function = "contention_end")]
fn lock_end(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::LockEnd, || {
        ends(ctx.as_ptr(), ctx.arg::<u64>(0), ctx.arg::<i32>(1) == 0)
    });
    0
}

#[inline(always)]
fn waiter(address: u64, task: Task) -> Waiter {
    const IDLE: u64 = 1 << 32;
    let tid = match u64::from(task.tid()) {
        // SAFETY: always callable.
        0 => IDLE | u64::from(unsafe { bpf_get_smp_processor_id() }),
        tid => tid,
    };
    Waiter { address, tid }
}

#[inline(always)]
fn begins(ctx: *mut c_void, address: u64, flags: u32) -> Fate {
    let known = which::at(address, flags);
    if matches!(known, Known::Not) {
        return Fate::Filtered;
    }
    let task = Task::current();
    let key = waiter(address, task);
    let begin = Contended {
        flags,
        unused: 0,
        sleeps: task.sleeps(),
    };
    if let Some(pending) = LOCK_PENDING.get_ptr_mut(key) {
        // SAFETY: the entry is this thread's own; evicted meanwhile, it is another wait's.
        let pending = unsafe { &mut *pending };
        if pending.last.goes_on_with(&begin) {
            pending.last = begin;
            return Fate::Filtered;
        }
    }
    let begin_ns = now();
    let caller = stack::caller(ctx, Slot::Contention);
    if let Some(settings) = settings::get()
        && settings.calibrating != 0
        && settings.calibrating == task.tgid()
    {
        which::calibrated(address, flags, caller);
    }
    let lock = match known {
        Known::Is(lock) => lock,
        _ => match which::by_caller(address, flags, caller) {
            Some(lock) => lock,
            None => return Fate::Filtered,
        },
    };
    if matches!(lock, Lock::Rstat)
        && settings::get().is_some_and(|s| s.exact_holds & (1 << Lock::Rstat as u32) != 0)
    {
        // Its own tracepoints tell it.
        return Fate::Filtered;
    }
    let mut pending = Pending {
        begin_ns,
        cgroup: task.memory_cgroup().id(),
        lock: lock as u32,
        operation: caller.operation,
        holder_operation: 0,
        unused: 0,
        holder_since_ns: 0,
        last: begin,
        holder: LockTask::default(),
    };
    let owner = owner(address, flags);
    if !owner.is_null() {
        pending.holder = describe(owner);
    }
    if let Some(last) = LOCK_LAST.get_ptr(address) {
        // SAFETY: a map value; one that is replaced meanwhile describes another acquisition.
        let last = unsafe { &*last };
        if last.tid == pending.holder.tid {
            pending.holder_since_ns = last.acquired_ns;
            pending.holder_operation = last.operation;
        }
    }
    match LOCK_PENDING.insert(key, pending, 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

/// Who has it, where the lock says so; null otherwise.
#[inline(always)]
fn owner(address: u64, flags: u32) -> Address {
    let lock = Address::of(address as *const u8);
    let raw = if flags & lcb::MUTEX != 0 {
        lock.get::<u64>(offset!(mutex_owner))
    } else if flags & (lcb::SPIN | lcb::PERCPU) == 0 {
        match lock.get::<u64>(offset!(rwsem_owner)) {
            owner if owner & READER_OWNED != 0 => 0,
            owner => owner,
        }
    } else {
        0
    };
    Address::of((raw & !OWNER_FLAGS) as *const u8)
}

#[inline(always)]
fn describe(owner: Address) -> LockTask {
    let task = Task::of(owner.as_ptr().cast());
    LockTask {
        tid: task.tid(),
        tgid: task.tgid(),
        start_boottime: task.start_boottime(),
        cgroup: task.memory_cgroup().id(),
        comm: task.comm(),
    }
}

#[inline(always)]
fn ends(ctx: *mut c_void, address: u64, is_taken: bool) -> Fate {
    let task = Task::current();
    let key = waiter(address, task);
    let Some(pending) = LOCK_PENDING.get_ptr(key) else {
        return Fate::Filtered;
    };
    // SAFETY: the entry is this thread's own; evicted meanwhile, it is another wait's, whose
    // times are wrong once.
    let pending = unsafe { &*pending };
    let now = now();
    let Some(lock) = Lock::from_u32(pending.lock) else {
        return Fate::Filtered;
    };
    let mut ns = now.saturating_sub(pending.begin_ns);
    if pending.last.flags & lcb::PERCPU != 0 && pending.last.flags & lcb::WRITE != 0 {
        let (rcu_ns, rcu_sleeps) = hold::told(lock);
        ns = ns.saturating_sub(rcu_ns);
        if task.sleeps().wrapping_sub(pending.last.sleeps) <= rcu_sleeps {
            acquired(address, lock, now, pending, task.tid());
            let _ = LOCK_PENDING.remove(key);
            return Fate::Filtered;
        }
    }
    let fate = counts::wait(Interval {
        way: LockWay::Tracepoint,
        lock,
        operation: pending.operation,
        cgroup: pending.cgroup,
        ns,
    });
    told(
        ctx,
        ns,
        &Long {
            lock,
            address,
            operation: pending.operation,
            begin_ns: pending.begin_ns,
            end_ns: now,
            holder: &pending.holder,
            holder_since_ns: pending.holder_since_ns,
            holder_operation: pending.holder_operation,
            waiter: task,
            has_stack: true,
        },
    );
    if is_taken {
        hold::contended(lock, now);
        acquired(address, lock, now, pending, task.tid());
    }
    let _ = LOCK_PENDING.remove(key);
    fate
}

/// The lock has changed hands: that bounds the hold before.
#[inline(always)]
fn acquired(address: u64, lock: Lock, now: u64, pending: &Pending, tid: u32) {
    let exact = settings::get().is_none_or(|s| s.exact_holds & (1 << lock as u32) != 0);
    if let Some(last) = LOCK_LAST.get_ptr(address)
        && !exact
    {
        // SAFETY: as in `begins`.
        let last = unsafe { &*last };
        // Whoever waited since before the last one got it, or named it as the owner, waited for
        // its whole hold. Any other may have waited for somebody who did not have to wait.
        if pending.begin_ns <= last.acquired_ns
            || (last.tid == pending.holder.tid && last.acquired_ns == pending.holder_since_ns)
        {
            let bound = Interval {
                way: LockWay::Tracepoint,
                lock,
                operation: last.operation,
                cgroup: last.cgroup,
                ns: now.saturating_sub(last.acquired_ns),
            };
            counts::hold(bound);
            reference::compare(bound, last.tid, last.acquired_ns);
        }
    }
    if pending.last.flags & lcb::READ == 0 {
        has(address, now, tid, pending.operation, pending.cgroup);
    } else if !exact {
        // Readers share it: when the last of them leaves is not to be seen.
        let _ = LOCK_LAST.remove(address);
    }
}

/// Notes who has a lock now.
#[inline(always)]
pub fn has(address: u64, now: u64, tid: u32, operation: u32, cgroup: u64) {
    let last = Last {
        acquired_ns: now,
        cgroup,
        tid,
        operation,
    };
    let _ = LOCK_LAST.insert(address, last, 0);
}

/// A wait that may be worth a record.
pub struct Long<'a> {
    /// The lock.
    pub lock: Lock,
    /// Its address.
    pub address: u64,
    /// What the waiter was about.
    pub operation: u32,
    /// When it began, ns.
    pub begin_ns: u64,
    /// When it ended, ns.
    pub end_ns: u64,
    /// Who had it; its id is 0 if nobody knows.
    pub holder: &'a LockTask,
    /// Since when; 0 if nobody knows.
    pub holder_since_ns: u64,
    /// And for what.
    pub holder_operation: u32,
    /// Who waited.
    pub waiter: Task,
    /// Whether the running task is the waiter, so that its stack can be had.
    pub has_stack: bool,
}

/// Makes a record of a wait of `ns` if that is long enough, and the rate allows it.
#[inline(always)]
pub fn told(ctx: *mut c_void, ns: u64, long: &Long<'_>) {
    let Some(settings) = settings::get() else {
        return;
    };
    let least = settings.threshold_ns.min(settings.watched_threshold_ns);
    if ns < least {
        return;
    }
    let watched = watch::of(long.waiter.tgid())
        .map_or(0, |watch| if watch::is_alone(watch) { 0 } else { watch.id });
    if watched == 0 && ns < settings.threshold_ns {
        return;
    }
    ledger::account(Probe::LockRecord, || {
        if !within_rate(long.end_ns, settings.records_per_second) {
            return Fate::Aggregated;
        }
        let exact = settings.exact_holds & (1 << long.lock as u32) != 0;
        ring::capture(|record| fill(record, ctx, long, watched, exact))
    });
}

#[inline(always)]
fn within_rate(now: u64, most: u32) -> bool {
    let Some(rate) = LOCK_RATE.get_ptr_mut(0) else {
        return false;
    };
    let second = now / 1_000_000_000;
    // SAFETY: this CPU's entry. One who comes in between may pass beside: the rate is a bound for
    // the ring's sake.
    unsafe {
        if (*rate)[0] != second {
            (*rate)[0] = second;
            (*rate)[1] = 0;
        }
        (*rate)[1] += 1;
        (*rate)[1] <= u64::from(most)
    }
}

#[inline(always)]
fn fill(record: *mut LockWait, ctx: *mut c_void, long: &Long<'_>, watched: u64, exact: bool) {
    let mut said = 0;
    if long.holder.tid != 0 {
        said |= lock_flags::HOLDER;
        if long.holder_since_ns != 0 {
            said |= lock_flags::HOLDER_SINCE;
        }
    }
    if exact {
        said |= lock_flags::HOLD_EXACT;
    }
    if watched != 0 {
        said |= lock_flags::WATCHED;
    }
    if long.waiter.is_kernel_thread() {
        said |= lock_flags::KERNEL_THREAD;
    }
    // SAFETY: reserved memory of the ring, of this size and alignment; every member is written.
    unsafe {
        (*record).kind = LOCK_WAIT;
        (*record).flags = said;
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).begin_ns = long.begin_ns;
        (*record).end_ns = long.end_ns;
        (*record).lock = long.lock as u32;
        (*record).operation = long.operation;
        (*record).address = long.address;
        (*record).waiter.tid = long.waiter.tid();
        (*record).waiter.tgid = long.waiter.tgid();
        (*record).waiter.start_boottime = long.waiter.start_boottime();
        (*record).waiter.cgroup = long.waiter.memory_cgroup().id();
        (*record).waiter.comm = long.waiter.comm();
        (*record).holder = *long.holder;
        (*record).holder_since_ns = long.holder_since_ns;
        (*record).holder_operation = long.holder_operation;
        (*record).watch = watched;
        let stack = &raw mut (*record).stack;
        core::ptr::write_bytes(stack.cast::<u64>(), 0, LOCK_FRAMES);
        let bytes = if long.has_stack {
            bpf_get_stack(ctx, stack.cast(), (LOCK_FRAMES * 8) as u32, 0)
        } else {
            0
        };
        (*record).frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
    }
}
