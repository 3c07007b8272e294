//! Where the running kernel keeps the members that the programs read.

/// A member that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// A bit inside a bit field: the byte's offset in the structure and the mask in that byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Bit {
    /// Byte offset in the structure, or [`ABSENT`].
    pub byte: u32,
    /// Mask of the bit in that byte.
    pub mask: u32,
}

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $path:literal),* $(,)?) => {
        /// Byte offsets by member, read from the running kernel's BTF and handed over as one
        /// read-only global. [`ABSENT`] says that the kernel has no such member, and the
        /// verifier then removes the branch that would have read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)*
            /// `task_struct.in_iowait`.
            pub task_in_iowait: Bit,
            /// Index of the memory controller in `css_set.subsys`, or [`ABSENT`].
            pub memory_cgrp_id: u32,
        }

        impl Offsets {
            /// Everything absent.
            pub const NONE: Self = Self {
                $($name: ABSENT,)*
                task_in_iowait: Bit { byte: ABSENT, mask: 0 },
                memory_cgrp_id: ABSENT,
            };

            /// `(structure.member path, where to put its offset)` for every plain member.
            pub fn members(&mut self) -> impl Iterator<Item = (&'static str, &mut u32)> {
                [$(($path, &mut self.$name)),*].into_iter()
            }
        }
    };
}

offsets! {
    /// Thread id.
    task_pid: "task_struct.pid",
    /// Process id.
    task_tgid: "task_struct.tgid",
    /// Real parent.
    task_real_parent: "task_struct.real_parent",
    /// Thread group leader.
    task_group_leader: "task_struct.group_leader",
    /// Start time, boot clock, ns.
    task_start_boottime: "task_struct.start_boottime",
    /// Voluntary switches.
    task_nvcsw: "task_struct.nvcsw",
    /// Involuntary switches.
    task_nivcsw: "task_struct.nivcsw",
    /// Minor faults.
    task_min_flt: "task_struct.min_flt",
    /// Major faults.
    task_maj_flt: "task_struct.maj_flt",
    /// Bytes read from storage.
    task_read_bytes: "task_struct.ioac.read_bytes",
    /// Time spent runnable, not running.
    task_run_delay: "task_struct.sched_info.run_delay",
    /// `PF_*` flags.
    task_flags: "task_struct.flags",
    /// Scheduler state; `__state` since 5.14.
    task_state: "task_struct.__state",
    /// Wait status.
    task_exit_code: "task_struct.exit_code",
    /// Signal structure of the process.
    task_signal: "task_struct.signal",
    /// List node in `signal_struct.thread_head`.
    task_thread_node: "task_struct.thread_node",
    /// Cgroup set.
    task_cgroups: "task_struct.cgroups",
    /// Open files.
    task_files: "task_struct.files",
    /// Address space.
    task_mm: "task_struct.mm",
    /// Name.
    task_comm: "task_struct.comm",
    /// Threads alive that have not begun to exit.
    signal_live: "signal_struct.live",
    /// Threads.
    signal_nr_threads: "signal_struct.nr_threads",
    /// List of threads.
    signal_thread_head: "signal_struct.thread_head",
    /// Of exited threads: voluntary switches.
    signal_nvcsw: "signal_struct.nvcsw",
    /// Of exited threads: involuntary switches.
    signal_nivcsw: "signal_struct.nivcsw",
    /// Of exited threads: minor faults.
    signal_min_flt: "signal_struct.min_flt",
    /// Of exited threads: major faults.
    signal_maj_flt: "signal_struct.maj_flt",
    /// Of exited threads: bytes read from storage.
    signal_read_bytes: "signal_struct.ioac.read_bytes",
    /// Controllers' states, by controller id.
    css_set_subsys: "css_set.subsys",
    /// Cgroup of a controller's state.
    css_cgroup: "cgroup_subsys_state.cgroup",
    /// Directory of a cgroup.
    cgroup_kn: "cgroup.kn",
    /// Hierarchy of a cgroup.
    cgroup_root: "cgroup.root",
    /// Id of a directory.
    kernfs_node_id: "kernfs_node.id",
    /// File name given to exec.
    bprm_filename: "linux_binprm.filename",
    /// Open executable.
    bprm_file: "linux_binprm.file",
    /// Inode of an open file.
    file_inode: "file.f_inode",
    /// Socket (or other state) of an open file.
    file_private_data: "file.private_data",
    /// Inode number.
    inode_ino: "inode.i_ino",
    /// Mode.
    inode_mode: "inode.i_mode",
    /// Superblock of an inode.
    inode_sb: "inode.i_sb",
    /// Device of a superblock.
    sb_dev: "super_block.s_dev",
    /// File system magic.
    sb_magic: "super_block.s_magic",
    /// Begin of the code segment in memory.
    mm_start_code: "mm_struct.start_code",
    /// Begin of the arguments in memory.
    mm_arg_start: "mm_struct.arg_start",
    /// Table of open files.
    files_fdt: "files_struct.fdt",
    /// Array of open files.
    fdt_fd: "fdtable.fd",
    /// Length of that array.
    fdt_max_fds: "fdtable.max_fds",
    /// Kernel socket of a socket.
    socket_sk: "socket.sk",
    /// Address family of a socket.
    sk_family: "sock.__sk_common.skc_family",
    /// Local port of a socket, host order.
    sk_num: "sock.__sk_common.skc_num",
}
