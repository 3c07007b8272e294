//! One directory of one hierarchy, held open: all of its files are reached through it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, accessat, fstat, fstatfs, mkdirat, openat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use super::error::{Error, Result};
use super::layout::{Controller, Hierarchy, Version};

/// More than the longest file of a cgroup: a list of as many processes as a kernel can have.
const LONGEST: usize = 64 << 20;

/// A file that is in every cgroup.
const PROCS: &str = "cgroup.procs";

/// The directory of a cgroup. Its path is for messages only.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
}

impl Dir {
    /// The root of a hierarchy.
    pub(super) fn root(hierarchy: &Hierarchy) -> Result<Self> {
        const MAGIC_V1: i64 = 0x0027_e0eb;
        const MAGIC_V2: i64 = 0x6367_7270;
        let path = hierarchy.mount.clone();
        let fd = open_dir(rustix::fs::CWD, &path, &path)?;
        let kind = fstatfs(&fd).map_err(|errno| fault("look at", &path, errno))?;
        let wanted = match hierarchy.version {
            Version::V1 => MAGIC_V1,
            Version::V2 => MAGIC_V2,
        };
        if kind.f_type != wanted {
            return Err(Error::Covered { path });
        }
        Ok(Self {
            fd,
            path,
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
        })
    }

    /// The child of that name, with the same controllers.
    pub(super) fn child(&self, name: &Path) -> Result<Self> {
        let path = self.path.join(name);
        Ok(Self {
            fd: open_dir(&self.fd, name, &path)?,
            path,
            version: self.version,
            controllers: self.controllers.clone(),
        })
    }

    /// Makes the child of that name, unless it is there.
    pub(super) fn make_if_missing(&self, name: &Path) -> Result<()> {
        match self.make(name) {
            Err(error) if error.is(Errno::EXIST) => Ok(()),
            made => made,
        }
    }

    /// Makes the child of that name.
    pub(super) fn make(&self, name: &Path) -> Result<()> {
        mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))
            .map_err(|errno| fault("make", &self.path.join(name), errno))
    }

    /// Undoes [`Self::make`].
    pub(super) fn unmake(&self, name: &Path) {
        let _ = unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Removes the child of that name, if it is `this` one and there at all.
    ///
    /// What somebody else made under the name of a removed one is left alone.
    pub(super) fn remove(&self, name: &Path, this: &Self) -> std::result::Result<(), Errno> {
        let there = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            there => there?,
        };
        if there.st_ino != fstat(&this.fd)?.st_ino {
            return Ok(());
        }
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            removed => removed,
        }
    }

    /// The names of the children.
    pub(super) fn children(&self) -> Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStrExt as _;
        let failed = |errno| fault("list", &self.path, errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == rustix::fs::FileType::Directory && !name.starts_with(b".") {
                names.push(std::ffi::OsStr::from_bytes(name).into());
            }
        }
        Ok(names)
    }

    /// Whether the cgroup is still there.
    pub(super) fn is_there(&self) -> bool {
        self.has(PROCS)
    }

    /// Whether the kernel gives it this file.
    pub(super) fn has(&self, file: &str) -> bool {
        accessat(&self.fd, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Opens one of its files.
    pub(super) fn open(&self, file: &str, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        retry_on_intr(|| openat(&self.fd, file, flags, Mode::empty()))
            .map_err(|errno| fault("open", &self.path.join(file), errno))
    }

    /// The content of a file.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let fd = self.open(file, OFlags::RDONLY)?;
        read_whole(&fd).map_err(|errno| fault("read", &self.path.join(file), errno))
    }

    /// The content of a file; `None` where this kernel has no such file, or it is switched off.
    pub(super) fn read_if(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Err(error) if error.is_gone() && !self.is_there() => Err(self.gone()),
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::OPNOTSUPP) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Writes to a file, all at once, as the kernel wants it.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let fd = self.open(file, OFlags::WRONLY)?;
        write_whole(&fd, text).map_err(|errno| fault("write to", &self.path.join(file), errno))
    }

    /// The processes of this cgroup alone, without its children.
    pub(super) fn procs(&self) -> Result<Vec<i32>> {
        let text = self.read(PROCS)?;
        // Processes of another PID namespace read 0: nothing that could be told or signalled.
        let pids = text.lines().filter_map(|line| line.parse().ok());
        Ok(pids.filter(|&pid| pid > 0).collect())
    }

    /// Puts a process into it.
    pub(super) fn attach(&self, pid: i32) -> Result<()> {
        self.write(PROCS, &pid.to_string())
    }

    /// A path to it for those who take paths: by the open directory, whatever happens to its name.
    pub(super) fn magic_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    pub(super) fn gone(&self) -> Error {
        Error::Gone {
            path: self.path.clone(),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel said when something was tried.
pub(super) fn fault(action: &'static str, path: &Path, errno: Errno) -> Error {
    Error::Io {
        action,
        path: path.to_path_buf(),
        source: io::Error::from(errno),
    }
}

/// The content of an open file from its beginning.
pub(super) fn read_whole(fd: &OwnedFd) -> std::result::Result<String, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while bytes.len() < LONGEST {
        match retry_on_intr(|| rustix::io::pread(fd, &mut chunk, bytes.len() as u64))? {
            0 => break,
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes to an open file in one call.
pub(super) fn write_whole(fd: &OwnedFd, text: &str) -> std::result::Result<(), Errno> {
    match retry_on_intr(|| rustix::io::pwrite(fd, text.as_bytes(), 0))? {
        written if written == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn open_dir(at: impl AsFd, name: &Path, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    retry_on_intr(|| openat(&at, name, flags, Mode::empty()))
        .map_err(|errno| fault("open", path, errno))
}
