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
    /// Credentials.
    task_cred: "task_struct.real_cred",
    /// Root and working directory.
    task_fs: "task_struct.fs",
    /// User id.
    cred_uid: "cred.uid.val",
    /// Entry of the root directory that a process sees.
    fs_root_dentry: "fs_struct.root.dentry",
    /// Its mount.
    fs_root_mnt: "fs_struct.root.mnt",
    /// What is added to a process's badness.
    signal_oom_score_adj: "signal_struct.oom_score_adj",
    /// Parent of a controller's state.
    css_parent: "cgroup_subsys_state.parent",
    /// Number of a hierarchy; 0 of version 2.
    root_hierarchy: "cgroup_root.hierarchy_id",
    /// State in a memory cgroup.
    memcg_css: "mem_cgroup.css",
    /// Pages charged.
    memcg_usage: "mem_cgroup.memory.usage",
    /// Limit of them.
    memcg_max: "mem_cgroup.memory.max",
    /// Swap charged; memory and swap in version 1.
    memcg_swap_usage: "mem_cgroup.swap.usage",
    /// Limit of it.
    memcg_swap_max: "mem_cgroup.swap.max",
    /// Whether a kill is under way in it or above it.
    memcg_oom_lock: "mem_cgroup.oom_lock",
    /// Whether it is killed as a whole.
    memcg_oom_group: "mem_cgroup.oom_group",
    /// Memory cgroup that is short.
    oc_memcg: "oom_control.memcg",
    /// Flags of the request.
    oc_gfp: "oom_control.gfp_mask",
    /// Order of the request.
    oc_order: "oom_control.order",
    /// Pages that badness is measured against.
    oc_total_pages: "oom_control.totalpages",
    /// Badness of the chosen.
    oc_points: "oom_control.chosen_points",
    /// Which shortage it is.
    oc_constraint: "oom_control.constraint",
    /// Counters of pages, four of them.
    mm_rss_stat: "mm_struct.rss_stat",
    /// The same before 6.2, as plain numbers.
    mm_rss_count: "mm_struct.rss_stat.count",
    /// Bytes of page tables.
    mm_page_tables: "mm_struct.pgtables_bytes",
    /// Pages of address space.
    mm_total_vm: "mm_struct.total_vm",
    /// End of the arguments in memory.
    mm_arg_end: "mm_struct.arg_end",
    /// Common part of a counter.
    percpu_counter_count: "percpu_counter.count",
    /// Its parts by CPU.
    percpu_counter_counters: "percpu_counter.counters",
    /// Values of a per-CPU array map.
    array_pptrs: "bpf_array.pptrs",
    /// First address of a mapping.
    vma_start: "vm_area_struct.vm_start",
    /// End of a mapping.
    vma_end: "vm_area_struct.vm_end",
    /// Where in its file it begins.
    vma_pgoff: "vm_area_struct.vm_pgoff",
    /// Its rights.
    vma_flags: "vm_area_struct.vm_flags",
    /// Its file.
    vma_file: "vm_area_struct.vm_file",
    /// Entry of an open file.
    file_dentry: "file.f_path.dentry",
    /// Mount of an open file.
    file_mnt: "file.f_path.mnt",
    /// Directory of an entry.
    dentry_parent: "dentry.d_parent",
    /// Its name.
    dentry_name: "dentry.d_name.name",
    /// Root of a mount, as others see it.
    mnt_root: "vfsmount.mnt_root",
    /// What others see of a mount.
    mount_mnt: "mount.mnt",
    /// Mount that a mount is on.
    mount_parent: "mount.mnt_parent",
    /// Where it is on it.
    mount_mountpoint: "mount.mnt_mountpoint",
    /// IPv4 peer of a socket, network order.
    sk_daddr: "sock.__sk_common.skc_daddr",
    /// IPv6 peer of a socket, network order; a mapped one where the peer is IPv4.
    sk_v6_daddr: "sock.__sk_common.skc_v6_daddr",
    /// Protocol of a socket, as in `/etc/protocols`, and MPTCP's own (262).
    sk_protocol: "sock.sk_protocol",
    /// Network namespace of a socket.
    sk_net: "sock.__sk_common.skc_net.net",
    /// Memory cgroup that a socket is charged to.
    sk_memcg: "sock.sk_memcg",
    /// Cgroup of a socket in the v2 hierarchy.
    sk_cgroup: "sock.sk_cgrp_data.cgroup",
    /// Inode number of a network namespace.
    net_inum: "net.ns.inum",
    /// Segments that a TCP socket has sent again.
    tcp_total_retrans: "tcp_sock.total_retrans",
    /// Control block of a buffer.
    skb_cb: "sk_buff.cb",
    /// Segments of a buffer of TCP.
    tcp_cb_segments: "tcp_skb_cb.tcp_gso_segs",
    /// The directory's lock of an inode.
    inode_rwsem: "inode.i_rwsem",
    /// Who has a mutex, with flags in the lowest bits.
    mutex_owner: "mutex.owner",
    /// Who has a read-write semaphore for writing, with flags in the lowest bits.
    rwsem_owner: "rw_semaphore.owner",
    /// Root node of a tree of kernfs.
    kernfs_root_kn: "kernfs_root.kn",
    /// Lock of its nodes.
    kernfs_root_rwsem: "kernfs_root.kernfs_rwsem",
    /// Lock of its attributes; 6.3 and later.
    kernfs_root_iattr_rwsem: "kernfs_root.kernfs_iattr_rwsem",
    /// Lock of its list of superblocks; 6.3 and later.
    kernfs_root_supers_rwsem: "kernfs_root.kernfs_supers_rwsem",
    /// What a node of kernfs stands for.
    kernfs_node_priv: "kernfs_node.priv",
    /// Lock between fork, exec and exit of a process and its being attached; 6.18 and later.
    signal_threadgroup_rwsem: "signal_struct.cgroup_threadgroup_rwsem",
}
