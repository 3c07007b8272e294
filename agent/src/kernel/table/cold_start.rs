//! Cold starts: boundaries, names and parts.

use hearth_abi::syscall;

use super::{
    Hook, Set, Signal, Strategy, always, fentry, fexit, number, optional, syscalls, tp_btf, uprobe,
};

/// Its kinds.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        signal: Signal::ColdStart,
        kind: "fork",
        purpose: "who was made by whom; watching is inherited here",
        required: true,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("fork", "task_newtask")],
            Some(0),
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "exec_begin",
        purpose: "begin of the exec phase",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("exec_begin_execve", "__x64_sys_execve"),
                    fentry("exec_begin_execveat", "__x64_sys_execveat"),
                ],
                Some(0),
                "at the system call",
            ),
            syscalls(
                &[
                    (number(libc::SYS_execve), syscall::EXEC),
                    (number(libc::SYS_execveat), syscall::EXEC),
                ],
                "at the system call, of watched processes",
            ),
            always(
                "tp_btf:percpu_alloc_percpu",
                &[tp_btf("exec_begin_percpu", "percpu_alloc_percpu")],
                Some(10_000),
                "when the new address space is made; up to 20 µs early if the thread allocates just before",
            ),
            always(
                "tp_btf:sched_prepare_exec",
                &[tp_btf("exec_begin_prepare", "sched_prepare_exec")],
                Some(33_000),
                "when the new image is about to replace the old one",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "exec",
        purpose: "the new image is in place",
        required: true,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("exec", "sched_process_exec")],
            Some(0),
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "entry",
        purpose: "end of linking",
        required: false,
        strategies: &[always(
            "uprobe",
            &[uprobe("entry")],
            None,
            "once a file's first start has shown it; until then link and runtime_init merge",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "main",
        purpose: "hand-over to user code",
        required: false,
        strategies: &[always(
            "uprobe",
            &[uprobe("main_reached")],
            None,
            "by the runtime's symbol; without one runtime_init and user_init merge",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "listen",
        purpose: "the default ready",
        required: true,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("listen", "inet_sock_set_state")],
            Some(0),
            "TCP; AF_UNIX has no tracepoint",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "exit",
        purpose: "ready of a program that ends; the end of watching",
        required: true,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("exit", "sched_process_exit")],
            Some(0),
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "cgroup",
        purpose: "names of cgroups, and starts opened by a cgroup's first process",
        required: false,
        strategies: &[always(
            "tp_btf",
            &[
                tp_btf("cgroup_made", "cgroup_mkdir"),
                tp_btf("cgroup_gone", "cgroup_rmdir"),
                tp_btf("cgroup_populated", "cgroup_notify_populated"),
                tp_btf("cgroup_attached", "cgroup_attach_task"),
            ],
            Some(0),
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "causes",
        purpose: "running, queued, io, blocked",
        required: false,
        strategies: &[Strategy {
            name: "tp_btf",
            set: Set::Watch,
            programs: &[
                tp_btf("switch", "sched_switch"),
                tp_btf("wakeup", "sched_wakeup"),
            ],
            syscalls: &[],
            error_ns: Some(64),
            note: "without it: running where nothing switched, else queued from run_delay",
        }],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "part:cgroup",
        purpose: "making, configuring, attaching to cgroups",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("cgroup_mkdir_begin", "cgroup_mkdir"),
                    fexit("cgroup_mkdir_end", "cgroup_mkdir"),
                    fentry("cgroup_write_begin", "cgroup_file_write"),
                    fexit("cgroup_write_end", "cgroup_file_write"),
                ],
                Some(0),
                "",
            ),
            syscalls(
                &[
                    (number(libc::SYS_mkdir), syscall::CGROUP_MKDIR),
                    (number(libc::SYS_mkdirat), syscall::CGROUP_MKDIR),
                    (number(libc::SYS_write), syscall::CGROUP_WRITE),
                    (number(libc::SYS_pwrite64), syscall::CGROUP_WRITE),
                    (number(libc::SYS_writev), syscall::CGROUP_WRITE),
                ],
                "the whole system call",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "part:namespaces",
        purpose: "unshare, setns, clone with new namespaces",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("unshare_begin", "__x64_sys_unshare"),
                    fexit("unshare_end", "__x64_sys_unshare"),
                    fentry("setns_begin", "__x64_sys_setns"),
                    fexit("setns_end", "__x64_sys_setns"),
                    optional(fentry("copy_namespaces_begin", "copy_namespaces")),
                    optional(fexit("copy_namespaces_end", "copy_namespaces")),
                ],
                Some(0),
                "",
            ),
            syscalls(
                &[
                    (number(libc::SYS_unshare), syscall::NAMESPACES),
                    (number(libc::SYS_setns), syscall::NAMESPACES),
                    (number(libc::SYS_clone), syscall::CLONE),
                    (number(libc::SYS_clone3), syscall::CLONE),
                ],
                "a clone counts as a whole",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "part:mounts",
        purpose: "mount, umount, pivot_root, the new mount calls",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("mount_begin", "__x64_sys_mount"),
                    fexit("mount_end", "__x64_sys_mount"),
                    fentry("umount_begin", "__x64_sys_umount"),
                    fexit("umount_end", "__x64_sys_umount"),
                    fentry("pivot_root_begin", "__x64_sys_pivot_root"),
                    fexit("pivot_root_end", "__x64_sys_pivot_root"),
                    optional(fentry("move_mount_begin", "__x64_sys_move_mount")),
                    optional(fexit("move_mount_end", "__x64_sys_move_mount")),
                    optional(fentry("fsmount_begin", "__x64_sys_fsmount")),
                    optional(fexit("fsmount_end", "__x64_sys_fsmount")),
                    optional(fentry("open_tree_begin", "__x64_sys_open_tree")),
                    optional(fexit("open_tree_end", "__x64_sys_open_tree")),
                    optional(fentry("mount_setattr_begin", "__x64_sys_mount_setattr")),
                    optional(fexit("mount_setattr_end", "__x64_sys_mount_setattr")),
                ],
                Some(0),
                "",
            ),
            syscalls(
                &[
                    (number(libc::SYS_mount), syscall::MOUNTS),
                    (number(libc::SYS_umount2), syscall::MOUNTS),
                    (number(libc::SYS_pivot_root), syscall::MOUNTS),
                    (number(libc::SYS_move_mount), syscall::MOUNTS),
                    (number(libc::SYS_fsmount), syscall::MOUNTS),
                    (number(libc::SYS_open_tree), syscall::MOUNTS),
                    (number(libc::SYS_mount_setattr), syscall::MOUNTS),
                ],
                "",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "part:network",
        purpose: "links, addresses and routes, by netlink",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("rtnetlink_begin", "rtnetlink_rcv_msg"),
                    fexit("rtnetlink_end", "rtnetlink_rcv_msg"),
                ],
                Some(0),
                "",
            ),
            syscalls(
                &[
                    (number(libc::SYS_sendto), syscall::NETWORK),
                    (number(libc::SYS_sendmsg), syscall::NETWORK),
                ],
                "the whole request, of any netlink family",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "part:held",
        purpose: "created, and not let go yet",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("fifo_open_begin", "fifo_open"),
                    fexit("fifo_open_end", "fifo_open"),
                ],
                Some(0),
                "",
            ),
            syscalls(
                &[
                    (number(libc::SYS_open), syscall::HELD),
                    (number(libc::SYS_openat), syscall::HELD),
                ],
                "",
            ),
        ],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "ready:accept",
        purpose: "first accept or blocking poll, where the ready rule asks for it",
        required: false,
        strategies: &[syscalls(
            &[
                (number(libc::SYS_accept), syscall::ACCEPT),
                (number(libc::SYS_accept4), syscall::ACCEPT),
                (number(libc::SYS_poll), syscall::ACCEPT),
                (number(libc::SYS_ppoll), syscall::ACCEPT),
                (number(libc::SYS_select), syscall::ACCEPT),
                (number(libc::SYS_pselect6), syscall::ACCEPT),
                (number(libc::SYS_epoll_wait), syscall::ACCEPT),
                (number(libc::SYS_epoll_pwait), syscall::ACCEPT),
                (number(libc::SYS_epoll_pwait2), syscall::ACCEPT),
            ],
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "ready:message",
        purpose: "sd_notify and the Runtime API's next, where the ready rule asks for them",
        required: false,
        strategies: &[syscalls(
            &[
                (number(libc::SYS_sendto), syscall::MESSAGE),
                (number(libc::SYS_sendmsg), syscall::MESSAGE),
                (number(libc::SYS_write), syscall::MESSAGE),
            ],
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "ready:file",
        purpose: "a file opened for writing or renamed into place, where the ready rule asks for it",
        required: false,
        strategies: &[syscalls(
            &[
                (number(libc::SYS_open), syscall::FILE_OPEN),
                (number(libc::SYS_openat), syscall::FILE_OPEN),
                (number(libc::SYS_openat2), syscall::FILE_OPEN),
                (number(libc::SYS_creat), syscall::FILE_OPEN),
                (number(libc::SYS_rename), syscall::FILE_RENAME),
                (number(libc::SYS_renameat), syscall::FILE_RENAME),
                (number(libc::SYS_renameat2), syscall::FILE_RENAME),
            ],
            "",
        )],
    },
    Hook {
        signal: Signal::ColdStart,
        kind: "ready:uprobe",
        purpose: "an address in a program, where the ready rule asks for it",
        required: false,
        strategies: &[always("uprobe", &[uprobe("user_probe")], Some(0), "")],
    },
];
