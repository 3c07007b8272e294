//! The event of the `cold_start` signal: one boundary passed by one task.

/// Size of a [`Mark`] in the ring, in bytes.
pub const MARK_BYTES: usize = core::mem::size_of::<Mark>();

/// What a record says. The discriminant is the record's first two bytes.
///
/// `args` of the [`Mark`] by kind are given at each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A process (never a thread) was created; stamped by the creator, so `tid`,
    /// `tgid` and the counters are the creator's.
    /// `args = [child tgid, child start_boottime ns, clone flags]`.
    Fork = 1,
    /// An exec began. Known to be the last of its thread before the [`Kind::Exec`]
    /// that follows it. `args = [strategy's error bound in ns, 0, 0]`.
    ExecBegin = 2,
    /// `sched_process_exec`: the new image is in place.
    /// `args = [inode, device, start of the code segment in memory]`; a [`Text`](crate::Text) follows
    /// with the file name and `argv[0]`.
    Exec = 3,
    /// The program's entry: `__libc_start_main`, or the ELF entry of a static program.
    /// `args = [instruction pointer, first C argument, bits of [`site`](crate::site)]`.
    Entry = 4,
    /// Hand-over to user code: `main`, `main.main`, or a runtime's own symbol; the first hit of
    /// a process and image. `args = [instruction pointer, 0, bits of [`site`](crate::site)]`.
    Main = 5,
    /// A TCP socket went from closed to listening, in the listener.
    /// `args = [port, address family, 0]`.
    Listen = 6,
    /// First accept or blocking poll of the process. `args = [syscall number, 0, 0]`.
    Accept = 7,
    /// `sd_notify` said `READY=1`. `args = [0, 0, 0]`.
    Notify = 8,
    /// The function asked the Runtime API for its next invocation. `args = [0, 0, 0]`.
    Next = 9,
    /// The ready rule's file was opened for writing, or renamed into place. `args = [0, 0, 0]`.
    File = 10,
    /// The ready rule's uprobe was hit. `args = [instruction pointer, 0, 0]`.
    UserProbe = 11,
    /// The last thread of a process exits. `args = [wait status, 0, 0]`.
    Exit = 12,
    /// A cgroup of the memory hierarchy became populated (`arg[1] == 1`) or empty (`0`).
    /// `args = [cgroup id, populated, 0]`; a [`Text`](crate::Text) of kind `CgroupPath` follows.
    CgroupPopulated = 13,
    /// A process was moved into a cgroup of the memory hierarchy; stamped by the mover.
    /// `args = [cgroup id, moved tgid, moved start_boottime ns]`.
    CgroupAttach = 14,
    /// An interval of work inside a phase has ended; `boottime_ns` is its end.
    /// `args = [Part, begin boottime ns, syscall number or 0]`.
    Part = 15,
    /// A [`Text`](crate::Text): file name and `argv[0]` of an exec.
    ExecText = 32,
    /// A [`Text`](crate::Text): path of a cgroup, within its hierarchy.
    CgroupPath = 33,
    /// A [`Text`](crate::Text): a cgroup was removed; the path is empty.
    CgroupGone = 34,
}

impl Kind {
    /// Every kind, in discriminant order.
    pub const ALL: [Self; 18] = [
        Self::Fork,
        Self::ExecBegin,
        Self::Exec,
        Self::Entry,
        Self::Main,
        Self::Listen,
        Self::Accept,
        Self::Notify,
        Self::Next,
        Self::File,
        Self::UserProbe,
        Self::Exit,
        Self::CgroupPopulated,
        Self::CgroupAttach,
        Self::Part,
        Self::ExecText,
        Self::CgroupPath,
        Self::CgroupGone,
    ];

    /// The kind of a record's first two bytes, if this build knows it.
    #[must_use]
    pub fn from_u16(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == raw)
    }

    /// Whether the record is a [`Text`](crate::Text) rather than a [`Mark`].
    #[must_use]
    pub const fn is_text(self) -> bool {
        self as u16 >= Self::ExecText as u16
    }
}

/// What a [`Kind::Part`] mark is an interval of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum Part {
    /// Making, configuring, or attaching to a cgroup.
    Cgroup = 1,
    /// `unshare`, `setns`, or a clone with new namespaces.
    Namespaces = 2,
    /// `mount`, `umount`, `pivot_root` and the new mount API.
    Mounts = 3,
    /// Netlink route requests: links, addresses, routes.
    Network = 4,
    /// Waiting to be let go: `runc create` before `runc start`.
    Held = 5,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [
        Self::Cgroup,
        Self::Namespaces,
        Self::Mounts,
        Self::Network,
        Self::Held,
    ];

    /// The part of a mark's first argument, if this build knows it.
    #[must_use]
    pub fn from_u64(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|part| *part as u64 == raw)
    }

    /// The word used in JSON, metrics and pictures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Namespaces => "namespaces",
            Self::Mounts => "mounts",
            Self::Network => "network",
            Self::Held => "held",
        }
    }
}

/// Bits of [`Mark::flags`].
pub mod flags {
    /// `counters.{running,queued,io,blocked}_ns` have been accounted since the process
    /// began to be watched; without it they are zero and mean nothing.
    pub const ACCOUNTED: u16 = 1 << 0;
    /// The process has more threads than the program walks: the counters of faults,
    /// switches and bytes are those of the stamping thread and of exited ones only.
    pub const COUNTERS_PARTIAL: u16 = 1 << 1;
    /// `ioac` is not compiled into this kernel: `read_bytes` means nothing.
    pub const NO_READ_BYTES: u16 = 1 << 2;
    /// The task belongs to a watched start: `watch` is its id.
    pub const WATCHED: u16 = 1 << 3;
    /// `sched_info.run_delay` was readable.
    pub const RUN_DELAY: u16 = 1 << 4;
    /// The time is that of a watch that began while the process already ran: the
    /// accounting of this mark covers only the time since then.
    pub const LATE: u16 = 1 << 5;
    /// Of a watched process only: it is a start by itself, as every exec is one, and is watched
    /// for its causes and parts alone. Its children do not inherit that, and its marks carry no
    /// start's id. Never set in a mark.
    pub const ALONE: u16 = 1 << 6;
}

/// Bits that user space gives to the uprobe of a site, and that its marks carry.
pub mod site {
    /// Early, but on every way to user code: a later mark of the same kind without this bit
    /// replaces it.
    pub const PROVISIONAL: u64 = 1 << 0;
    /// The first C argument is the address of `main`.
    pub const MAIN_IN_RDI: u64 = 1 << 1;
}

/// Totals at the moment of the mark. Of the process: exited threads, and every live one
/// as far as [`flags::COUNTERS_PARTIAL`] says. Differences between two marks of one
/// process are the cost of what lies between; a process begins at zero when it is forked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Voluntary context switches.
    pub nvcsw: u32,
    /// Involuntary context switches.
    pub nivcsw: u32,
    /// Page faults served without I/O.
    pub minor_faults: u32,
    /// Page faults that waited for I/O.
    pub major_faults: u32,
    /// Bytes fetched from storage (`ioac.read_bytes`).
    pub read_bytes: u64,
    /// Time the *stamping thread* was runnable but not running, ns (`sched_info.run_delay`).
    pub run_delay_ns: u64,
    /// Time in which any thread ran, ns.
    pub running_ns: u64,
    /// Time in which none ran and any was runnable, ns.
    pub queued_ns: u64,
    /// Time in which none ran or was runnable and any waited for I/O, ns.
    pub io_ns: u64,
    /// Time in which all waited for something else, ns.
    pub blocked_ns: u64,
}

/// One boundary passed by one task. All times are `CLOCK_BOOTTIME`, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mark {
    /// [`Kind`] as its discriminant.
    pub kind: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// CPU the mark was stamped on.
    pub cpu: u32,
    /// When.
    pub boottime_ns: u64,
    /// Stamping thread (initial PID namespace).
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// `start_boottime` of the process's leader: with `tgid` and the boot id, the
    /// process's identity.
    pub start_boottime: u64,
    /// `tgid` of the real parent at that moment.
    pub parent: u32,
    /// Threads of the process at that moment.
    pub threads: u32,
    /// Id (inode number) of the process's cgroup in the hierarchy with the memory
    /// controller; 0 when unknown.
    pub cgroup: u64,
    /// Id of the watched start that the process belongs to: the boot time of its opener;
    /// 0 when none ([`flags::WATCHED`]).
    pub watch: u64,
    /// By [`Kind`].
    pub args: [u64; 3],
    /// Totals so far.
    pub counters: Counters,
}
