//! The hook table: for each kind of boundary or part, the strategies that can stamp it, best
//! first.
//!
//! It is data, and it is here once: attaching, `hearth doctor`, the `strategies` of a start, the
//! documents and the tests are derived from it. One file a signal.

pub(super) mod cgroup_lock;
mod cold_start;
mod oom;
mod retransmit;

use serde::{Deserialize, Serialize};

/// One thing that the kernel side watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Boundaries of starts.
    ColdStart,
    /// Waits for and holds of the locks of cgroups.
    CgroupLock,
    /// Kills for want of memory, and what the victims were doing.
    Oom,
    /// TCP segments sent again.
    Retransmit,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 4] = [
        Self::ColdStart,
        Self::CgroupLock,
        Self::Oom,
        Self::Retransmit,
    ];

    /// The word used in settings, metrics and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold_start",
            Self::CgroupLock => "cgroup_lock",
            Self::Oom => "oom",
            Self::Retransmit => "retransmit",
        }
    }
}

/// When a strategy's programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Always.
    AlwaysOn,
    /// Only while something is watched: what it costs is paid by every system call or switch.
    Watch,
}

/// How a program is attached, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A tracepoint, typed by BTF.
    TpBtf(&'static str),
    /// A raw tracepoint.
    RawTp(&'static str),
    /// The entry of a kernel function.
    Fentry(&'static str),
    /// Its return.
    Fexit(&'static str),
    /// The entry of a kernel function, by breakpoint or ftrace.
    Kprobe(&'static str),
    /// Its return, likewise.
    Kretprobe(&'static str),
    /// A user-space address, chosen file by file.
    Uprobe,
}

/// One program of the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// Where it goes.
    pub point: Point,
    /// Whether the strategy is worth having without it (a system call that older kernels lack).
    pub optional: bool,
}

/// One way to stamp a kind.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// The word used by `doctor` and in `strategies`.
    pub name: &'static str,
    /// When it is attached.
    pub set: Set,
    /// What it attaches.
    pub programs: &'static [Program],
    /// System calls that the raw tracepoints are to look at, and what for.
    pub syscalls: &'static [(u32, u32)],
    /// How much later than the boundary itself the stamp may be, ns; `None` where it depends on
    /// the program that is observed.
    pub error_ns: Option<u64>,
    /// What is lost or gained, for people.
    pub note: &'static str,
}

/// One kind, and its strategies.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// What it belongs to.
    pub signal: Signal,
    /// The word used by `doctor` and in `strategies`.
    pub kind: &'static str,
    /// What it is for, for people.
    pub purpose: &'static str,
    /// Whether hearth cannot run without it.
    pub required: bool,
    /// Best first.
    pub strategies: &'static [Strategy],
}

const fn tp_btf(name: &'static str, tracepoint: &'static str) -> Program {
    Program {
        name,
        point: Point::TpBtf(tracepoint),
        optional: false,
    }
}

const fn fentry(name: &'static str, function: &'static str) -> Program {
    Program {
        name,
        point: Point::Fentry(function),
        optional: false,
    }
}

const fn fexit(name: &'static str, function: &'static str) -> Program {
    Program {
        name,
        point: Point::Fexit(function),
        optional: false,
    }
}

const fn kprobe(name: &'static str, function: &'static str) -> Program {
    Program {
        name,
        point: Point::Kprobe(function),
        optional: false,
    }
}

const fn kretprobe(name: &'static str, function: &'static str) -> Program {
    Program {
        name,
        point: Point::Kretprobe(function),
        optional: false,
    }
}

const fn uprobe(name: &'static str) -> Program {
    Program {
        name,
        point: Point::Uprobe,
        optional: false,
    }
}

const fn optional(program: Program) -> Program {
    Program {
        optional: true,
        ..program
    }
}

/// Both raw tracepoints of system calls.
const SYSCALL_PROGRAMS: &[Program] = &[
    Program {
        name: "sys_enter",
        point: Point::RawTp("sys_enter"),
        optional: false,
    },
    Program {
        name: "sys_exit",
        point: Point::RawTp("sys_exit"),
        optional: false,
    },
];

const fn always(
    name: &'static str,
    programs: &'static [Program],
    error_ns: Option<u64>,
    note: &'static str,
) -> Strategy {
    Strategy {
        name,
        set: Set::AlwaysOn,
        programs,
        syscalls: &[],
        error_ns,
        note,
    }
}

const fn syscalls(syscalls: &'static [(u32, u32)], note: &'static str) -> Strategy {
    Strategy {
        name: "sys_enter",
        set: Set::Watch,
        programs: SYSCALL_PROGRAMS,
        syscalls,
        error_ns: Some(0),
        note,
    }
}

const fn number(call: libc::c_long) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "system call numbers are small and positive"
    )]
    let number = call as u32;
    number
}

/// The table, signal by signal.
const TABLE: &[&[Hook]] = &[
    cold_start::HOOKS,
    cgroup_lock::HOOKS,
    oom::HOOKS,
    retransmit::HOOKS,
];

/// Every hook, in the table's order.
pub fn hooks() -> impl Iterator<Item = &'static Hook> {
    TABLE.iter().copied().flatten()
}
