//! `/dev`: the devices that are no devices, links, and shared memory.

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlink};
use rustix::mount::{MountFlags, mount, mount_remount};

use super::skeleton::{bind_shm, directory, own};

/// Name, major and minor number. Nothing of the node's can be reached by one of these.
const DEVICES: [(&str, u32, u32); 5] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mounts it at `/dev`.
pub(super) fn build(owner: u32) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = c"mode=0755,size=4k,nr_inodes=16";
    mount("hearth", "/dev", "tmpfs", flags, options)?;
    let everybody = Mode::from_raw_mode(0o666);
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        let device = makedev(major, minor);
        mknodat(CWD, &*path, FileType::CharacterDevice, everybody, device)?;
        rustix::fs::chmod(&*path, everybody)?;
        own(&path, owner)?;
    }
    for (name, target) in LINKS {
        let path = format!("/dev/{name}");
        symlink(target, &*path)?;
        own(&path, owner)?;
    }
    directory("/dev/shm", 0o755, owner)?;
    own("/dev", owner)?;
    mount_remount("/dev", flags | MountFlags::RDONLY, options)?;
    bind_shm()
}
