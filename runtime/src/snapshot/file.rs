//! Published files: opened only where nobody else could have changed them.

use std::fs::File;
use std::io::Read as _;

use rustix::fs::{FileType, FlockOperation, OFlags, Stat, flock, fstat};
use rustix::io::Errno;

use super::error::{Refusal, Remedy, SnapshotError};
use super::folder::Folder;
use super::id::Digest;
use super::store::Snapshot;

/// The manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// Processor and devices.
pub(super) const STATE: &str = "state";
/// The guest's memory.
pub(super) const MEMORY: &str = "memory";
/// The guest's writable layer.
pub(super) const DISK: &str = "disk";

/// Why something published cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not there any more.
    Gone,
    /// It is not as it must be.
    Refused(Refusal),
    /// It cannot be known.
    Failed(SnapshotError),
}

impl Fault {
    /// As it is told of one snapshot.
    pub(super) fn of(self, snapshot: &Snapshot) -> SnapshotError {
        match self {
            Self::Gone => SnapshotError::Gone(snapshot.id),
            Self::Refused(refusal) => SnapshotError::Refused {
                snapshot: Box::new(snapshot.clone()),
                refusal: Box::new(refusal),
            },
            Self::Failed(error) => error,
        }
    }
}

impl From<SnapshotError> for Fault {
    fn from(error: SnapshotError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Opens the file `name` for reading: a regular one with no other name, ours, that nobody else can
/// open.
pub(super) fn open(folder: &Folder, name: &str) -> Result<(File, Stat), Fault> {
    let kind = |found: &str| {
        let field = format!("kind of {name}");
        Fault::Refused(Refusal::new(field, found, "a regular file", Remedy::Remove))
    };
    // Not to wait for a writer where somebody put a pipe.
    let file = match folder.open(name, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Err(kind("missing")),
        Err(Errno::LOOP) => return Err(kind("a symbolic link")),
        Err(Errno::NXIO) => return Err(kind("a socket")),
        Err(error) => return Err(folder.failed("open", name, error).into()),
    };
    let status = fstat(&file).map_err(|error| folder.failed("look at", name, error))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(kind("a directory")),
        FileType::Fifo => return Err(kind("a pipe")),
        _ => return Err(kind("a device")),
    }
    let refused = |what: &str, found: String, expected: String| {
        let field = format!("{what} of {name}");
        Fault::Refused(Refusal::new(field, found, expected, Remedy::Permissions))
    };
    let uid = rustix::process::geteuid().as_raw();
    if status.st_uid != uid {
        let (found, expected) = (format!("user {}", status.st_uid), format!("user {uid}"));
        return Err(refused("owner", found, expected));
    }
    let mode = status.st_mode & 0o7777;
    if mode != 0o600 {
        return Err(refused("mode", format!("{mode:04o}"), "0600".to_owned()));
    }
    if status.st_nlink != 1 {
        let found = status.st_nlink.to_string();
        return Err(refused("number of names", found, "1".to_owned()));
    }
    Ok((file.into(), status))
}

/// All of a file of at most `most` bytes.
pub(super) fn read(folder: &Folder, name: &str, most: u64) -> Result<Vec<u8>, Fault> {
    let (file, status) = open(folder, name)?;
    let bytes = size(&status);
    if bytes > most {
        let field = format!("size of {name}");
        let (found, expected) = (format!("{bytes} bytes"), format!("at most {most} bytes"));
        return Err(Refusal::new(field, found, expected, Remedy::Remove).into());
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default() + 1);
    file.take(most)
        .read_to_end(&mut content)
        .map_err(|error| SnapshotError::io(&folder.path().join(name), "read", error))?;
    Ok(content)
}

/// Holds `file` as one of those who use it; false where somebody is removing it. The kernel keeps
/// the lock with what was opened: until its last descriptor is closed and its last mapping is gone,
/// in whatever process.
pub(super) fn use_it(file: &File) -> rustix::io::Result<bool> {
    lock(file, FlockOperation::NonBlockingLockShared)
}

/// Takes `file` away from all who could come to use it; false where somebody does.
pub(super) fn take_it(file: &File) -> rustix::io::Result<bool> {
    lock(file, FlockOperation::NonBlockingLockExclusive)
}

fn lock(file: &File, operation: FlockOperation) -> rustix::io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The digest and the size of all that is in `file`.
pub(super) fn digest(file: &File) -> std::io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut chunk[..], at))?;
        if read == 0 {
            return Ok((Digest::finish(&hasher), at));
        }
        hasher.update(chunk.get(..read).unwrap_or_default());
        at += read as u64;
    }
}

/// Bytes of a file.
pub(super) fn size(status: &Stat) -> u64 {
    u64::try_from(status.st_size).unwrap_or_default()
}
