//! The rows of the ledger.

/// Number of [`Probe`]s.
pub const PROBES: usize = Probe::ALL.len();

/// A place that sees hits or makes records. One row of the ledger each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Probe {
    /// `task_newtask`; seen equals the growth of `processes` in `/proc/stat`.
    Fork = 0,
    /// Whatever notes the begin of an exec.
    ExecBegin,
    /// The `ExecBegin` records made when an exec succeeds.
    ExecBeginRecord,
    /// `sched_process_exec`.
    Exec,
    /// The `ExecText` records.
    ExecText,
    /// `sched_process_exit`.
    Exit,
    /// `inet_sock_set_state`.
    Listen,
    /// Uprobe on a program's entry.
    Entry,
    /// Uprobe on the hand-over to user code.
    Main,
    /// Uprobe of a ready rule.
    UserProbe,
    /// `cgroup_mkdir` and `cgroup_rmdir`.
    CgroupPath,
    /// `cgroup_notify_populated`.
    CgroupPopulated,
    /// `cgroup_attach_task`.
    CgroupAttach,
    /// Raw `sys_enter` while something is watched.
    SysEnter,
    /// Raw `sys_exit` while something is watched.
    SysExit,
    /// fentry/fexit of parts.
    Part,
    /// `sched_switch` while something is watched.
    Switch,
    /// `sched_waking` and `sched_wakeup_new` while something is watched.
    Wakeup,
}

impl Probe {
    /// Every probe, in index order.
    pub const ALL: [Self; 18] = [
        Self::Fork,
        Self::ExecBegin,
        Self::ExecBeginRecord,
        Self::Exec,
        Self::ExecText,
        Self::Exit,
        Self::Listen,
        Self::Entry,
        Self::Main,
        Self::UserProbe,
        Self::CgroupPath,
        Self::CgroupPopulated,
        Self::CgroupAttach,
        Self::SysEnter,
        Self::SysExit,
        Self::Part,
        Self::Switch,
        Self::Wakeup,
    ];

    /// The word used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::ExecBegin => "exec_begin",
            Self::ExecBeginRecord => "exec_begin_record",
            Self::Exec => "exec",
            Self::ExecText => "exec_text",
            Self::Exit => "exit",
            Self::Listen => "listen",
            Self::Entry => "entry",
            Self::Main => "main",
            Self::UserProbe => "user_probe",
            Self::CgroupPath => "cgroup_path",
            Self::CgroupPopulated => "cgroup_populated",
            Self::CgroupAttach => "cgroup_attach",
            Self::SysEnter => "sys_enter",
            Self::SysExit => "sys_exit",
            Self::Part => "part",
            Self::Switch => "switch",
            Self::Wakeup => "wakeup",
        }
    }
}
