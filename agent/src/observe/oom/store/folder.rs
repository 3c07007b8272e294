//! One open directory of ours alone, and files right in it.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, fsync,
    mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::StoreError;

/// An open directory that belongs to us and that nobody else can enter.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens `path`, and makes it where it is missing.
    pub(super) fn make(path: &Path) -> Result<Self, StoreError> {
        let failed = |what| {
            move |error: io::Error| StoreError::Io {
                what,
                path: path.into(),
                error,
            }
        };
        if let Some(parent) = path.parent() {
            // Those above are the node's: links among them are its own affair.
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder
                .create(parent)
                .map_err(failed("make the parent of"))?;
        }
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(error) => Err(failed("make")(error.into())),
        }
    }

    /// Opens `path`, which must be ours alone.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let io = |what, error: Errno| StoreError::Io {
            what,
            path: path.into(),
            error: error.into(),
        };
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => StoreError::Link(path.into()),
            error => io("open", error),
        })?;
        let stat = fstat(&fd).map_err(|error| io("look at", error))?;
        let me = rustix::process::geteuid().as_raw();
        if stat.st_uid != me || stat.st_mode & 0o077 != 0 {
            return Err(StoreError::Open {
                path: path.into(),
                owner: stat.st_uid,
                mode: stat.st_mode & 0o7777,
                me,
            });
        }
        Ok(Self {
            fd,
            path: path.into(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A failure with the file `name`.
    pub(super) fn failed(&self, what: &'static str, name: &str, error: io::Error) -> StoreError {
        StoreError::Io {
            what,
            path: self.path.join(name),
            error,
        }
    }

    /// Takes the right to write for as long as this is open.
    pub(super) fn lock(&self) -> Result<(), StoreError> {
        match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Busy(self.path.clone())),
            Err(error) => Err(self.failed("lock", "", error.into())),
        }
    }

    /// The names of what is in it.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: Errno| self.failed("list", "", error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            // What is not UTF-8 is not ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The length of `name`, if that is an ordinary file.
    pub(super) fn bytes(&self, name: &str) -> Option<u64> {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        FileType::from_raw_mode(stat.st_mode)
            .is_file()
            .then(|| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Opens `name` for reading, if there is such an ordinary file.
    pub(super) fn read(&self, name: &str) -> Result<Option<File>, StoreError> {
        // Not blocking, for it could be a pipe that somebody put there.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
                let odd = || io::Error::other("it is no ordinary file");
                if is_file {
                    Ok(Some(file))
                } else {
                    Err(self.failed("read", name, odd()))
                }
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("open", name, error.into())),
        }
    }

    /// Removes `name`; that it is gone already is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove", name, error.into())),
        }
    }

    /// Writes `bytes` to `unfinished`, then gives it the name `name`, which nothing may have; both
    /// are on disk when this returns.
    pub(super) fn publish(
        &self,
        name: &str,
        unfinished: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.write(unfinished, bytes)
            .and_then(|()| {
                renameat_with(&self.fd, unfinished, &self.fd, name, RenameFlags::NOREPLACE)
                    .map_err(|error| self.failed("publish", name, error.into()))
            })
            .inspect_err(|_| {
                // It is counted as lost already; what is left goes at the next start at the latest.
                let _ = unlinkat(&self.fd, unfinished, AtFlags::empty());
            })?;
        fsync(&self.fd).map_err(|error| self.failed("sync", "", error.into()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = self.create(name)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.failed("write", name, source))
    }

    /// Writes `bytes` to `name`, which nothing may have; whole or not at all, but not synced.
    pub(super) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.create(name)?.write_all(bytes).map_err(|source| {
            let _ = unlinkat(&self.fd, name, AtFlags::empty());
            self.failed("write", name, source)
        })
    }

    fn create(&self, name: &str) -> Result<File, StoreError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.fd, name, flags, mode)
            .map(File::from)
            .map_err(|error| self.failed("create", name, error.into()))
    }
}
