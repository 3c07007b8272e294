//! What the ways to measure are measured against: every acquisition of `cgroup_mutex`, at the
//! lock itself. Every mutex of the kernel pays for it, so that it is attached to compare only.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit, map},
    maps::LruHashMap,
    programs::{FEntryContext, FExitContext},
};
use hearth_abi::{Fate, Lock, LockWay, Probe};

use super::{
    counts::{self, Interval},
    hold, settings,
    stack::Slot,
};
use crate::{clock, ledger};

/// The last hold of each thread: begin and length, ns.
#[map]
static REFERENCE_HOLDS: LruHashMap<u32, [u64; 2]> = LruHashMap::with_max_entries(1024, 0);

/// The end of a wait, and the return of the function that waited, are apart by less.
const APART_NS: u64 = 20_000;

const REFERENCE: LockWay = LockWay::Reference;

#[inline(always)]
fn is_it(address: u64) -> bool {
    settings::get().is_some_and(|settings| settings.mutex_address == address)
}

/// `void mutex_lock(struct mutex *lock)`, always.
#[fentry(function = "mutex_lock")]
fn mutex_lock_begin(ctx: FEntryContext) -> i32 {
    if is_it(ctx.arg::<u64>(0)) {
        ledger::account(Probe::LockHold, || {
            hold::asks(ctx.as_ptr(), REFERENCE, Lock::CgroupMutex, Slot::Reference)
        });
    }
    0
}

/// As above.
#[fexit(function = "mutex_lock")]
fn mutex_lock_end(ctx: FExitContext) -> i32 {
    if is_it(ctx.arg::<u64>(0)) {
        ledger::account(Probe::LockHold, || -> Fate {
            hold::has(REFERENCE, Lock::CgroupMutex)
        });
    }
    0
}

/// `void mutex_unlock(struct mutex *lock)`, always.
#[fentry(function = "mutex_unlock")]
fn mutex_unlock_begin(ctx: FEntryContext) -> i32 {
    if is_it(ctx.arg::<u64>(0)) {
        ledger::account(Probe::LockHold, || {
            if let Some(open) = hold::open(REFERENCE, Lock::CgroupMutex) {
                let ns = clock::now().saturating_sub(open.acquired_ns);
                let _ = REFERENCE_HOLDS.insert(open.tid, [open.acquired_ns, ns], 0);
            }
            hold::drops(REFERENCE, Lock::CgroupMutex)
        });
    }
    0
}

/// Compares the bound of a hold of `tid` with what it was.
#[inline(always)]
pub fn compare(bound: Interval, tid: u32, acquired_ns: u64) {
    if settings::get().is_none_or(|settings| settings.compare == 0) {
        return;
    }
    // SAFETY: the value is copied at once.
    let Some(&[begin_ns, ns]) = (unsafe { REFERENCE_HOLDS.get(tid) }) else {
        return;
    };
    if begin_ns.abs_diff(acquired_ns) > APART_NS {
        return;
    }
    let way = LockWay::Bound;
    if bound.ns >= ns {
        let ns = bound.ns - ns;
        counts::hold(Interval { way, ns, ..bound });
    } else {
        let ns = ns - bound.ns;
        counts::wait(Interval { way, ns, ..bound });
    }
}
