//! The file systems that every sandbox has, made before there is a function.
//!
//! ```text
//! /            a small tmpfs, in place of the node's root
//! /host        the node's root, as long as layers are to be found there
//! /proc /dev   as the function will see them
//! /writable    a tmpfs: upper and work for overlayfs, shm for /dev/shm
//! /root        where the function's root is going to be
//! ```

use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, chmod, chownat, mkdir};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move,
    unmount,
};
use rustix::process::{chdir, chroot, pivot_root};

use super::fault::{At as _, Fault};
use super::{dev, proc};

/// What no file system of a sandbox needs.
pub(super) const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Directories of the function's root that are there whatever its layers have, and their modes.
/// They are in the writable layer before there are others, so that what a layer has by the same
/// name, a link maybe, is not looked at: overlayfs shows the upper one.
const OWN: [(&str, u32); 3] = [
    ("/writable/upper/proc", 0o555),
    ("/writable/upper/dev", 0o755),
    ("/writable/upper/tmp", 0o1777),
];

/// The skeleton that this process is in.
pub(super) struct Skeleton {
    /// The node's root.
    pub(super) host: OwnedFd,
}

impl Skeleton {
    /// Made, and this process is in it. What `hearth-init` owns inside is `owner`'s on the node.
    pub(super) fn build(owner: u32) -> Result<Self, Fault> {
        // What the node unmounts is not kept busy by who waits here, and a layer on what it mounts
        // later is found. Nothing goes the other way.
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).at("keeping its mounts from the node")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let host = rustix::fs::open("/", flags, Mode::empty()).at("opening the node's root")?;
        leave_host().at("leaving the node's root")?;
        proc::build().at("mounting /proc")?;
        writable(owner).at("mounting the writable layer")?;
        dev::build(owner).at("mounting /dev")?;
        Ok(Self { host })
    }
}

/// Makes a tmpfs the root of this mount namespace. `/proc` is a directory on every node.
fn leave_host() -> rustix::io::Result<()> {
    let flags = PLAIN | MountFlags::NOEXEC;
    mount(
        "hearth",
        "/proc",
        "tmpfs",
        flags,
        c"mode=0755,size=64k,nr_inodes=32",
    )?;
    chdir("/proc")?;
    for name in ["host", "proc", "dev", "writable", "root"] {
        mkdir(name, Mode::from_raw_mode(0o755))?;
    }
    match pivot_root(".", "host") {
        Ok(()) => {
            // None of these has layers; each would have to go later, when there is no time.
            for name in ["/host/proc", "/host/sys", "/host/dev"] {
                while unmount(name, UnmountFlags::DETACH).is_ok() {}
            }
        }
        // The first root of a kernel, an initramfs that nobody left, cannot be moved: it stays
        // below, as with every container there.
        Err(Errno::INVAL) => {
            mount_move(".", "/")?;
            chroot(".")?;
        }
        Err(error) => return Err(error),
    }
    chdir("/")
}

/// All that a function can write, `/dev/shm` included. How much is said when it starts.
fn writable(owner: u32) -> rustix::io::Result<()> {
    let options = c"mode=0755,size=64k,nr_inodes=64";
    mount("hearth", "/writable", "tmpfs", PLAIN, options)?;
    directory("/writable/upper", 0o755, owner)?;
    directory("/writable/work", 0o700, owner)?;
    directory("/writable/shm", 0o1777, owner)?;
    for (path, mode) in OWN {
        directory(path, mode, owner)?;
    }
    Ok(())
}

/// `/dev/shm` counts as what it is: written bytes in memory.
pub(super) fn bind_shm() -> rustix::io::Result<()> {
    mount_bind("/writable/shm", "/dev/shm")?;
    let flags = MountFlags::BIND | PLAIN | MountFlags::NOEXEC;
    rustix::mount::mount_remount("/dev/shm", flags, c"")
}

/// A directory of `hearth-init`'s, which inside is root.
pub(super) fn directory(path: &str, mode: u32, owner: u32) -> rustix::io::Result<()> {
    mkdir(path, Mode::RWXU)?;
    own(path, owner)?;
    chmod(path, Mode::from_raw_mode(mode))
}

pub(super) fn own(path: &str, owner: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
