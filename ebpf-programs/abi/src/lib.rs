//! The bytes that cross from the kernel to user space, defined once.
//!
//! Every record is `repr(C)`, of fixed size, without implicit padding, and holds
//! plain integers only, so that any bit pattern is a value: decoding cannot fail
//! on content, only on length and on an unknown [`Kind`].
#![no_std]

mod cgroup_lock;
mod contention;
mod ledger;
mod mark;
mod offsets;
mod oom;
#[cfg(feature = "user")]
mod pod;
mod probe;
mod retransmit;
mod text;
mod watch;

pub use cgroup_lock::{
    LOCK_BUCKETS, LOCK_FRAMES, LOCK_FUNCTIONS, LOCK_ROWS, LOCK_WAIT, LOCK_WAIT_BYTES, LOCK_WAYS,
    LOCKS, Lock, LockCgroup, LockFunction, LockRow, LockSeen, LockSettings, LockTask, LockTimes,
    LockTotals, LockWait, LockWay, OPERATIONS, Operation, bucket_end_ns, bucket_of, lock_flags,
    lock_function,
};
pub use contention::{Contended, lcb};
pub use ledger::{FATES, Fate, LedgerRow};
pub use mark::{Counters, Kind, MARK_BYTES, Mark, Part, flags, site};
pub use offsets::{ABSENT, Bit, Offsets};
pub use oom::{
    OOM_KERNEL_FRAMES, OOM_KILL_SOURCES, OOM_MEMORY_BYTES, OOM_NAME_BYTES, OOM_REGISTERS,
    OOM_THREAD_SOURCES, OOM_USER_FRAMES, OomConfig, OomConstraint, OomContent, OomEnd, OomKill,
    OomKillField, OomMemory, OomRecord, OomSource, OomTask, OomThread, OomThreadField, OomVma,
    oom_kill, oom_thread, oom_vma,
};
pub use probe::{PROBES, Probe};
pub use retransmit::{
    FAMILY_V4, FAMILY_V6, PREFIX_V4_BYTES, PREFIX_V6_BYTES, RETRANSMIT_NAMESPACES, RETRANSMIT_ROWS,
    RetransmitKey, RetransmitNamespace, UnderWay,
};
pub use text::{TEXT_BYTES, TEXT_LONG, TEXT_SHORT, Text};
pub use watch::{
    COMM_BYTES, Config, ExecRule, FILE_BYTES, InFlight, Opener, SYSCALLS, Watch, ready, syscall,
};
