//! What is watched, and the globals and map values that steer it.

/// Bytes of a task's name, its end included.
pub const COMM_BYTES: usize = 16;
/// Bytes of the path of a `file` ready rule.
pub const FILE_BYTES: usize = 128;
/// Entries of the table of system calls.
pub const SYSCALLS: u32 = 512;

/// Bits of [`Watch::ready`]: the marks that a watched process is asked for, beside those
/// that every one makes.
pub mod ready {
    /// First accept or blocking poll.
    pub const ACCEPT: u32 = 1 << 0;
    /// `sd_notify`.
    pub const NOTIFY: u32 = 1 << 1;
    /// The Runtime API's `/next`.
    pub const NEXT: u32 = 1 << 2;
    /// A file.
    pub const FILE: u32 = 1 << 3;
}

/// What opened a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Opener {
    /// `hearth trace`'s own fork. The watched process itself is not part of the start.
    Trace = 1,
    /// Exec of an OCI runtime, a VMM, or a program matching a `[[start]]` rule.
    Exec = 2,
    /// A cgroup became populated.
    Cgroup = 3,
    /// A registered fork server forked. The server itself is not part of the start.
    Fork = 4,
    /// A claim of hearth's own runtime.
    Claim = 5,
}

impl Opener {
    /// The opener of a raw value.
    #[must_use]
    pub const fn from_u32(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Trace),
            2 => Some(Self::Exec),
            3 => Some(Self::Cgroup),
            4 => Some(Self::Fork),
            5 => Some(Self::Claim),
            _ => None,
        }
    }

    /// Whether the watched process only opens starts with its forks.
    #[must_use]
    pub const fn is_source(self) -> bool {
        matches!(self, Self::Trace | Self::Fork)
    }
}

/// Value of the map of watched processes, by tgid. Inherited at `task_newtask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Watch {
    /// Id of the start: the boot time of its opener, ns; 0 in a source.
    pub id: u64,
    /// Identity of the process beside its tgid; 0 when user space did not know it.
    pub start_boottime: u64,
    /// [`Opener`] as its discriminant.
    pub opener: u32,
    /// Bits of [`ready`].
    pub ready: u32,
    /// Bits of [`ready`] that were marked already.
    pub marked: u32,
    /// Bits of [`crate::flags`] to be given to each mark: `LATE`.
    pub flags: u32,
    /// When the accounting of this process began, boot clock, ns.
    pub began_ns: u64,
    /// Packed state of the accounting: see `account.rs` of the programs.
    pub state: u64,
    /// Totals of the accounting, ns: running, queued, io, blocked.
    pub accounted_ns: [u64; 4],
}

/// Value of the map of syscalls (or functions) under way, by tid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InFlight {
    /// When it began, boot clock, ns.
    pub begin_ns: u64,
    /// Bits of [`syscall`].
    pub wanted: u32,
    /// Syscall number, or 0.
    pub nr: u32,
    /// [`Part`](crate::Part) once it is known that the interval is one, else 0.
    pub part: u64,
    /// Argument to be looked at when it ends (the address of a path, say).
    pub arg: u64,
}

/// What a system call of a watched process is looked at for: bits, so that one call can serve
/// several kinds.
pub mod syscall {
    /// Begin of an exec.
    pub const EXEC: u32 = 1 << 0;
    /// Part: `unshare`, `setns`.
    pub const NAMESPACES: u32 = 1 << 1;
    /// Part: `clone` and `clone3`, with new namespaces.
    pub const CLONE: u32 = 1 << 2;
    /// Part: the mount family.
    pub const MOUNTS: u32 = 1 << 3;
    /// Part: `mkdir`, when it made a cgroup.
    pub const CGROUP_MKDIR: u32 = 1 << 4;
    /// Part: `write`, to a file of a cgroup.
    pub const CGROUP_WRITE: u32 = 1 << 5;
    /// Part: `sendmsg`, to netlink.
    pub const NETWORK: u32 = 1 << 6;
    /// Part: `open`, of a FIFO that holds.
    pub const HELD: u32 = 1 << 7;
    /// Ready: `accept`, and polls that may block.
    pub const ACCEPT: u32 = 1 << 8;
    /// Ready: messages of `sd_notify` and to the Runtime API.
    pub const MESSAGE: u32 = 1 << 9;
    /// Ready: `open`, of the rule's file for writing.
    pub const FILE_OPEN: u32 = 1 << 10;
    /// Ready: `rename`, to the rule's file.
    pub const FILE_RENAME: u32 = 1 << 11;
}

/// Value of the map of rules that open a start at an exec, by the task's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExecRule {
    /// [`Opener`] as its discriminant: `Exec`, or `Fork` for a fork server.
    pub opener: u32,
    /// Bits of [`ready`].
    pub ready: u32,
}

/// The globals that user space sets before the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Whether every exec opens a start (`mode = "process"`).
    pub every_exec: u32,
    /// Whether an exec may open a start by a rule.
    pub exec_opens: u32,
    /// Whether a cgroup that becomes populated opens a start.
    pub cgroup_opens: u32,
    /// Ready bits given to starts that the kernel side opens itself.
    pub ready: u32,
    /// Bytes of a ring that must be waiting before a submit wakes the reader.
    pub wake_bytes: u32,
}
