//! The content of a layer as one stream of bytes, the same for the same content: an archive as it
//! is, a directory as the archive that it would be.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Directories within each other; a layer may not have more either.
const MAX_DEPTH: usize = 64;

/// A directory or archive that was opened, whatever becomes of its path.
#[derive(Debug)]
pub(super) enum Content {
    Directory(OwnedFd),
    Archive(File),
}

/// Opens what is at the absolute `path` without following a link anywhere on the way.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    // Not to wait for a writer where somebody put a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve).map_err(|error| match error {
        Errno::LOOP => io::Error::other(
            "a symbolic link is on the way, which could lead elsewhere tomorrow: name the \
             directory or file itself, as `realpath` prints it",
        ),
        error => error.into(),
    })
}

impl Content {
    pub(super) fn of(opened: OwnedFd) -> io::Result<Self> {
        let file = File::from(opened);
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            Ok(Self::Directory(file.into()))
        } else if metadata.is_file() {
            Ok(Self::Archive(file))
        } else {
            Err(io::Error::other("it is neither a directory nor a file"))
        }
    }

    /// Writes all of it to `to`.
    pub(super) fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Archive(file) => {
                let mut file = file;
                io::Seek::rewind(&mut file)?;
                io::copy(&mut file, to).map(drop)
            }
            Self::Directory(directory) => {
                let mut archive = tar::Builder::new(to);
                add(&mut archive, directory, &mut PathBuf::new())?;
                archive.finish()
            }
        }
    }

    /// Its digest, of at most `most` bytes.
    pub(super) fn digest(&self, most: u64) -> io::Result<[u8; 32]> {
        let mut sum = Summing {
            inner: io::sink(),
            sum: Sha256::new(),
            left: most,
        };
        self.write_to(&mut sum)?;
        Ok(sum.sum.finalize().into())
    }
}

/// Adds what is in a directory, by name, so that the same content is the same archive. Times and
/// owners are not taken over by a layer.
fn add(
    archive: &mut tar::Builder<&mut dyn Write>,
    directory: &OwnedFd,
    path: &mut PathBuf,
) -> io::Result<()> {
    if path.components().count() >= MAX_DEPTH {
        return Err(at(path, "more than 64 directories within each other"));
    }
    for name in names(directory)? {
        path.push(OsStr::from_bytes(&name));
        add_one(archive, directory, OsStr::from_bytes(&name), path)?;
        path.pop();
    }
    Ok(())
}

fn add_one(
    archive: &mut tar::Builder<&mut dyn Write>,
    directory: &OwnedFd,
    name: &OsStr,
    path: &mut PathBuf,
) -> io::Result<()> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o1777);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = || {
        openat(directory, name, flags, Mode::empty())
            .map_err(|error| at(path, &io::Error::from(error).to_string()))
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let inner = opened()?;
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, &*path, io::empty())?;
            add(archive, &inner, path)
        }
        FileType::RegularFile => {
            let file = File::from(opened()?);
            let size = file.metadata()?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            // One that grows meanwhile must not run into the next entry.
            archive.append_data(&mut header, &*path, Exactly { file, left: size })
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, &*path, OsStr::from_bytes(target.as_bytes()))
        }
        FileType::CharacterDevice | FileType::BlockDevice => Err(at(path, "a device")),
        FileType::Fifo => Err(at(path, "a named pipe")),
        FileType::Socket => Err(at(path, "a socket")),
        FileType::Unknown => Err(at(path, "of a kind that is not known")),
    }
}

fn at(path: &Path, what: &str) -> io::Error {
    let message = format!("`{}`: {what}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn names(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// As many bytes as were announced; fewer are an error.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let room = into.len().min(most);
        if room == 0 {
            return Ok(0);
        }
        let read = self.file.read(into.get_mut(..room).unwrap_or_default())?;
        if read == 0 {
            return Err(io::Error::other("a file became shorter as it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Sums what goes through it up, and lets no more through than it may.
pub(super) struct Summing<I> {
    pub(super) inner: I,
    pub(super) sum: Sha256,
    pub(super) left: u64,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        let Some(left) = self.left.checked_sub(written as u64) else {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layer is larger than 4 GiB",
            ));
        };
        self.left = left;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.sum.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}
