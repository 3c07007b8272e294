//! `/proc` of the sandbox's own processes, without what it tells of the node.

use rustix::fs::{FileType, Mode, mkdir, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

use super::skeleton::PLAIN;

/// Empty, and nothing can be written: what says more of the node, or of its kernel's memory, than
/// a function needs. Those that OCI runtimes mask, and some more.
const MASKED: &[&str] = &[
    "acpi",
    "asound",
    "bus",
    "driver",
    "fs",
    "interrupts",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];

/// Programs read these.
const READ_ONLY: &[&str] = &["sys"];

/// Mounts it at `/proc`.
pub(super) fn build() -> rustix::io::Result<()> {
    let flags = PLAIN | MountFlags::NOEXEC;
    // Processes of other users are not there: `hearth-init` is one.
    mount("proc", "/proc", "proc", flags, c"hidepid=invisible")?;
    nothing()?;
    for name in MASKED {
        let path = format!("/proc/{name}");
        match stat(&*path) {
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                mount_bind("/nothing/directory", &*path)?;
            }
            Ok(_) => mount_bind("/nothing/file", &*path)?,
            // Not every kernel has all of them.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    for name in READ_ONLY {
        let path = format!("/proc/{name}");
        mount_bind(&*path, &*path)?;
        mount_remount(&*path, MountFlags::BIND | MountFlags::RDONLY | flags, c"")?;
    }
    Ok(())
}

/// An empty file and an empty directory, on a file system that is read-only.
fn nothing() -> rustix::io::Result<()> {
    let flags = PLAIN | MountFlags::NOEXEC;
    mkdir("/nothing", Mode::RWXU)?;
    let options = c"mode=0755,size=4k,nr_inodes=4";
    mount("hearth", "/nothing", "tmpfs", flags, options)?;
    mkdir("/nothing/directory", Mode::from_raw_mode(0o555))?;
    let mode = Mode::from_raw_mode(0o444);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        "/nothing/file",
        FileType::RegularFile,
        mode,
        0,
    )?;
    mount_remount("/nothing", MountFlags::RDONLY | flags, options)
}
