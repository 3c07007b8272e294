//! Locks of cgroups: waits for them, holds of them, and what an attach waits for beside them.

use super::{
    Hook, Program, Set, Signal, Strategy, always, fentry, fexit, kprobe, kretprobe, optional,
    tp_btf,
};

/// Its kinds.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        signal: Signal::CgroupLock,
        kind: "lock:wait",
        purpose: "who waits for which lock, for how long and for what",
        required: false,
        strategies: &[always(
            "tp_btf",
            CONTENTION,
            Some(0),
            "5.19 and later; a spinlock's first waiter and a semaphore's spinning writer fire nothing",
        )],
    },
    Hook {
        signal: Signal::CgroupLock,
        kind: "lock:hold",
        purpose: "how long `cgroup_mutex`, and an attach's `cgroup_threadgroup_rwsem`, are held",
        required: false,
        strategies: &[
            always(
                "fentry",
                FENTRY,
                Some(0),
                "every hold; of `cgroup_mutex` by the functions that take it, but for a read of `/proc/PID/cgroup` and the like",
            ),
            always(
                "kprobe",
                KPROBE,
                Some(0),
                "as fentry; of many that wait at once some returns are missed",
            ),
            always(
                "tp_btf:contention_end",
                &[],
                None,
                "an upper bound, of contended holds only: hold and hand-over, from two successive ends of waits",
            ),
        ],
    },
    Hook {
        signal: Signal::CgroupLock,
        kind: "lock:rstat",
        purpose: "waits for and holds of the locks of the statistics",
        required: false,
        strategies: &[
            always(
                "tp_btf",
                &[
                    tp_btf("rstat_contended", "cgroup_rstat_lock_contended"),
                    tp_btf("rstat_locked", "cgroup_rstat_locked"),
                    tp_btf("rstat_unlock", "cgroup_rstat_unlock"),
                ],
                Some(0),
                "6.10 and later",
            ),
            always(
                "tp_btf:contention_end",
                &[],
                None,
                "waits, and an upper bound of contended holds, as far as the lock has a symbol",
            ),
        ],
    },
    Hook {
        signal: Signal::CgroupLock,
        kind: "lock:rcu",
        purpose: "the grace period of RCU that an attach waits for, with no lock held",
        required: false,
        strategies: &[
            always("fentry", RCU_FENTRY, Some(0), ""),
            always("kprobe", RCU_KPROBE, Some(0), ""),
            Strategy {
                name: "tp_btf:sched_switch",
                set: Set::Watch,
                programs: &[tp_btf("rcu_switch", "sched_switch")],
                syscalls: &[],
                error_ns: None,
                note: "from going to sleep to running again; late by the wait for a CPU",
            },
        ],
    },
];

/// The tracepoints of contention.
pub(in crate::kernel) const CONTENTION: &[Program] = &[
    tp_btf("lock_begin", "contention_begin"),
    tp_btf("lock_end", "contention_end"),
];

/// What an attach waits in for RCU.
pub(in crate::kernel) const RCU_FENTRY: &[Program] = &[
    fentry("rcu_begin", "rcu_sync_enter"),
    fexit("rcu_end", "rcu_sync_enter"),
];

/// The same.
pub(in crate::kernel) const RCU_KPROBE: &[Program] = &[
    kprobe("rcu_kbegin", "rcu_sync_enter"),
    kretprobe("rcu_kend", "rcu_sync_enter"),
];

/// The functions that take and drop the locks.
pub(in crate::kernel) const FENTRY: &[Program] = &[
    fentry("lock_live_begin", "cgroup_kn_lock_live"),
    fexit("lock_live_end", "cgroup_kn_lock_live"),
    fentry("kn_unlock", "cgroup_kn_unlock"),
    fentry("down_write_begin", "percpu_down_write"),
    fexit("down_write_end", "percpu_down_write"),
    fentry("up_write", "percpu_up_write"),
    optional(fentry("css_release_begin", "css_release_work_fn")),
    optional(fexit("css_release_end", "css_release_work_fn")),
    optional(fentry("css_killed_begin", "css_killed_work_fn")),
    optional(fexit("css_killed_end", "css_killed_work_fn")),
    optional(fentry("bpf_release_begin", "cgroup_bpf_release")),
    optional(fexit("bpf_release_end", "cgroup_bpf_release")),
];

/// The same.
pub(in crate::kernel) const KPROBE: &[Program] = &[
    kprobe("lock_live_kbegin", "cgroup_kn_lock_live"),
    kretprobe("lock_live_kend", "cgroup_kn_lock_live"),
    kprobe("kn_kunlock", "cgroup_kn_unlock"),
    kprobe("down_write_kbegin", "percpu_down_write"),
    kretprobe("down_write_kend", "percpu_down_write"),
    kprobe("up_kwrite", "percpu_up_write"),
    optional(kprobe("css_release_kbegin", "css_release_work_fn")),
    optional(kretprobe("css_release_kend", "css_release_work_fn")),
    optional(kprobe("css_killed_kbegin", "css_killed_work_fn")),
    optional(kretprobe("css_killed_kend", "css_killed_work_fn")),
    optional(kprobe("bpf_release_kbegin", "cgroup_bpf_release")),
    optional(kretprobe("bpf_release_kend", "cgroup_bpf_release")),
];

/// Every acquisition of `cgroup_mutex`, at the lock itself: exact, and paid for by every mutex of
/// the kernel. What the strategies are measured against, and none of them.
pub(in crate::kernel) const REFERENCE: &[Program] = &[
    fentry("mutex_lock_begin", "mutex_lock"),
    fexit("mutex_lock_end", "mutex_lock"),
    fentry("mutex_unlock_begin", "mutex_unlock"),
];
