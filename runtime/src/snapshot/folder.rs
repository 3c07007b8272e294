//! One open directory of the store, and what is right in it. No link in it is followed, and none
//! leads out of it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fstat, fsync, mkdirat,
    openat2, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::{Refusal, Remedy, SnapshotError};
use super::file::Fault;
use super::step::step;
use crate::private;

/// How a directory is opened beneath another one.
const INNER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The directory at `path`, ours alone; made where it is not there.
    pub(super) fn root(path: &Path) -> Result<Self, SnapshotError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| SnapshotError::io(parent, "make the directory", error))?;
        }
        let fd = private::directory(path)?;
        let path = path.into();
        Ok(Self { fd, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn failed(&self, what: &'static str, name: &str, error: Errno) -> SnapshotError {
        SnapshotError::io(&self.path.join(name), what, error)
    }

    /// Opens what is at `name` in it, itself and nowhere else.
    pub(super) fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mode = if flags.contains(OFlags::CREATE) {
            Mode::RUSR | Mode::WUSR
        } else {
            Mode::empty()
        };
        openat2(&self.fd, name, flags | OFlags::CLOEXEC, mode, resolve)
    }

    /// The directory `name` in it, whoever owns it; none where there is none.
    pub(super) fn any(&self, name: &str) -> Result<Option<Self>, SnapshotError> {
        match self.open(name, INNER) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: self.path.join(name),
            })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(self.failed("open the directory", name, error)),
        }
    }

    /// The directory `name` in it, which is ours alone.
    pub(super) fn inner(&self, name: &str) -> Result<Self, Fault> {
        let refused = |what: &str, found: String, expected: String, remedy| {
            let field = format!("{what} of directory {name}");
            Fault::Refused(Refusal::new(field, found, expected, remedy))
        };
        let fd = match self.open(name, INNER) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(Fault::Gone),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let found = "no directory, or a symbolic link".to_owned();
                let expected = "a directory".to_owned();
                return Err(refused("kind", found, expected, Remedy::Remove));
            }
            Err(error) => return Err(self.failed("open the directory", name, error).into()),
        };
        let path = self.path.join(name);
        let status =
            fstat(&fd).map_err(|error| self.failed("look at the directory", name, error))?;
        let uid = rustix::process::geteuid().as_raw();
        if status.st_uid != uid {
            let (found, expected) = (format!("user {}", status.st_uid), format!("user {uid}"));
            return Err(refused("owner", found, expected, Remedy::Permissions));
        }
        let mode = status.st_mode & 0o7777;
        if mode != 0o700 {
            let found = format!("{mode:04o}");
            return Err(refused(
                "mode",
                found,
                "0700".to_owned(),
                Remedy::Permissions,
            ));
        }
        Ok(Self { fd, path })
    }

    /// A new directory in it.
    pub(super) fn make(&self, name: &str) -> Result<Self, SnapshotError> {
        let failed =
            |error| SnapshotError::write(&self.path.join(name), "make the directory", 4096, error);
        mkdirat(&self.fd, name, Mode::RWXU).map_err(failed)?;
        let fd = self.open(name, INNER).map_err(failed)?;
        let path = self.path.join(name);
        Ok(Self { fd, path })
    }

    /// That `inner` is still what `name` in it is.
    pub(super) fn has(&self, name: &str, inner: &Self) -> bool {
        let (Ok(named), Ok(opened)) = (
            statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW),
            fstat(&inner.fd),
        ) else {
            return false;
        };
        (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
    }

    /// Whether something is at `name` in it.
    pub(super) fn is_there(&self, name: &str) -> Result<bool, SnapshotError> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed("look at", name, error)),
        }
    }

    /// The names in it.
    pub(super) fn names(&self) -> Result<Vec<String>, SnapshotError> {
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
        Ok(names)
    }

    /// Bytes on the disk of what is in it.
    pub(super) fn disk_bytes(&self) -> Result<u64, SnapshotError> {
        let mut blocks = 0;
        for name in self.names()? {
            if let Ok(status) = statat(&self.fd, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                blocks += u64::try_from(status.st_blocks).unwrap_or_default();
            }
        }
        Ok(blocks * 512)
    }

    /// A new file, open for reading and writing.
    pub(super) fn new_file(&self, name: &str) -> Result<File, SnapshotError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open(name, flags).map(File::from).map_err(|error| {
            SnapshotError::write(&self.path.join(name), "make the file", 4096, error)
        })
    }

    /// Writes a new file; its content is on disk when this returns.
    pub(super) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), SnapshotError> {
        let mut file = self.new_file(name)?;
        step();
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| self.unwritten(name, bytes.len() as u64, &error))
    }

    /// Gives `name` this content as a whole or not at all. One writer at a time: under the lock.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), SnapshotError> {
        let new = format!("{name}.new");
        // What one who died has left of it.
        match unlinkat(&self.fd, &*new, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.failed("remove", &new, error)),
        }
        self.write_new(&new, bytes)?;
        step();
        renameat(&self.fd, &*new, &self.fd, name)
            .map_err(|error| self.failed("put it in its place", name, error))?;
        step();
        self.sync()
    }

    /// `Io`, or how much room is missing.
    pub(super) fn unwritten(
        &self,
        name: &str,
        needs: u64,
        error: &std::io::Error,
    ) -> SnapshotError {
        let path = self.path.join(name);
        match Errno::from_io_error(error) {
            Some(error) => SnapshotError::write(&path, "write the file", needs, error),
            None => SnapshotError::io(
                &path,
                "write the file",
                std::io::Error::other(error.to_string()),
            ),
        }
    }

    /// Gives what is `from` in it the name `to` in `other`, where nothing has that name.
    pub(super) fn rename(&self, from: &str, other: &Self, to: &str) -> Result<(), SnapshotError> {
        renameat_with(&self.fd, from, &other.fd, to, RenameFlags::NOREPLACE)
            .map_err(|error| other.failed("publish", to, error))
    }

    /// Its names are on disk when this returns.
    pub(super) fn sync(&self) -> Result<(), SnapshotError> {
        fsync(&self.fd).map_err(|error| self.failed("sync", "", error))
    }

    /// Removes the directory `name` in it and the files in that.
    pub(super) fn destroy(&self, name: &str) -> Result<(), SnapshotError> {
        if let Some(inner) = self.any(name)? {
            for file in inner.names()? {
                step();
                inner.remove(&file)?;
            }
        }
        step();
        self.remove(name)
    }

    /// Removes one file or one empty directory, if there is one.
    pub(super) fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        let status = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.failed("look at", name, error)),
        };
        let flags = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        match unlinkat(self.fd.as_fd(), name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove", name, error)),
        }
    }
}
