//! The functions that take and drop locks, by fentry and fexit, and by kprobe and kretprobe.
//!
//! fentry on kernfs would miss the kernel's own work after a removal; its functions are here too.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use hearth_abi::{ABSENT, Fate, Lock, LockWay, Probe};

use super::{hold, rcu, settings, stack::Slot};
use crate::ledger;

const FENTRY: LockWay = LockWay::Fentry;
const KPROBE: LockWay = LockWay::Kprobe;

/// `struct cgroup *cgroup_kn_lock_live(struct kernfs_node *kn, bool drain_offline)`, 4.2 and
/// later: every operation by a file or a directory. Null where the cgroup is dead, and then the
/// mutex was dropped again.
#[fentry(function = "cgroup_kn_lock_live")]
fn lock_live_begin(ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockHold, || {
        hold::asks(ctx.as_ptr(), FENTRY, Lock::CgroupMutex, Slot::Function)
    });
    0
}

/// As above.
#[fexit(function = "cgroup_kn_lock_live")]
fn lock_live_end(_ctx: FExitContext) -> i32 {
    // On a dead cgroup there is no bracket left.
    ledger::account(Probe::LockHold, || hold::has(FENTRY, Lock::CgroupMutex));
    0
}

/// `void cgroup_kn_unlock(struct kernfs_node *kn)`, 3.16 and later.
#[fentry(function = "cgroup_kn_unlock")]
fn kn_unlock(_ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockHold, || hold::drops(FENTRY, Lock::CgroupMutex));
    0
}

/// `void cgroup_attach_lock(bool lock_threadgroup)`, 5.19 and later; `(enum
/// cgroup_attach_lock_mode, struct task_struct *)` since 6.18.
#[fentry(function = "cgroup_attach_lock")]
fn attach_lock_begin(ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockHold, || match attached(ctx.arg::<u32>(0)) {
        Some(lock) => hold::asks(ctx.as_ptr(), FENTRY, lock, Slot::Function),
        None => Fate::Filtered,
    });
    0
}

/// As above.
#[fexit(function = "cgroup_attach_lock")]
fn attach_lock_end(ctx: FExitContext) -> i32 {
    ledger::account(Probe::LockHold, || match attached(ctx.arg::<u32>(0)) {
        Some(lock) => hold::has(FENTRY, lock),
        None => Fate::Filtered,
    });
    0
}

/// `void cgroup_attach_unlock(bool lock_threadgroup)`, 5.19 and later; with a mode as above.
#[fentry(function = "cgroup_attach_unlock")]
fn attach_unlock(ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockHold, || match attached(ctx.arg::<u32>(0)) {
        Some(lock) => hold::drops(FENTRY, lock),
        None => Fate::Filtered,
    });
    0
}

macro_rules! work {
    ($(#[doc = $prototype:literal] $begin:ident, $end:ident, $kbegin:ident, $kend:ident: $function:literal;)*) => {$(
        #[doc = $prototype]
        #[fentry(function = $function)]
        fn $begin(ctx: FEntryContext) -> i32 {
            ledger::account(Probe::LockHold, || {
                hold::asks(ctx.as_ptr(), FENTRY, Lock::CgroupMutex, Slot::Function)
            });
            0
        }

        #[doc = $prototype]
        #[fexit(function = $function)]
        fn $end(_ctx: FExitContext) -> i32 {
            ledger::account(Probe::LockHold, || hold::ends(FENTRY, Lock::CgroupMutex));
            0
        }

        #[doc = $prototype]
        #[kprobe]
        fn $kbegin(ctx: ProbeContext) -> u32 {
            ledger::account(Probe::LockHold, || {
                hold::asks(ctx.as_ptr(), KPROBE, Lock::CgroupMutex, Slot::Function)
            });
            0
        }

        #[doc = $prototype]
        #[kretprobe]
        fn $kend(_ctx: RetProbeContext) -> u32 {
            ledger::account(Probe::LockHold, || hold::ends(KPROBE, Lock::CgroupMutex));
            0
        }
    )*};
}

work! {
    /// `static void css_release_work_fn(struct work_struct *work)`, 3.17 and later: holds the mutex from its begin to its end.
    css_release_begin, css_release_end, css_release_kbegin, css_release_kend: "css_release_work_fn";
    /// `static void css_killed_work_fn(struct work_struct *work)`, 3.12 and later: likewise.
    css_killed_begin, css_killed_end, css_killed_kbegin, css_killed_kend: "css_killed_work_fn";
    /// `static void cgroup_bpf_release(struct work_struct *work)`, 5.3 and later: from its begin to nearly its end.
    bpf_release_begin, bpf_release_end, bpf_release_kbegin, bpf_release_kend: "cgroup_bpf_release";
}

/// As `lock_live_begin`.
#[kprobe]
fn lock_live_kbegin(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || {
        hold::asks(ctx.as_ptr(), KPROBE, Lock::CgroupMutex, Slot::Function)
    });
    0
}

/// As `lock_live_end`.
#[kretprobe]
fn lock_live_kend(_ctx: RetProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || hold::has(KPROBE, Lock::CgroupMutex));
    0
}

/// As `kn_unlock`.
#[kprobe]
fn kn_kunlock(_ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || hold::drops(KPROBE, Lock::CgroupMutex));
    0
}

/// As `attach_lock_begin`.
#[kprobe]
fn attach_lock_kbegin(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || {
        match ctx.arg::<u32>(0).and_then(attached) {
            Some(lock) => hold::asks(ctx.as_ptr(), KPROBE, lock, Slot::Function),
            None => Fate::Filtered,
        }
    });
    0
}

/// As `attach_lock_end`; a return has no arguments left, so that the open bracket says which.
#[kretprobe]
fn attach_lock_kend(_ctx: RetProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || {
        if hold::open(KPROBE, Lock::ThreadgroupRwsem).is_some() {
            hold::has(KPROBE, Lock::ThreadgroupRwsem)
        } else {
            hold::has(KPROBE, Lock::ProcessRwsem)
        }
    });
    0
}

/// As `attach_unlock`.
#[kprobe]
fn attach_kunlock(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || {
        match ctx.arg::<u32>(0).and_then(attached) {
            Some(lock) => hold::drops(KPROBE, lock),
            None => Fate::Filtered,
        }
    });
    0
}

/// `void rcu_sync_enter(struct rcu_sync *rsp)`, 4.4 and later: waits for a grace period of its
/// own or of another's, unless one has just passed.
#[fentry(function = "rcu_sync_enter")]
fn rcu_begin(_ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockRcu, || rcu::begins(FENTRY));
    0
}

/// As above.
#[fexit(function = "rcu_sync_enter")]
fn rcu_end(ctx: FExitContext) -> i32 {
    ledger::account(Probe::LockRcu, || rcu::ends(ctx.as_ptr(), FENTRY));
    0
}

/// As `rcu_begin`.
#[kprobe]
fn rcu_kbegin(_ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockRcu, || rcu::begins(KPROBE));
    0
}

/// As `rcu_end`.
#[kretprobe]
fn rcu_kend(ctx: RetProbeContext) -> u32 {
    ledger::account(Probe::LockRcu, || rcu::ends(ctx.as_ptr(), KPROBE));
    0
}

/// The lock that an attach takes by the argument that says so; `None` if it takes none.
#[inline(always)]
fn attached(argument: u32) -> Option<Lock> {
    let process_mode = settings::get()?.process_mode;
    if process_mode == ABSENT {
        // A bool: the byte.
        return (argument & 0xff != 0).then_some(Lock::ThreadgroupRwsem);
    }
    // CGRP_ATTACH_LOCK_GLOBAL is the first.
    match argument {
        0 => Some(Lock::ThreadgroupRwsem),
        mode if mode == process_mode => Some(Lock::ProcessRwsem),
        _ => None,
    }
}
