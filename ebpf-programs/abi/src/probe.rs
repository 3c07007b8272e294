//! The rows of the ledger.

/// Number of [`Probe`]s.
pub const PROBES: usize = Probe::ALL.len();

macro_rules! probes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place that sees hits or makes records. One row of the ledger each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Probe {
            $($(#[$doc])* $variant,)*
        }

        impl Probe {
            /// Every probe, in index order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The word used in metrics and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

probes! {
    /// `task_newtask`; seen equals the growth of `processes` in `/proc/stat`.
    Fork = "fork",
    /// Whatever notes the begin of an exec.
    ExecBegin = "exec_begin",
    /// The `ExecBegin` records made when an exec succeeds.
    ExecBeginRecord = "exec_begin_record",
    /// `sched_process_exec`.
    Exec = "exec",
    /// The `ExecText` records.
    ExecText = "exec_text",
    /// `sched_process_exit`.
    Exit = "exit",
    /// `inet_sock_set_state`.
    Listen = "listen",
    /// Uprobe on a program's entry.
    Entry = "entry",
    /// Uprobe on the hand-over to user code.
    Main = "main",
    /// Uprobe of a ready rule.
    UserProbe = "user_probe",
    /// `cgroup_mkdir` and `cgroup_rmdir`.
    CgroupPath = "cgroup_path",
    /// `cgroup_notify_populated`.
    CgroupPopulated = "cgroup_populated",
    /// `cgroup_attach_task`.
    CgroupAttach = "cgroup_attach",
    /// Raw `sys_enter` while something is watched.
    SysEnter = "sys_enter",
    /// Raw `sys_exit` while something is watched.
    SysExit = "sys_exit",
    /// fentry/fexit of parts.
    Part = "part",
    /// `sched_switch` while something is watched.
    Switch = "switch",
    /// `sched_waking` and `sched_wakeup_new` while something is watched.
    Wakeup = "wakeup",
    /// Each time that the kernel marks a victim of a shortage of memory, and the `OomKill` records.
    OomKill = "oom_kill",
    /// Each thread that exits, and the `OomThread` records of those of victims.
    OomThread = "oom_thread",
    /// The `OomMemory` records.
    OomMemory = "oom_memory",
    /// The `OomVma` records; `filtered` are mappings that the capture has already.
    OomVma = "oom_vma",
    /// The `OomEnd` records.
    OomEnd = "oom_end",
    /// `contention_begin`: somebody begins to wait for a lock, any lock of the kernel.
    LockBegin = "lock_begin",
    /// `contention_end`: the wait is over.
    LockEnd = "lock_end",
    /// Functions that take and drop locks of cgroups.
    LockHold = "lock_hold",
    /// Waits of attaches for RCU.
    LockRcu = "lock_rcu",
    /// `cgroup_rstat_lock_contended`, `cgroup_rstat_locked`, `cgroup_rstat_unlock`.
    LockRstat = "lock_rstat",
    /// The `LockWait` records; one over the rate is `aggregated`.
    LockRecord = "lock_record",
    /// `__tcp_retransmit_skb`, or its tracepoint; `filtered` are attempts that sent nothing.
    Retransmit = "retransmit",
    /// `tcp_retransmit_synack`.
    RetransmitSynack = "retransmit_synack",
    /// `inet_sock_set_state`, for whose a socket is.
    SocketOwner = "socket_owner",
}
