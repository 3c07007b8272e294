//! Parts by fentry and fexit, where this kernel has them: exact, and always on.
//!
//! Functions that the kernel may inline are not used; a function that is missing loses its part
//! alone, and `hearth doctor` says so.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use hearth_abi::{Fate, Part, Probe};

use super::syscalls;
use crate::ledger;

macro_rules! part {
    ($(#[doc = $prototype:literal] $begin:ident, $end:ident: $function:literal, $part:expr;)*) => {$(
        #[doc = $prototype]
        #[fentry(function = $function)]
        fn $begin(_ctx: FEntryContext) -> i32 {
            ledger::account(Probe::Part, || syscalls::function_begins($part));
            0
        }

        #[doc = $prototype]
        #[fexit(function = $function)]
        fn $end(_ctx: FExitContext) -> i32 {
            ledger::account(Probe::Part, || -> Fate { syscalls::function_ends($part) });
            0
        }
    )*};
}

part! {
    /// `int cgroup_mkdir(struct kernfs_node *parent_kn, const char *name, umode_t mode)`, 4.6 and later.
    cgroup_mkdir_begin, cgroup_mkdir_end: "cgroup_mkdir", Part::Cgroup;
    /// `ssize_t cgroup_file_write(struct kernfs_open_file *of, char *buf, size_t nbytes, loff_t off)`, 3.15 and later.
    cgroup_write_begin, cgroup_write_end: "cgroup_file_write", Part::Cgroup;
    /// `long __x64_sys_unshare(const struct pt_regs *regs)`, 4.17 and later.
    unshare_begin, unshare_end: "__x64_sys_unshare", Part::Namespaces;
    /// `long __x64_sys_setns(const struct pt_regs *regs)`, 4.17 and later.
    setns_begin, setns_end: "__x64_sys_setns", Part::Namespaces;
    /// `long __x64_sys_mount(const struct pt_regs *regs)`, 4.17 and later.
    mount_begin, mount_end: "__x64_sys_mount", Part::Mounts;
    /// `long __x64_sys_umount(const struct pt_regs *regs)`, 4.17 and later.
    umount_begin, umount_end: "__x64_sys_umount", Part::Mounts;
    /// `long __x64_sys_pivot_root(const struct pt_regs *regs)`, 4.17 and later.
    pivot_root_begin, pivot_root_end: "__x64_sys_pivot_root", Part::Mounts;
    /// `long __x64_sys_move_mount(const struct pt_regs *regs)`, 5.2 and later.
    move_mount_begin, move_mount_end: "__x64_sys_move_mount", Part::Mounts;
    /// `long __x64_sys_fsmount(const struct pt_regs *regs)`, 5.2 and later.
    fsmount_begin, fsmount_end: "__x64_sys_fsmount", Part::Mounts;
    /// `long __x64_sys_open_tree(const struct pt_regs *regs)`, 5.2 and later.
    open_tree_begin, open_tree_end: "__x64_sys_open_tree", Part::Mounts;
    /// `long __x64_sys_mount_setattr(const struct pt_regs *regs)`, 5.12 and later.
    mount_setattr_begin, mount_setattr_end: "__x64_sys_mount_setattr", Part::Mounts;
    /// `int rtnetlink_rcv_msg(struct sk_buff *skb, struct nlmsghdr *nlh, struct netlink_ext_ack *extack)`, 4.12 and later.
    rtnetlink_begin, rtnetlink_end: "rtnetlink_rcv_msg", Part::Network;
    /// `int fifo_open(struct inode *inode, struct file *filp)`, 2.6 and later.
    fifo_open_begin, fifo_open_end: "fifo_open", Part::Held;
}

/// Any new namespace: `CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}`.
pub const CLONE_NEW: u64 = 0x7e02_0080;

/// `int copy_namespaces(unsigned long flags, struct task_struct *tsk)` (u64 since 6.17), 2.6.19
/// and later: in every clone, and a part only of those that make a namespace.
#[fentry(function = "copy_namespaces")]
fn copy_namespaces_begin(ctx: FEntryContext) -> i32 {
    ledger::account(Probe::Part, || {
        if ctx.arg::<u64>(0) & CLONE_NEW == 0 {
            syscalls::function_is_none()
        } else {
            syscalls::function_begins(Part::Namespaces)
        }
    });
    0
}

/// As above.
#[fexit(function = "copy_namespaces")]
fn copy_namespaces_end(_ctx: FExitContext) -> i32 {
    ledger::account(Probe::Part, || syscalls::function_ends(Part::Namespaces));
    0
}
