//! Opening files as a process sees them: beneath its root directory.

use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2, statat};

use super::ImageError;

/// A root directory beneath which every path is resolved: absolute symbolic links and `..`
/// stay inside, so that a container's files cannot lead to the host's.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// The agent's own root.
    pub fn host() -> Result<Self, ImageError> {
        Self::at(Path::new("/"))
    }

    /// The root of process `pid`, whatever its mount namespace.
    pub fn of_process(pid: u32) -> Result<Self, ImageError> {
        Self::at(Path::new(&format!("/proc/{pid}/root")))
    }

    /// The directory at `path`.
    pub fn at(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(|error| {
            ImageError::Io {
                path: path.to_owned(),
                source: error.into(),
            }
        })?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    /// Opens the regular file at `path`, relative to this root.
    ///
    /// The file is looked at before it is opened for reading, since opening a device or a
    /// pipe acts on it.
    pub fn open(&self, path: &Path) -> Result<Target, ImageError> {
        let fail = |source: io::Error| ImageError::Io {
            path: path.to_owned(),
            source,
        };
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = retry(|| openat2(&self.directory, inside, flags, Mode::empty(), resolve))
            .map_err(|error| fail(error.into()))?;
        self.readable(path, &found)
    }

    /// Opens the regular file that `fd` refers to; `path` is its name beneath this root.
    fn readable(&self, path: &Path, fd: &OwnedFd) -> Result<Target, ImageError> {
        let fail = |error: rustix::io::Errno| ImageError::Io {
            path: path.to_owned(),
            source: error.into(),
        };
        let stat = statat(fd, "", rustix::fs::AtFlags::EMPTY_PATH).map_err(fail)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(ImageError::NotRegular {
                path: path.to_owned(),
            });
        }
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = openat(rustix::fs::CWD, again.as_str(), flags, Mode::empty()).map_err(fail)?;
        let id = FileId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        };
        let path = self.real_path(fd, id).unwrap_or_else(|| path.to_owned());
        Ok(Target {
            file: Arc::new(File::from(file)),
            shown: self.path.join(path.strip_prefix("/").unwrap_or(&path)),
            path,
            id,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            executable: stat.st_mode & 0o111 != 0,
        })
    }
}

impl Root {
    /// The path of `fd` beneath this root, free of symbolic links: `$ORIGIN` means this one.
    ///
    /// The kernel tells a path as seen from the agent, which in a foreign mount namespace need
    /// not be the path beneath the root: it counts only if it leads to the same inode.
    fn real_path(&self, fd: &OwnedFd, id: FileId) -> Option<PathBuf> {
        let seen = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let beneath = seen
            .strip_prefix(&self.path)
            .ok()
            .map(|rest| Path::new("/").join(rest));
        beneath.into_iter().chain([seen]).find(|path| {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(
                &self.directory,
                inside,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            )
            .and_then(|found| statat(found, "", rustix::fs::AtFlags::EMPTY_PATH))
            .is_ok_and(|stat| {
                FileId {
                    dev: stat.st_dev,
                    ino: stat.st_ino,
                } == id
            })
        })
    }
}

/// `openat2` says EAGAIN when a rename races with the resolution.
fn retry(mut open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    for _ in 0..8 {
        match open() {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            done => return done,
        }
    }
    open()
}

/// An inode, as `stat` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

impl FileId {
    /// From the kernel's own device number (`s_dev`: 12 bits of major, 20 of minor) and inode
    /// number. A file system that shows another device to `stat` than its super block's
    /// (btrfs subvolumes, some overlays) gives another `FileId` here than [`Target::id`].
    #[must_use]
    pub fn from_kernel(dev: u32, ino: u64) -> Self {
        Self {
            dev: rustix::fs::makedev(dev >> 20, dev & 0xf_ffff),
            ino,
        }
    }
}

/// A regular file, held open: its offsets stay those of this inode whatever happens to its name.
#[derive(Clone, Debug)]
pub struct Target {
    file: Arc<File>,
    path: PathBuf,
    shown: PathBuf,
    id: FileId,
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, u64),
    executable: bool,
}

impl Target {
    /// The path beneath its [`Root`], free of symbolic links where that is known.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path for people: the root's path and the path beneath it. Do not open it: an
    /// absolute link in a foreign root leads out of that root.
    #[must_use]
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// A path that opens this very inode for as long as this value lives: what a uprobe is
    /// attached by.
    #[must_use]
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The inode.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The inode, of which a file in an overlay says that it is its layer's: the same file seen
    /// through any number of overlays, each of a container or sandbox, is one. The layer's device
    /// cannot be asked for; inode number, size and time tell files apart as well.
    #[must_use]
    pub fn original(&self) -> FileId {
        if !self.is_in_overlay() {
            return self.id;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (self.len, self.modified).hash(&mut hasher);
        FileId {
            // No device has such a number: they have 32 bits.
            dev: hasher.finish() | 1 << 63,
            ino: self.id.ino,
        }
    }

    /// Size when opened, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether anyone may execute it.
    pub(super) fn is_executable(&self) -> bool {
        self.executable
    }

    /// Fills `buffer` from `offset`; fails if the file ends before.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| ImageError::Io {
                path: self.shown.clone(),
                source,
            })
    }
}

impl Target {
    /// Whether it lies in an overlay, whose files have the inode number of the layer that they
    /// come from, and another device.
    #[must_use]
    pub fn is_in_overlay(&self) -> bool {
        /// `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
        const OVERLAY: u64 = 0x794c_7630;
        rustix::fs::fstatfs(&*self.file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(OVERLAY))
    }
}

impl Root {
    /// As [`open`](Self::open), of a path that was [`shown`](Target::shown) earlier: one through
    /// `/proc/PID/root` is resolved beneath that root, if the process is still there.
    pub fn open_through_process(&self, path: &Path) -> Result<Target, ImageError> {
        let Ok(beneath) = path.strip_prefix("/proc") else {
            return self.open(path);
        };
        let mut parts = beneath.iter();
        let pid = parts.next().and_then(|pid| pid.to_str()?.parse().ok());
        match (pid, parts.next()) {
            (Some(pid), Some(root)) if root == "root" => {
                Self::of_process(pid)?.open(parts.as_path())
            }
            _ => self.open(path),
        }
    }
}
