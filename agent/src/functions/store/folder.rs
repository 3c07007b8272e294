//! One open directory of ours alone, and what is right in it; no link in it is followed.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, fsync, mkdirat,
    openat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use thiserror::Error;

use super::step::step;

/// What the names of unfinished things begin with. They are removed when the store is opened.
pub(super) const UNFINISHED: &str = ".new-";
/// What the names of things begin with that are being removed.
const GONE: &str = ".gone-";
/// Bytes of a record; the largest definition has a tenth of it.
const MAX_RECORD: u64 = 1 << 20;

/// A store that cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The directory is a link.
    #[error(
        "the directory of functions {} is a symbolic link, or no directory: name the directory \
         itself in functions.state_dir", .0.display()
    )]
    Link(PathBuf),
    /// Others can look into it.
    #[error(
        "the directory of functions {0} is open to others (owner {owner}, mode {mode:04o}), and \
         what is in it runs: chown {me} {0} && chmod 700 {0}", path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who should.
        me: u32,
    },
    /// Another agent has it.
    #[error(
        "another hearth keeps its functions in {}; give each its own functions.state_dir",
        .0.display()
    )]
    Busy(PathBuf),
}

/// An open directory that belongs to us and that nobody else can enter.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens `path`, and makes it where it is missing.
    pub(super) fn make(path: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder.create(path);
        made.map_err(|error| StoreError::Io {
            what: "make",
            path: path.into(),
            error,
        })?;
        Self::open(CWD, path, path.into())
    }

    /// The directory `name` in it, made where it is missing.
    pub(super) fn inner(&self, name: &str) -> Result<Self, StoreError> {
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failed("make", name, error)),
        }
        Self::open(self.fd.as_fd(), Path::new(name), self.path.join(name))
    }

    fn open(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self, StoreError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = match openat(at, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(StoreError::Link(path)),
            Err(error) => {
                return Err(StoreError::Io {
                    what: "open",
                    path,
                    error: error.into(),
                });
            }
        };
        let folder = Self { fd, path };
        let stat = fstat(&folder.fd).map_err(|error| folder.failed("look at", "", error))?;
        let me = rustix::process::geteuid().as_raw();
        if stat.st_uid != me || stat.st_mode & 0o077 != 0 {
            return Err(StoreError::Open {
                path: folder.path,
                owner: stat.st_uid,
                mode: stat.st_mode & 0o7777,
                me,
            });
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failed(
        &self,
        what: &'static str,
        name: &str,
        error: impl Into<io::Error>,
    ) -> StoreError {
        StoreError::Io {
            what,
            path: self.path.join(name),
            error: error.into(),
        }
    }

    /// Takes the right to write for as long as this is open.
    pub(super) fn lock(&self) -> Result<(), StoreError> {
        match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Busy(self.path.clone())),
            Err(error) => Err(self.failed("lock", "", error)),
        }
    }

    /// The names of what is in it, in order.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: Errno| self.failed("list", "", error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            // What is not UTF-8 is not ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str()
                && ![".", ".."].contains(&name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what somebody who died left unfinished, in making or in removing.
    pub(super) fn sweep(&self) -> Result<u32, StoreError> {
        let mut swept = 0;
        for name in self.names()? {
            if name.starts_with(UNFINISHED) || name.starts_with(GONE) {
                self.destroy(&name)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// The content of the ordinary file `name`.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        // Not blocking, for it could be a pipe that somebody put there.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&self.fd, name, flags, Mode::empty());
        let file = File::from(fd.map_err(|error| self.failed("open", name, error))?);
        let mut bytes = Vec::new();
        file.take(MAX_RECORD)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed("read", name, error))?;
        Ok(bytes)
    }

    /// Writes `bytes` to the new file `name`: after this it is there whole, whatever happens; an
    /// end before leaves nothing of that name.
    pub(super) fn publish_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let unfinished = format!("{UNFINISHED}{name}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let written = openat(&self.fd, &*unfinished, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .and_then(|fd| {
                let mut file = File::from(fd);
                step();
                file.write_all(bytes)?;
                file.sync_all()
            });
        if let Err(error) = written {
            let _ = unlinkat(&self.fd, &*unfinished, AtFlags::empty());
            return Err(self.failed("write", name, error));
        }
        self.rename(&unfinished, name)
    }

    /// A new directory of this name, to be filled; not to be entered by others until it is
    /// published is seen to by those that it is in.
    pub(super) fn new_directory(&self, name: &str) -> Result<OwnedFd, StoreError> {
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        step();
        mkdirat(&self.fd, name, mode)
            .and_then(|()| openat(&self.fd, name, flags, Mode::empty()))
            // Whatever the umask is: functions run as others, and `/` is for all of them.
            .and_then(|fd| rustix::fs::fchmod(&fd, mode).map(|()| fd))
            .map_err(|error| self.failed("make", name, error))
    }

    /// Gives `from` the name `to`, on disk when this returns.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        step();
        renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE)
            .map_err(|error| self.failed("publish", to, error))?;
        step();
        fsync(&self.fd).map_err(|error| self.failed("sync", "", error))
    }

    /// Removes `name` and what is in it: at once as far as its name goes.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let gone = format!("{GONE}{name}");
        // What a removal that failed has left of it.
        self.destroy(&gone)?;
        self.rename(name, &gone)?;
        self.destroy(&gone)
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        step();
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // The standard library follows no links on its way down.
            Err(Errno::ISDIR) => match std::fs::remove_dir_all(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(self.failed("remove", name, error))
                }
                _ => Ok(()),
            },
            Err(error) => Err(self.failed("remove", name, error)),
        }
    }

    /// Removes the unfinished `name`.
    pub(super) fn abandon(&self, name: &str) {
        // What is left goes at the next start.
        let _ = self.destroy(name);
    }
}
