//! A directory that is written into from the inside only: nothing here follows a link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::name::Path;

/// A new directory, before the archive says otherwise.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// The root of what is unpacked.
#[derive(Debug)]
pub(super) struct Tree(OwnedFd);

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Opens what is at `path`, which must be reached without a link.
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat2(&self.0, path.as_bytes(), flags, Mode::empty(), resolve)
    }

    /// The directory at `path`, for names in it; made where it is not there, as are those that it
    /// is in.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let mut at = Path::default();
        let mut directory = self.open(&at, flags)?;
        for name in path.names() {
            match rustix::fs::mkdirat(&directory, name, DIRECTORY) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = at.join(name);
            directory = self.open(&at, flags)?;
        }
        Ok(directory)
    }

    /// A directory of this mode, new or the one that is there.
    pub(super) fn make_directory(&self, path: &Path, mode: Mode) -> io::Result<()> {
        if let Some((parent, name)) = path.split() {
            let parent = self.directory(&parent)?;
            let there = file_type(&parent, name)?;
            if there.is_some_and(|there| there != FileType::Directory) {
                remove(&parent, name)?;
            }
        }
        self.directory(path)?;
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fchmod(directory, mode)?)
    }

    /// A new file, empty, in the place of whatever was there.
    pub(super) fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        let (parent, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(
            parent,
            name,
            flags | OFlags::CLOEXEC,
            mode,
        )?)
    }

    /// A symbolic link, in the place of whatever was there.
    pub(super) fn make_link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        Ok(rustix::fs::symlinkat(target, parent, name)?)
    }

    /// One more name of a file that is there, in the place of whatever was there.
    pub(super) fn make_name(&self, path: &Path, of: &Path) -> io::Result<()> {
        let Some((of_parent, of_name)) = of.split() else {
            return Err(Errno::ISDIR.into());
        };
        let of_parent = self.open(&of_parent, OFlags::PATH | OFlags::DIRECTORY)?;
        if file_type(&of_parent, of_name)? != Some(FileType::RegularFile) {
            return Err(Errno::NOENT.into());
        }
        if path == of {
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        Ok(rustix::fs::linkat(
            of_parent,
            of_name,
            parent,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Takes away what is at `path`, if something is.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let Some((parent, name)) = path.split() else {
            return Err(Errno::BUSY.into());
        };
        match self.open(&parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => remove(&parent, name),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in the directory at `path`; none where there is no directory.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => names(directory),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that `path` is in, and its name there, which is free.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let Some((parent, name)) = path.split() else {
            return Err(Errno::ISDIR.into());
        };
        let parent = self.directory(&parent)?;
        match file_type(&parent, name)? {
            None => {}
            // A file does not silently take all of a directory away.
            Some(FileType::Directory) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
            }
            Some(_) => rustix::fs::unlinkat(&parent, name, AtFlags::empty())?,
        }
        Ok((parent, name))
    }
}

/// Puts the mode on a file whose content is there.
pub(super) fn finish(file: &OwnedFd, mode: Mode) -> io::Result<()> {
    // Where we are root, whoever made the archive is not asked who owns it.
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    }
    Ok(rustix::fs::fchmod(file, mode)?)
}

/// What is at a name, itself.
fn file_type(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<FileType>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(FileType::from_raw_mode(status.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(directory: impl AsFd) -> io::Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_os_string());
        }
    }
    Ok(names)
}

/// Takes away a name and all that is below it. As deep as paths are allowed to be, and no deeper.
fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match file_type(directory, name)? {
        None => Ok(()),
        Some(FileType::Directory) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            for name in names(&inner)? {
                remove(&inner, &name)?;
            }
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
        }
        Some(_) => Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?),
    }
}
