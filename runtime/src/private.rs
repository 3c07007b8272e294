//! Directories that are nobody else's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Why there is no such directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Others can write to it or look into it, or could have made it.
    #[error("{path}: {reason}; remove it, or give it to user {uid} with mode 0700", path = .path.display())]
    Shared {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Who we are.
        uid: u32,
    },
    /// A call to the kernel failed.
    #[error("{path}: cannot {what}: {error}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// Opens a directory that nobody else can write to or look into, and that is no link; made where
/// there is none (its parent must be there).
pub fn directory(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let failed = |what| {
        move |error: Errno| DirectoryError::Io {
            path: path.into(),
            what,
            error: error.into(),
        }
    };
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("make the directory")(error)),
    }
    let uid = rustix::process::geteuid().as_raw();
    let refused = |reason: String| DirectoryError::Shared {
        path: path.into(),
        reason,
        uid,
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(refused("is no directory, or a symbolic link".into()));
        }
        Err(error) => return Err(failed("open the directory")(error)),
    };
    let status = rustix::fs::fstat(&directory).map_err(failed("look at the directory"))?;
    if status.st_uid != uid {
        return Err(refused(format!("belongs to user {}", status.st_uid)));
    }
    if status.st_mode & 0o077 != 0 {
        let mode = status.st_mode & 0o7777;
        return Err(refused(format!("others may use it (mode {mode:04o})")));
    }
    Ok(directory)
}
