//! What the ways to measure are measured against: every acquisition of `cgroup_mutex`, at the
//! lock itself. Every mutex of the kernel pays for it, so that it is attached to compare only.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use hearth_abi::{Fate, Lock, LockWay, Probe};

use super::{hold, settings, stack::Slot};
use crate::ledger;

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
            hold::drops(REFERENCE, Lock::CgroupMutex)
        });
    }
    0
}
