//! The functions that take and drop locks, by fentry and fexit, and by kprobe and kretprobe.
//!
//! fentry on kernfs would miss the kernel's own work after a removal; its functions are here too.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use hearth_abi::{Lock, LockWay, Probe};

use super::{hold, rcu, stack::Slot};
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

/// `void percpu_down_write(struct percpu_rw_semaphore *sem)`, 3.8 and later: an attach, and what
/// moves many tasks. Few take such a lock for writing; `cgroup_attach_lock` would be missed where
/// it is inlined.
#[fentry(function = "percpu_down_write")]
fn down_write_begin(ctx: FEntryContext) -> i32 {
    let address = ctx.arg(0);
    ledger::account(Probe::LockHold, || {
        hold::asks_semaphore(ctx.as_ptr(), FENTRY, address, Slot::Function)
    });
    0
}

/// As above.
#[fexit(function = "percpu_down_write")]
fn down_write_end(_ctx: FExitContext) -> i32 {
    ledger::account(Probe::LockHold, || hold::has_semaphore(FENTRY));
    0
}

/// `void percpu_up_write(struct percpu_rw_semaphore *sem)`, 3.8 and later.
#[fentry(function = "percpu_up_write")]
fn up_write(_ctx: FEntryContext) -> i32 {
    ledger::account(Probe::LockHold, || hold::drops_semaphore(FENTRY));
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

/// As `down_write_begin`.
#[kprobe]
fn down_write_kbegin(ctx: ProbeContext) -> u32 {
    let address = ctx.arg(0).unwrap_or(0);
    ledger::account(Probe::LockHold, || {
        hold::asks_semaphore(ctx.as_ptr(), KPROBE, address, Slot::Function)
    });
    0
}

/// As `down_write_end`.
#[kretprobe]
fn down_write_kend(_ctx: RetProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || hold::has_semaphore(KPROBE));
    0
}

/// As `up_write`.
#[kprobe]
fn up_kwrite(_ctx: ProbeContext) -> u32 {
    ledger::account(Probe::LockHold, || hold::drops_semaphore(KPROBE));
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
