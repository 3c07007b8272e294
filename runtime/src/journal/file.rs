//! The file: opened by one spawner at a time, appended to, rewritten when it is mostly history.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::entry::{Entry, Lives};
use super::line::{self, Header, VERSION};
use crate::private;

const NAME: &str = "journal";
const NEW: &str = "journal.new";
const LOCK: &str = "lock";
/// A file that is smaller is not worth rewriting; a larger one is, when it has grown to four times
/// of what was in it after it was last rewritten.
const SMALL: u64 = 256 * 1024;
/// A file that is larger is none of ours: 10,000 lives fit 30 times over.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Why there is no journal, or an entry is not in it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory is not one that only we can write to.
    #[error(transparent)]
    Directory(#[from] private::DirectoryError),
    /// Another spawner is at work.
    #[error("{path}: another hearth-spawner has it; two must not look after the same sandboxes", path = .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A call to the kernel failed.
    #[error("{path}: cannot {what}: {error}", path = .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// The journal of a running spawner.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    directory: OwnedFd,
    file: OwnedFd,
    /// Held for as long as the journal is; the kernel takes it back when we die.
    _lock: OwnedFd,
    boot: Box<str>,
    lives: Lives,
    bytes: u64,
    /// Rewriting it is tried when it is larger than this.
    rewrite_at: u64,
    trouble: Option<JournalError>,
    out: Vec<u8>,
}

/// What a former spawner left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Lives that began and did not end.
    pub lives: Lives,
    /// They are of another boot, or it is unknown of which: what processes there were is gone.
    pub other_boot: bool,
    /// Lines that were torn or damaged, and so left out.
    pub damaged: u64,
    /// The file was of another version of hearth, and could not be read.
    pub other_version: bool,
}

impl Journal {
    /// Opens the journal in `directory`, made with mode 0700 where it does not exist (its parent
    /// must), and says what is in there.
    pub fn open(directory: &Path) -> Result<(Self, Replay), JournalError> {
        let failed = |what| failed(directory, what);
        let handle = private::directory(directory)?;
        let lock = open_at(&handle, LOCK, OFlags::RDWR | OFlags::CREATE)
            .map_err(failed("open its lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(JournalError::Busy {
                    path: directory.into(),
                });
            }
            Err(error) => return Err(failed("lock it")(error)),
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| {
            JournalError::Io {
                path: directory.into(),
                what: "read the boot id",
                error,
            }
        })?;
        let boot: Box<str> = boot.trim().into();
        let file = open_at(
            &handle,
            NAME,
            OFlags::RDWR | OFlags::CREATE | OFlags::APPEND,
        )
        .map_err(failed("open the journal"))?;
        let bytes = read_all(&file).map_err(failed("read the journal"))?;
        let lines = line::read(&bytes);
        let mut replay = Replay {
            other_boot: false,
            other_version: false,
            lives: lines.lives,
            damaged: lines.damaged,
        };
        if !bytes.is_empty() {
            let header = lines.header.as_ref();
            replay.other_version = header.is_none_or(|header| header.journal != VERSION);
            replay.other_boot = header.is_none_or(|header| header.boot != boot);
        }
        if replay.other_boot {
            replay.lives.forget_processes();
        }
        let mut journal = Self {
            path: directory.into(),
            directory: handle,
            file,
            _lock: lock,
            boot,
            lives: replay.lives.clone(),
            bytes: 0,
            rewrite_at: 0,
            trouble: None,
            out: Vec::new(),
        };
        // A file of its own making: what was torn or is history is not carried along.
        journal.rewrite()?;
        Ok((journal, replay))
    }

    /// Lives that began and have not ended, by what was written.
    #[must_use]
    pub const fn lives(&self) -> &Lives {
        &self.lives
    }

    /// Writes one entry. What it names may be made only after it is written; where it is not,
    /// nothing has changed.
    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.out.clear();
        line::write(&entry, &mut self.out).map_err(|error| JournalError::Io {
            path: self.path.clone(),
            what: "write an entry as JSON",
            error: error.into(),
        })?;
        self.write()?;
        self.lives.apply(entry);
        if self.bytes > self.rewrite_at
            && let Err(error) = self.rewrite()
        {
            // The entry is in the old file, which goes on.
            self.rewrite_at = 2 * self.bytes;
            self.trouble = Some(error);
        }
        Ok(())
    }

    /// Why the file was not made smaller when that was last tried; none where it was.
    #[must_use]
    pub const fn trouble(&self) -> Option<&JournalError> {
        self.trouble.as_ref()
    }

    /// Writes the lives that there are to a new file, which takes the place of the old one as a
    /// whole or not at all.
    fn rewrite(&mut self) -> Result<(), JournalError> {
        let failed = |what| failed(&self.path, what);
        let mut bytes = Vec::new();
        let header = Header {
            journal: VERSION,
            boot: self.boot.clone(),
        };
        let lives = self.lives.iter().cloned().map(Entry::Begin);
        line::write(&header, &mut bytes)
            .and_then(|()| {
                lives
                    .into_iter()
                    .try_for_each(|life| line::write(&life, &mut bytes))
            })
            .map_err(|error| JournalError::Io {
                path: self.path.clone(),
                what: "write it as JSON",
                error: error.into(),
            })?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::TRUNC;
        let file = open_at(&self.directory, NEW, flags).map_err(failed("make a new journal"))?;
        write_all(&file, &bytes).map_err(failed("write a new journal"))?;
        rustix::fs::renameat(&self.directory, NEW, &self.directory, NAME)
            .map_err(failed("put the new journal in its place"))?;
        self.bytes = bytes.len() as u64;
        self.rewrite_at = SMALL.max(4 * self.bytes);
        self.file = file;
        self.trouble = None;
        Ok(())
    }

    fn write(&mut self) -> Result<(), JournalError> {
        write_all(&self.file, &self.out).map_err(failed(&self.path, "append to the journal"))?;
        self.bytes += self.out.len() as u64;
        Ok(())
    }
}

fn failed(path: &Path, what: &'static str) -> impl Fn(Errno) -> JournalError {
    let path = path.to_path_buf();
    move |error| JournalError::Io {
        path: path.clone(),
        what,
        error: error.into(),
    }
}

/// Opens a file in `directory` itself, never through a link; mode 0600 where it is made.
fn open_at(directory: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat2(directory, name, flags | OFlags::CLOEXEC, mode, resolve)?;
    let status = rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(file)
}

fn read_all(file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    if size > MAX_FILE {
        return Err(Errno::FBIG);
    }
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let at = bytes.len() as u64;
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut chunk[..], at))?;
        if read == 0 || at > MAX_FILE {
            return Ok(bytes);
        }
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    let file: BorrowedFd<'_> = file.as_fd();
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
