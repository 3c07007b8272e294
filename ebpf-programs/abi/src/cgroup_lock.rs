//! The `cgroup_lock` signal: aggregates of waits and holds, and the record of a long wait.

use crate::COMM_BYTES;

/// Size of a [`LockWait`] in the ring, in bytes.
pub const LOCK_WAIT_BYTES: usize = core::mem::size_of::<LockWait>();
/// First two bytes of a [`LockWait`].
pub const LOCK_WAIT: u16 = 0x100;
/// Return addresses of a [`LockWait`], the innermost first.
pub const LOCK_FRAMES: usize = 32;
/// Number of [`Lock`]s.
pub const LOCKS: usize = Lock::ALL.len();
/// Number of [`Operation`]s.
pub const OPERATIONS: usize = Operation::ALL.len();
/// Rows of the aggregate of one way to measure: one for each lock and operation.
pub const LOCK_ROWS: u32 = (LOCKS * OPERATIONS) as u32;

macro_rules! words {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every one, in index order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The one of a raw value, if this build knows it.
            #[must_use]
            #[inline(always)]
            pub const fn from_u32(raw: u32) -> Option<Self> {
                // Not by index: the verifier of 6.1 asks for the bounds of such a table.
                match raw {
                    $(raw if raw == Self::$variant as u32 => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The word used in metrics and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

words! {
    /// What was waited for.
    Lock {
        /// `cgroup_mutex`: every change of the tree of cgroups, of all hierarchies.
        CgroupMutex = "cgroup_mutex",
        /// `cgroup_threadgroup_rwsem`: fork, exec and exit against attach, of the whole machine.
        ThreadgroupRwsem = "threadgroup_rwsem",
        /// `signal->cgroup_threadgroup_rwsem`: the same, of one process (6.18 and later).
        ProcessRwsem = "process_rwsem",
        /// `css_set_lock`: which task is in which cgroups.
        CssSetLock = "css_set_lock",
        /// The locks of the statistics' trees (`cgroup_rstat_lock`, and one a controller later).
        Rstat = "rstat",
        /// The read-write semaphores of a cgroup file system's tree of nodes.
        Kernfs = "kernfs",
        /// `i_rwsem` of a directory of a cgroup file system: two that make or remove
        /// directories in the same one. No lock of cgroups, and easily taken for one.
        ParentDirectory = "parent_directory",
        /// A grace period of RCU that an attach waits for. No lock: nobody holds it.
        Rcu = "rcu",
    }
}

words! {
    /// What the waiting (or holding) task was doing.
    Operation {
        /// `mkdir` of a cgroup.
        Mkdir = "mkdir",
        /// `rmdir` of a cgroup.
        Rmdir = "rmdir",
        /// A write to `cgroup.procs`, `cgroup.threads` or `tasks`.
        Attach = "attach",
        /// `rename` of a cgroup (v1).
        Rename = "rename",
        /// A write to any other file of a cgroup.
        Write = "write",
        /// A read of a file of a cgroup, or of `/proc/PID/cgroup`.
        Read = "read",
        /// A fork, or a clone into a cgroup.
        Fork = "fork",
        /// An exit, or an exec of a process with threads.
        Exit = "exit",
        /// The kernel's own work after a cgroup was removed.
        CssRelease = "css_release",
        /// A path was walked: `open`, `stat`, `access`.
        Lookup = "lookup",
        /// None of these, or not known.
        Other = "other",
    }
}

/// Buckets of a histogram of times: below 1,024 ns, then two an octave up to 2^36 ns (69 s), then
/// all above.
pub const LOCK_BUCKETS: usize = 54;
const FIRST_OCTAVE: u32 = 10;
const LAST_OCTAVE: u32 = 35;

/// The bucket of a time in ns: less than [`bucket_end_ns`] of it, and not less than that of the
/// one before.
#[inline(always)]
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = 63 - ns.leading_zeros();
    if octave > LAST_OCTAVE {
        return LOCK_BUCKETS - 1;
    }
    let upper_half = (ns >> (octave - 1)) as usize & 1;
    1 + 2 * (octave - FIRST_OCTAVE) as usize + upper_half
}

/// Where a bucket ends, ns, itself not in it; `u64::MAX` of the last one.
#[must_use]
pub const fn bucket_end_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << FIRST_OCTAVE;
    }
    if bucket >= LOCK_BUCKETS - 1 {
        return u64::MAX;
    }
    let octave = FIRST_OCTAVE as usize + (bucket - 1) / 2;
    let begin = 1_u64 << octave;
    if (bucket - 1).is_multiple_of(2) {
        begin + begin / 2
    } else {
        begin * 2
    }
}

/// Totals and histogram of waits, or of holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LockTimes {
    /// How many.
    pub count: u64,
    /// Their sum, ns.
    pub sum_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
    /// Counts by [`bucket_of`].
    pub buckets: [u64; LOCK_BUCKETS],
}

impl LockTimes {
    /// None.
    pub const NONE: Self = Self {
        count: 0,
        sum_ns: 0,
        max_ns: 0,
        buckets: [0; LOCK_BUCKETS],
    };
}

/// One row of the per-CPU aggregate, at [`LockRow::index`] (and [`LOCK_ROWS`]
/// further for each way to measure, where several are compared).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LockRow {
    /// Waits.
    pub wait: LockTimes,
    /// Holds.
    pub hold: LockTimes,
}

impl LockRow {
    /// Index of the row of a lock and an operation.
    #[inline(always)]
    #[must_use]
    pub const fn index(lock: Lock, operation: Operation) -> u32 {
        lock as u32 * OPERATIONS as u32 + operation as u32
    }
}

/// Key of the bounded aggregate by cgroup, of which the least recently used go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct LockCgroup {
    /// [`Lock`].
    pub lock: u32,
    /// [`Operation`].
    pub operation: u32,
    /// Cgroup of the waiting (or holding) task, in the hierarchy with the memory controller.
    pub cgroup: u64,
}

/// Its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LockTotals {
    /// Waits.
    pub wait_count: u64,
    /// Their sum, ns.
    pub wait_sum_ns: u64,
    /// The longest, ns.
    pub wait_max_ns: u64,
    /// Holds.
    pub hold_count: u64,
    /// Their sum, ns.
    pub hold_sum_ns: u64,
    /// The longest, ns.
    pub hold_max_ns: u64,
}

/// Bits of [`LockWait::flags`].
pub mod lock_flags {
    /// `holder` is known: it had the lock when the wait began.
    pub const HOLDER: u16 = 1 << 0;
    /// `holder_since_ns` and `holder_operation` are known: the holder's own acquisition was seen.
    pub const HOLDER_SINCE: u16 = 1 << 1;
    /// Holds of this lock are exact on this kernel; without it they are upper bounds, or not
    /// measured.
    pub const HOLD_EXACT: u16 = 1 << 2;
    /// The waiter belongs to a watched start: `watch` is its id.
    pub const WATCHED: u16 = 1 << 3;
    /// The waiter is a kernel thread.
    pub const KERNEL_THREAD: u16 = 1 << 4;
}

/// A task that waits for a lock, or holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LockTask {
    /// Thread (initial PID namespace).
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// `start_boottime` of the process's leader, ns: with `tgid` the process's identity.
    pub start_boottime: u64,
    /// Its cgroup in the hierarchy with the memory controller; 0 when unknown.
    pub cgroup: u64,
    /// Its name, padded with zeros.
    pub comm: [u8; COMM_BYTES],
}

/// One wait that was longer than the threshold. All times are `CLOCK_BOOTTIME`, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LockWait {
    /// [`LOCK_WAIT`].
    pub kind: u16,
    /// Bits of [`lock_flags`].
    pub flags: u16,
    /// CPU on which the wait ended.
    pub cpu: u32,
    /// When the wait began.
    pub begin_ns: u64,
    /// When the lock was had (or given up).
    pub end_ns: u64,
    /// [`Lock`].
    pub lock: u32,
    /// [`Operation`] of the waiter.
    pub operation: u32,
    /// Address of the lock; 0 of [`Lock::Rcu`].
    pub address: u64,
    /// Who waited.
    pub waiter: LockTask,
    /// Who had it when the wait began; zeros when unknown ([`lock_flags::HOLDER`]).
    pub holder: LockTask,
    /// When the holder had got it ([`lock_flags::HOLDER_SINCE`]), else 0.
    pub holder_since_ns: u64,
    /// [`Operation`] of the holder ([`lock_flags::HOLDER_SINCE`]).
    pub holder_operation: u32,
    /// Valid entries of `stack`.
    pub frames: u32,
    /// Id of the watched start that the waiter belongs to ([`lock_flags::WATCHED`]), else 0.
    pub watch: u64,
    /// The waiter's kernel stack when the wait ended, return addresses, innermost first.
    pub stack: [u64; LOCK_FRAMES],
}

/// What the kernel side is told about the signal, in a map, so that it can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LockSettings {
    /// Waits at least this long make a [`LockWait`], ns.
    pub threshold_ns: u64,
    /// The same for tasks of watched starts, ns.
    pub watched_threshold_ns: u64,
    /// Records a CPU makes in a second; further ones are in the aggregates only.
    pub records_per_second: u32,
    /// Bits by [`Lock`]: holds are measured by brackets, so that the bound from successive
    /// acquisitions is not taken.
    pub exact_holds: u32,
    /// Address of `cgroup_mutex`, or 0 while it is not known.
    pub mutex_address: u64,
    /// Address of the global `cgroup_threadgroup_rwsem`, or 0 while it is not known.
    pub threadgroup_address: u64,
    /// Process whose waits are counted by address while it calibrates, or 0.
    pub calibrating: u32,
    /// Whether several ways to measure are compared: each then has rows of its own.
    pub compare: u32,
}

/// A way to measure, of those that are compared; its rows begin at `way * LOCK_ROWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum LockWay {
    /// The tracepoints of contention.
    Tracepoint = 0,
    /// fentry and fexit of the functions that take and drop the locks.
    Fentry = 1,
    /// kprobe and kretprobe of the same.
    Kprobe = 2,
    /// fentry and fexit of the lock itself: exact, and too dear to be left attached.
    Reference = 3,
    /// No way of its own: as holds, how much longer the bound from the tracepoints is than the
    /// reference's time of the same hold; as waits, how much shorter, which it must not be.
    Bound = 4,
}

impl LockWay {
    /// Every one, in index order.
    pub const ALL: [Self; LOCK_WAYS as usize] = [
        Self::Tracepoint,
        Self::Fentry,
        Self::Kprobe,
        Self::Reference,
        Self::Bound,
    ];

    /// The word used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Reference => "reference",
            Self::Bound => "bound",
        }
    }
}

/// Number of [`LockWay`]s.
pub const LOCK_WAYS: u32 = 5;

/// Entries of the table of functions, in the order of their addresses; those behind the last
/// begin at `u64::MAX`.
pub const LOCK_FUNCTIONS: u32 = 255;

/// A function of the kernel, and what its place on a stack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LockFunction {
    /// Its first address.
    pub begin: u64,
    /// The first one behind it.
    pub end: u64,
    /// [`Operation`], or [`ABSENT`](crate::ABSENT) if it means none.
    pub operation: u32,
    /// Bits of [`lock_function`].
    pub means: u32,
}

/// Bits of [`LockFunction::means`].
pub mod lock_function {
    /// It waits for a lock: its caller is who takes it.
    pub const WAITS: u32 = 1 << 0;
    /// The only mutex that it takes is `cgroup_mutex`.
    pub const TAKES_MUTEX: u32 = 1 << 1;
    /// The only per-CPU semaphore that it takes is `cgroup_threadgroup_rwsem`.
    pub const TAKES_THREADGROUP: u32 = 1 << 2;
    /// The only static spinlock that it takes is `css_set_lock`.
    pub const TAKES_CSS_SET: u32 = 1 << 3;
    /// It waits for RCU.
    pub const WAITS_FOR_RCU: u32 = 1 << 4;
}

/// Key of the counts of waits by address: what a lock was taken for by its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct LockSeen {
    /// Address of the lock.
    pub address: u64,
    /// [`Lock`] by its caller, or [`ABSENT`](crate::ABSENT): a mutex that the calibrating process
    /// waited for, by unknown callers.
    pub lock: u32,
    /// Unused, zero.
    pub unused: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        for shift in 0..63 {
            for ns in [
                1_u64 << shift,
                (1 << shift) + (1 << shift) / 2,
                (2 << shift) - 1,
            ] {
                let bucket = bucket_of(ns);
                assert!(
                    ns < bucket_end_ns(bucket) || bucket == LOCK_BUCKETS - 1,
                    "{ns}"
                );
                assert!(bucket == 0 || ns >= bucket_end_ns(bucket - 1), "{ns}");
            }
        }
        assert_eq!(bucket_of(60_000_000_000), LOCK_BUCKETS - 2);
        assert_eq!(bucket_of(u64::MAX), LOCK_BUCKETS - 1);
    }
}
