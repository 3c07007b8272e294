//! The events of the `oom` signal: who was killed for want of memory, and what its threads were
//! doing.
//!
//! An [`OomKill`] at the kill; then, in the victim's own context as each of its threads exits, an
//! [`OomThread`], with what memory there is to show ([`OomMemory`]) and the mappings that its
//! addresses lie in ([`OomVma`], each mapping once a capture); at last an [`OomEnd`]. All of one
//! victim carry one id. They can arrive in any order: a thread can be gone before its kill is
//! published.

use crate::COMM_BYTES;

/// Frames of a user stack: as many as the kernel itself walks by default.
pub const OOM_USER_FRAMES: usize = 127;
/// Frames of a kernel stack.
pub const OOM_KERNEL_FRAMES: usize = 48;
/// Bytes of user memory in one [`OomMemory`].
pub const OOM_MEMORY_BYTES: usize = 4096;
/// Bytes of the names in one [`OomVma`].
pub const OOM_NAME_BYTES: usize = 512;
/// Members of `struct pt_regs` of `x86_64`.
pub const OOM_REGISTERS: usize = 21;

/// What a record of this signal says; the record's first two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum OomRecord {
    /// An [`OomKill`].
    Kill = 0x110,
    /// An [`OomThread`].
    Thread = 0x111,
    /// An [`OomMemory`].
    Memory = 0x112,
    /// An [`OomVma`].
    Vma = 0x113,
    /// An [`OomEnd`].
    End = 0x114,
}

impl OomRecord {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Thread, Self::Memory, Self::Vma, Self::End];

    /// Of a record's first two bytes.
    #[must_use]
    pub fn from_u16(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|record| *record as u16 == raw)
    }

    /// Bytes of such a record.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Kill => size_of::<OomKill>(),
            Self::Thread => size_of::<OomThread>(),
            Self::Memory => size_of::<OomMemory>(),
            Self::Vma => size_of::<OomVma>(),
            Self::End => size_of::<OomEnd>(),
        }
    }
}

/// Whether a field was had, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OomSource {
    /// Read where the kernel keeps it.
    Read = 0,
    /// Concluded from what else was read: the kernel's own value was out of reach.
    Derived = 1,
    /// Read without a lock or from a part of the counters: near, not exact.
    Approximate = 2,
    /// The kernel has no such member or function.
    NotOnThisKernel = 3,
    /// Only the running task's can be read, and the victim was not running.
    NotCurrent = 4,
    /// It was looked for and could not be read (paged out, gone, busy).
    Unreadable = 5,
    /// The program of this strategy is not given it.
    OutOfReach = 6,
    /// It was not asked for.
    Off = 7,
    /// There is none: no limit in a global shortage, no user memory in a kernel thread.
    None = 8,
    /// It was read, and there was no room for its record; the ledger counts it.
    Lost = 9,
}

impl OomSource {
    /// Every source, in order.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Derived,
        Self::Approximate,
        Self::NotOnThisKernel,
        Self::NotCurrent,
        Self::Unreadable,
        Self::OutOfReach,
        Self::Off,
        Self::None,
        Self::Lost,
    ];

    /// Of a raw value.
    #[must_use]
    pub fn from_u8(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|source| *source as u8 == raw)
    }

    /// Whether the field holds something.
    #[must_use]
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Read | Self::Derived | Self::Approximate)
    }

    /// The word used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Derived => "derived",
            Self::Approximate => "approximate",
            Self::NotOnThisKernel => "not_on_this_kernel",
            Self::NotCurrent => "not_current",
            Self::Unreadable => "unreadable",
            Self::OutOfReach => "out_of_reach",
            Self::Off => "off",
            Self::None => "none",
            Self::Lost => "lost",
        }
    }
}

macro_rules! fields {
    ($(#[$doc:meta])* $name:ident: $($(#[$field_doc:meta])* $field:ident = $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$field_doc])* $field,)*
        }

        impl $name {
            /// Every field, in index order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$field),*];

            /// The word used in JSON and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $word,)*
                }
            }
        }
    };
}

fields! {
    /// Groups of members of an [`OomKill`] that are had or missing together: indices of
    /// [`OomKill::sources`].
    OomKillField:
    /// `constraint`.
    Constraint = "constraint",
    /// `memcg`: the cgroup whose limit was hit.
    Memcg = "memcg",
    /// `limit_pages`, `usage_pages`.
    Usage = "usage",
    /// `swap_limit_pages`, `swap_usage_pages`.
    SwapUsage = "swap_usage",
    /// `gfp`, `order`.
    Request = "request",
    /// `points`, `total_pages`.
    Points = "points",
    /// `oom_score_adj`.
    Adjustment = "oom_score_adj",
    /// `rss_*_pages`, `swap_pages`.
    Rss = "rss",
    /// `page_table_bytes`.
    PageTables = "page_tables",
    /// `total_vm_pages`.
    TotalVm = "total_vm",
    /// `registers`.
    Registers = "registers",
    /// `victim_stack`.
    VictimStack = "victim_stack",
    /// `asker_stack`.
    AskerStack = "asker_stack",
    /// `uid`.
    Uid = "uid",
    /// `group`.
    Group = "group",
}

fields! {
    /// Groups of members of an [`OomThread`]: indices of [`OomThread::sources`].
    OomThreadField:
    /// `registers`.
    Registers = "registers",
    /// `user_stack`.
    UserStack = "user_stack",
    /// `kernel_stack`.
    KernelStack = "kernel_stack",
    /// `leaf`.
    Leaf = "leaf",
    /// The [`OomVma`]s of the frames.
    Mappings = "mappings",
    /// The [`OomMemory`] with the window of the stack.
    StackMemory = "stack_memory",
    /// The [`OomMemory`] with the command line; of a capture's first thread only.
    CommandLine = "command_line",
}

/// Bytes of [`OomKill::sources`].
pub const OOM_KILL_SOURCES: usize = 24;
/// Bytes of [`OomThread::sources`].
pub const OOM_THREAD_SOURCES: usize = 8;

const _: () = assert!(OomKillField::ALL.len() <= OOM_KILL_SOURCES);
const _: () = assert!(OomThreadField::ALL.len() <= OOM_THREAD_SOURCES);

/// Which shortage it was: the kernel's `enum oom_constraint`, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum OomConstraint {
    /// Of the whole machine.
    None = 0,
    /// Of the memory nodes of a cpuset.
    Cpuset = 1,
    /// Of the memory nodes of a policy.
    MemoryPolicy = 2,
    /// Of a memory cgroup.
    Memcg = 3,
}

impl OomConstraint {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::None, Self::Cpuset, Self::MemoryPolicy, Self::Memcg];

    /// Of a raw value.
    #[must_use]
    pub fn from_u16(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u16 == raw)
    }

    /// The word used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cpuset => "cpuset",
            Self::MemoryPolicy => "memory_policy",
            Self::Memcg => "memcg",
        }
    }
}

/// Who a task was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OomTask {
    /// Thread (initial PID namespace).
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// `start_boottime` of the process's leader, ns.
    pub start_boottime: u64,
    /// Id (inode number) of its cgroup in the hierarchy with the memory controller.
    pub cgroup: u64,
    /// Name, padded with zeros.
    pub comm: [u8; COMM_BYTES],
}

/// Bits of [`OomKill::flags`].
pub mod oom_kill {
    /// The victim was the running task: it died of its own request.
    pub const VICTIM_ASKED: u32 = 1 << 0;
    /// `memory.oom.group` made the kernel kill the whole group: `group` is common to them.
    pub const GROUP: u32 = 1 << 1;
    /// `swap_*_pages` count memory and swap together (`memory.memsw` of cgroup v1).
    pub const MEMSW: u32 = 1 << 2;
}

/// One process was chosen and killed. Stamped by the task that asked for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomKill {
    /// [`OomRecord::Kill`].
    pub kind: u16,
    /// [`OomConstraint`] as its discriminant.
    pub constraint: u16,
    /// CPU.
    pub cpu: u32,
    /// Id of the capture: when, `CLOCK_BOOTTIME` ns. With the victim's tgid it is unique.
    pub id: u64,
    /// Id of the first kill of the group that was killed together; 0 where it is alone.
    pub group: u64,
    /// Who was killed.
    pub victim: OomTask,
    /// Who asked for the memory that was not there.
    pub asker: OomTask,
    /// The victim's user id (initial user namespace).
    pub uid: u32,
    /// The victim's threads that had not begun to exit: so many [`OomThread`]s will come.
    pub threads: u32,
    /// Id (inode number) of the memory cgroup whose limit was hit; 0 in another shortage.
    pub memcg: u64,
    /// Flags of the request (`GFP_*`, by this kernel's own numbers).
    pub gfp: u32,
    /// Order of the request: `2^order` pages.
    pub order: i32,
    /// Limit of that cgroup, pages; a huge number stands for none.
    pub limit_pages: u64,
    /// What was charged to it, pages.
    pub usage_pages: u64,
    /// Its limit of swap (or of both: [`oom_kill::MEMSW`]), pages.
    pub swap_limit_pages: u64,
    /// Its swap (or both), pages.
    pub swap_usage_pages: u64,
    /// Badness of the victim, by the kernel's own reckoning.
    pub points: i64,
    /// What the kernel measured badness against, pages.
    pub total_pages: u64,
    /// The victim's `oom_score_adj`.
    pub oom_score_adj: i32,
    /// Bits of [`oom_kill`].
    pub flags: u32,
    /// Its resident file pages.
    pub rss_file_pages: u64,
    /// Its resident anonymous pages.
    pub rss_anon_pages: u64,
    /// Its resident shared memory pages.
    pub rss_shmem_pages: u64,
    /// Its pages in swap.
    pub swap_pages: u64,
    /// Its page tables, bytes.
    pub page_table_bytes: u64,
    /// Its address space, pages.
    pub total_vm_pages: u64,
    /// User registers of the victim's thread, in the order of `struct pt_regs`: `r15, r14, r13,
    /// r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, rflags, rsp,
    /// ss`.
    pub registers: [u64; OOM_REGISTERS],
    /// Frames in `victim_stack`.
    pub victim_frames: u32,
    /// Frames in `asker_stack`.
    pub asker_frames: u32,
    /// Kernel stack of the victim's thread, innermost first. Secret where addresses are.
    pub victim_stack: [u64; OOM_KERNEL_FRAMES],
    /// Kernel stack of the asker: what the memory was wanted for.
    pub asker_stack: [u64; OOM_KERNEL_FRAMES],
    /// [`OomSource`]s by [`OomKillField`].
    pub sources: [u8; OOM_KILL_SOURCES],
}

/// Bits of [`OomThread::flags`].
pub mod oom_thread {
    /// No other thread of the process is left that has not begun to exit.
    pub const LAST: u16 = 1 << 0;
    /// It exits by a SIGKILL while its memory cgroup is killing, and no kill of its process has
    /// been published yet: `id` is 0. It belongs to the kill of its process that comes within
    /// moments; if none comes, it was another signal's and belongs to none.
    pub const EARLY: u16 = 1 << 1;
}

/// One thread of a victim exits; in its own context, its memory still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomThread {
    /// [`OomRecord::Thread`].
    pub kind: u16,
    /// Bits of [`oom_thread`].
    pub flags: u16,
    /// CPU.
    pub cpu: u32,
    /// Id of the capture; 0 if [`oom_thread::EARLY`].
    pub id: u64,
    /// When, `CLOCK_BOOTTIME` ns.
    pub boottime_ns: u64,
    /// Who.
    pub task: OomTask,
    /// Threads of the process that have not begun to exit, this one apart.
    pub others: u32,
    /// Wait status that it exits with.
    pub exit_code: u32,
    /// User registers, as in [`OomKill::registers`].
    pub registers: [u64; OOM_REGISTERS],
    /// The word that the stack pointer points at, if it is an address of executable memory, else
    /// 0: the return address of a leaf function that has made no frame, which a walk by frame
    /// pointers misses.
    pub leaf: u64,
    /// Frames in `user_stack`.
    pub user_frames: u32,
    /// Frames in `kernel_stack`.
    pub kernel_frames: u32,
    /// User stack by frame pointers, innermost first; the first is the instruction pointer.
    pub user_stack: [u64; OOM_USER_FRAMES],
    /// Frames of it that lie in no mapping, a bit each. Each of the others has an [`OomVma`], or
    /// the source of the mappings says why not.
    pub unmapped: [u64; OOM_USER_FRAMES.div_ceil(64)],
    /// Kernel stack, innermost first.
    pub kernel_stack: [u64; OOM_KERNEL_FRAMES],
    /// [`OomSource`]s by [`OomThreadField`].
    pub sources: [u8; OOM_THREAD_SOURCES],
}

/// What the bytes of an [`OomMemory`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum OomContent {
    /// Arguments of the program, each with its zero; once a capture.
    CommandLine = 1,
    /// The stack from the stack pointer on. Secret; only where it was asked for.
    Stack = 2,
}

impl OomContent {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::CommandLine, Self::Stack];

    /// Of a raw value.
    #[must_use]
    pub fn from_u16(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u16 == raw)
    }
}

/// User memory of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomMemory {
    /// [`OomRecord::Memory`].
    pub kind: u16,
    /// [`OomContent`] as its discriminant.
    pub content: u16,
    /// How many of the bytes count.
    pub length: u32,
    /// As in the thread's record.
    pub id: u64,
    /// Thread whose it is.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// `start_boottime` of the process's leader, ns.
    pub start_boottime: u64,
    /// Address of the first byte.
    pub address: u64,
    /// How many bytes there are at the address; more than `length` where it was cut.
    pub available: u64,
    /// The bytes.
    pub bytes: [u8; OOM_MEMORY_BYTES],
}

/// Bits of [`OomVma::flags`].
pub mod oom_vma {
    /// It maps a file: `device`, `inode` and `names` are the file's.
    pub const FILE: u16 = 1 << 0;
    /// There are more directories above the ones in `names`.
    pub const NAMES_CUT: u16 = 1 << 1;
}

/// A mapping that addresses of a capture lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomVma {
    /// [`OomRecord::Vma`].
    pub kind: u16,
    /// Bits of [`oom_vma`].
    pub flags: u16,
    /// How many bytes of `names` count.
    pub names_length: u32,
    /// As in the thread's record.
    pub id: u64,
    /// Process.
    pub tgid: u32,
    /// Device of the file's file system (`MINORBITS` is 20, as inside of the kernel).
    pub device: u32,
    /// `start_boottime` of the process's leader, ns.
    pub start_boottime: u64,
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Where in the file it begins, pages.
    pub page_offset: u64,
    /// `VM_*`: 1 read, 2 write, 4 execute, 8 shared.
    pub vm_flags: u64,
    /// Inode number of the file.
    pub inode: u64,
    /// Names from the file up to the root that its process sees it under, each with its zero:
    /// `libc.so.6`, `lib`, `usr`.
    pub names: [u8; OOM_NAME_BYTES],
}

/// The last thread of a victim is gone: no more records of this capture will come, but for those
/// of threads under way on other CPUs. Give them a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomEnd {
    /// [`OomRecord::End`].
    pub kind: u16,
    /// Unused, zero.
    pub flags: u16,
    /// The victim's process.
    pub tgid: u32,
    /// Id of the capture.
    pub id: u64,
    /// When, `CLOCK_BOOTTIME` ns.
    pub boottime_ns: u64,
    /// `start_boottime` of the process's leader, ns.
    pub start_boottime: u64,
    /// Threads that a record was made for.
    pub recorded: u32,
    /// Threads beyond [`OomConfig::threads`], or whose record was lost.
    pub unrecorded: u32,
}

/// What a capture is to hold; set before the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OomConfig {
    /// Bytes of stack memory a thread, at most [`OOM_MEMORY_BYTES`]; 0 for none.
    pub stack_bytes: u32,
    /// Threads a capture.
    pub threads: u32,
    /// CPUs that the kernel has counters for.
    pub cpus: u32,
    /// Zero.
    pub unused: u32,
    /// Where the kernel function that kills begins, 0 if not known. A mark of a victim from
    /// elsewhere is of a process that was exiting anyway.
    pub killer_begin: u64,
    /// Where it ends.
    pub killer_end: u64,
    /// Where the kernel function begins that kills for the limit of a cgroup, 0 if not known. Of
    /// a kill without it among the callers, no cgroup's limit was the reason.
    pub limit_begin: u64,
    /// Where it ends.
    pub limit_end: u64,
}
