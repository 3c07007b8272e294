//! Members of kernel structures, read where this kernel keeps them.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{bpf_get_current_task, bpf_loop, generated::bpf_probe_read_kernel};
use hearth_abi::{ABSENT, COMM_BYTES, Counters, flags};

use crate::globals::offset;

/// Threads that a mark walks to sum their counters.
const WALKED_THREADS: u32 = 32;

/// `PF_FORKNOEXEC`: forked, and did not exec yet. The same bit since 2.6.
const PF_FORKNOEXEC: u32 = 0x40;

/// `PF_KTHREAD`. The same bit since 2.6.27.
const PF_KTHREAD: u32 = 0x0020_0000;

/// An address in kernel memory.
///
/// Reading never branches on what was read: what cannot be read is zero, because the helper
/// says so, and a null pointer reads as zeros all the way down. The verifier follows every branch
/// with every state before it, and 6.1 gives up at a million instructions.
#[derive(Clone, Copy)]
pub struct Address(u64);

impl Address {
    /// Of a pointer argument of a program.
    #[inline(always)]
    pub fn of<T>(pointer: *const T) -> Self {
        Self(pointer as u64)
    }

    /// The value at `offset`; zero if this kernel has no such member, or on a fault. `T` is an
    /// integer, or an array of integers.
    #[inline(always)]
    pub fn get<T: Copy>(self, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        if offset != ABSENT {
            // SAFETY: the helper checks the source, and fills the destination with zeros when it
            // cannot be read.
            unsafe {
                bpf_probe_read_kernel(
                    value.as_mut_ptr().cast(),
                    size_of::<T>() as u32,
                    (self.0.wrapping_add(u64::from(offset))) as *const c_void,
                );
            }
        }
        // SAFETY: all zeros is a value of an integer.
        unsafe { value.assume_init() }
    }

    /// The pointer at `offset`; may be null.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Self {
        Self(self.get(offset))
    }

    /// Whether it is null.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address of the structure that has this one as its member at `offset`.
    #[inline(always)]
    pub fn container(self, offset: u32) -> Self {
        Self(self.0.wrapping_sub(u64::from(offset)))
    }

    /// Of a number.
    #[inline(always)]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The address of the member at `offset`.
    #[inline(always)]
    pub fn member(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(u64::from(offset)))
    }

    /// As a number.
    #[inline(always)]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// As a pointer for helpers.
    #[inline(always)]
    pub fn as_ptr(self) -> *const u8 {
        self.0 as *const u8
    }
}

impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// A `task_struct`.
#[derive(Clone, Copy)]
pub struct Task(Address);

impl Task {
    /// The running one.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: always callable.
        Self(Address(unsafe { bpf_get_current_task() }))
    }

    /// Of a pointer argument of a program.
    #[inline(always)]
    pub fn of(pointer: *const c_void) -> Self {
        Self(Address::of(pointer))
    }

    /// Thread id.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.0.get(offset!(task_pid))
    }

    /// Process id.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.0.get(offset!(task_tgid))
    }

    /// `tgid` of the real parent.
    #[inline(always)]
    pub fn parent(self) -> u32 {
        Self(self.0.follow(offset!(task_real_parent))).tgid()
    }

    /// `start_boottime` of the leader: the process's identity beside its id.
    #[inline(always)]
    pub fn start_boottime(self) -> u64 {
        self.0
            .follow(offset!(task_group_leader))
            .get(offset!(task_start_boottime))
    }

    /// Wait status; meaningful while it exits.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        self.0.get(offset!(task_exit_code))
    }

    /// Whether its process was forked and has not called exec. The leader tells: a thread carries
    /// the flag from its own creation on.
    #[inline(always)]
    pub fn never_execed(self) -> bool {
        let leader = self.0.follow(offset!(task_group_leader));
        leader.get::<u32>(offset!(task_flags)) & PF_FORKNOEXEC != 0
    }

    /// Whether no thread of its process is left that has not begun to exit.
    #[inline(always)]
    pub fn group_dead(self) -> bool {
        self.0
            .follow(offset!(task_signal))
            .get::<u32>(offset!(signal_live))
            == 0
    }

    /// Threads of its process that are not reaped.
    #[inline(always)]
    pub fn threads(self) -> u32 {
        self.0
            .follow(offset!(task_signal))
            .get(offset!(signal_nr_threads))
    }

    /// Threads of its process that have not begun to exit.
    #[inline(always)]
    pub fn live(self) -> u32 {
        self.0
            .follow(offset!(task_signal))
            .get(offset!(signal_live))
    }

    /// User id.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        self.0.follow(offset!(task_cred)).get(offset!(cred_uid))
    }

    /// What is added to its badness.
    #[inline(always)]
    pub fn oom_score_adj(self) -> i16 {
        self.0
            .follow(offset!(task_signal))
            .get(offset!(signal_oom_score_adj))
    }

    /// The mount and the entry of the root directory that it sees.
    #[inline(always)]
    pub fn root(self) -> (Address, Address) {
        let fs = self.0.follow(offset!(task_fs));
        (
            fs.follow(offset!(fs_root_mnt)),
            fs.follow(offset!(fs_root_dentry)),
        )
    }

    /// What its process's threads share.
    #[inline(always)]
    pub fn signal(self) -> Address {
        self.0.follow(offset!(task_signal))
    }

    /// How often it gave up the CPU of its own will.
    #[inline(always)]
    pub fn sleeps(self) -> u64 {
        self.0.get(offset!(task_nvcsw))
    }

    /// Whether it has no program of its own.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.0.get::<u32>(offset!(task_flags)) & PF_KTHREAD != 0
    }

    /// Bits of `TASK_*`.
    #[inline(always)]
    pub fn state(self) -> u32 {
        self.0.get(offset!(task_state))
    }

    /// Whether it runs or waits for a CPU (`TASK_RUNNING`).
    #[inline(always)]
    pub fn is_runnable(self) -> bool {
        self.state() == 0
    }

    /// Whether its last sleep was for I/O.
    #[inline(always)]
    pub fn in_iowait(self) -> bool {
        let bit = offset!(task_in_iowait);
        u32::from(self.0.get::<u8>(bit.byte)) & bit.mask != 0
    }

    /// Its node in the list of its process's threads.
    #[inline(always)]
    pub fn thread_node(self) -> Address {
        self.0.member(offset!(task_thread_node))
    }

    /// The head of that list, which is nobody's node.
    #[inline(always)]
    pub fn thread_head(self) -> Address {
        self.0
            .follow(offset!(task_signal))
            .member(offset!(signal_thread_head))
    }

    /// The thread of a node.
    #[inline(always)]
    pub fn of_thread_node(node: Address) -> Self {
        Self(node.container(offset!(task_thread_node)))
    }

    /// Name.
    #[inline(always)]
    pub fn comm(self) -> [u8; COMM_BYTES] {
        self.0.get(offset!(task_comm))
    }

    /// The cgroup in the hierarchy that carries the memory controller; one with id 0 if there is
    /// none.
    #[inline(always)]
    pub fn memory_cgroup(self) -> Cgroup {
        Cgroup(self.memory_css().follow(offset!(css_cgroup)))
    }

    /// The memory controller's state of that cgroup; null if there is none.
    #[inline(always)]
    pub fn memory_css(self) -> Address {
        let id = offset!(memory_cgrp_id);
        if id == ABSENT || offset!(css_set_subsys) == ABSENT {
            return Address(0);
        }
        self.0
            .follow(offset!(task_cgroups))
            .follow(offset!(css_set_subsys) + id * size_of::<u64>() as u32)
    }

    /// Address space; null in a kernel thread.
    #[inline(always)]
    pub fn mm(self) -> Address {
        self.0.follow(offset!(task_mm))
    }

    /// An open file by its descriptor; null if there is none.
    #[inline(always)]
    pub fn file(self, fd: u64) -> Address {
        let fdt = self
            .0
            .follow(offset!(task_files))
            .follow(offset!(files_fdt));
        if fd >= u64::from(fdt.get::<u32>(offset!(fdt_max_fds))) {
            return Address(0);
        }
        // Bounded by max_fds; the helper checks the address anyway.
        let slots = fdt.follow(offset!(fdt_fd));
        Address(slots.0.wrapping_add(fd * size_of::<u64>() as u64)).follow(0)
    }

    /// Fills in the counters that need no scheduler events; returns bits of [`flags`].
    ///
    /// # Safety
    /// `counters` and `threads` can be written.
    // Its walk would otherwise stand on the stack once for every mark that a program may make.
    #[inline(never)]
    pub unsafe fn count(self, counters: *mut Counters, threads: *mut u32) -> u16 {
        let mut said = 0;
        let signal = self.0.follow(offset!(task_signal));
        let alive: u32 = signal.get(offset!(signal_nr_threads));
        if offset!(task_read_bytes) == ABSENT {
            said |= flags::NO_READ_BYTES;
        }
        if offset!(task_run_delay) != ABSENT {
            said |= flags::RUN_DELAY;
        }
        if alive > WALKED_THREADS {
            said |= flags::COUNTERS_PARTIAL;
        }
        let mut walk = Walk {
            head: signal.member(offset!(signal_thread_head)),
            node: signal.member(offset!(signal_thread_head)),
            skipped: self,
            sum: Sum {
                nvcsw: signal.get(offset!(signal_nvcsw)),
                nivcsw: signal.get(offset!(signal_nivcsw)),
                minor_faults: signal.get(offset!(signal_min_flt)),
                major_faults: signal.get(offset!(signal_maj_flt)),
                read_bytes: signal.get(offset!(signal_read_bytes)),
            },
        };
        walk.sum.add(self);
        if alive > 1 && alive <= WALKED_THREADS {
            // SAFETY: the callback takes what it is given here. A loop of the helper's is
            // verified once; one of ours would be once for each thread.
            unsafe {
                bpf_loop(
                    WALKED_THREADS + 1,
                    add_next as *mut c_void,
                    (&raw mut walk).cast(),
                    0,
                );
            }
        }
        let run_delay = self.0.get(offset!(task_run_delay));
        // SAFETY: the caller's promise.
        unsafe {
            *threads = alive;
            (*counters).nvcsw = walk.sum.nvcsw as u32;
            (*counters).nivcsw = walk.sum.nivcsw as u32;
            (*counters).minor_faults = walk.sum.minor_faults as u32;
            (*counters).major_faults = walk.sum.major_faults as u32;
            (*counters).read_bytes = walk.sum.read_bytes;
            (*counters).run_delay_ns = run_delay;
        }
        said
    }
}

/// What threads add up to.
struct Sum {
    nvcsw: u64,
    nivcsw: u64,
    minor_faults: u64,
    major_faults: u64,
    read_bytes: u64,
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, task: Task) {
        self.nvcsw += task.0.get::<u64>(offset!(task_nvcsw));
        self.nivcsw += task.0.get::<u64>(offset!(task_nivcsw));
        self.minor_faults += task.0.get::<u64>(offset!(task_min_flt));
        self.major_faults += task.0.get::<u64>(offset!(task_maj_flt));
        self.read_bytes += task.0.get::<u64>(offset!(task_read_bytes));
    }
}

/// Where a walk through `signal_struct.thread_head` is.
struct Walk {
    head: Address,
    node: Address,
    skipped: Task,
    sum: Sum,
}

/// One step; non-zero ends the walk.
unsafe extern "C" fn add_next(_index: u64, walk: *mut Walk) -> u64 {
    // SAFETY: the caller's own value, alive for the whole walk.
    let walk = unsafe { &mut *walk };
    let next = walk.node.follow(0);
    if next == walk.head || next.is_null() {
        return 1;
    }
    walk.node = next;
    let offset = u64::from(offset!(task_thread_node));
    let other = Task(Address(next.0.wrapping_sub(offset)));
    if other.0 != walk.skipped.0 {
        walk.sum.add(other);
    }
    0
}

/// A `cgroup`.
#[derive(Clone, Copy)]
pub struct Cgroup(Address);

impl Cgroup {
    /// Of a pointer argument of a program.
    #[inline(always)]
    pub fn of(pointer: *const c_void) -> Self {
        Self(Address::of(pointer))
    }

    /// Of an address.
    #[inline(always)]
    pub fn at(address: Address) -> Self {
        Self(address)
    }

    /// Inode number of its directory; 0 when unknown.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0
            .follow(offset!(cgroup_kn))
            .get(offset!(kernfs_node_id))
    }

    /// Whether it is in the hierarchy that carries the memory controller.
    #[inline(always)]
    pub fn is_of_memory(self) -> bool {
        let own = self.0.follow(offset!(cgroup_root));
        let memory = Task::current()
            .memory_cgroup()
            .0
            .follow(offset!(cgroup_root));
        !own.is_null() && own == memory
    }
}
