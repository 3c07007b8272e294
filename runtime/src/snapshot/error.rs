//! Why a snapshot is not made, not used or not removed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::manifest::ManifestError;
use super::store::Snapshot;
use crate::private::DirectoryError;

/// Why something was not done with a snapshot. Nothing of it is half done.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The directory is not one that only we can use.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A call to the kernel failed.
    #[error("{path}: cannot {what}: {error}", path = .path.display())]
    Io {
        /// With what.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// There is no room for it.
    #[error(
        "{path}: no room for {what}: {needs} bytes are needed, {free} are free; make room there, or \
         remove snapshots: `hearth snapshot gc`", path = .path.display()
    )]
    Full {
        /// Where.
        path: PathBuf,
        /// For what.
        what: &'static str,
        /// What it takes.
        needs: u64,
        /// What there is.
        free: u64,
    },
    /// All snapshots together would be larger than they may be.
    #[error(
        "the snapshots have {stored} bytes, and {needs} more would be over snapshots.max_bytes = \
         {most}: raise it, or remove some: `hearth snapshot gc`"
    )]
    OverBudget {
        /// What is stored.
        stored: u64,
        /// What comes to it.
        needs: u64,
        /// What there may be.
        most: u64,
    },
    /// What should be published cannot be.
    #[error("the snapshot was not published: {0}")]
    Unpublished(Refusal),
    /// It is not what it was when it was published, or not for here.
    #[error("snapshot {} ({}, version {}, generation {}): {refusal}{}", .snapshot.id.short(),
        .snapshot.key.function, .snapshot.key.version, .snapshot.generation,
        .refusal.remedy.of(.snapshot))]
    Refused {
        /// Which.
        snapshot: Box<Snapshot>,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// It is not there, or is being removed.
    #[error("snapshot {}: there is none, or it was removed just now; `hearth snapshot list` shows what there is", .0.short())]
    Gone(super::SnapshotId),
    /// Somebody runs on it.
    #[error("snapshot {}: a sandbox runs on its memory; end it first, or wait for it", .0.short())]
    InUse(super::SnapshotId),
    /// Another process has the store's lock for longer than any work with it takes.
    #[error("{path}: another process has held this lock for {seconds} s; `fuser -v {path}` names it", path = .path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, and must be {expected}")]
pub struct Refusal {
    /// Which.
    pub field: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
    /// What to do.
    pub remedy: Remedy,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is damaged: another one must do.
    Remove,
    /// The files may be right, and only be others than those that were published here.
    Reseal,
    /// It may be used by others, or belongs to them.
    Permissions,
    /// It is right, but not here.
    OtherHost,
    /// It is right, but not for this version of hearth.
    OtherVersion,
    /// It failed too often.
    Older,
    /// It was restored, and can be only once.
    Once,
    /// Whoever made it must make it otherwise.
    Mend,
}

impl Remedy {
    /// In words, for one snapshot.
    fn of(self, snapshot: &Snapshot) -> String {
        let id = snapshot.id.short();
        match self {
            Self::Remove => format!(
                ": it was changed after it was published; an older generation or a cold start takes \
                 its place, `hearth snapshot rm {id}` removes it"
            ),
            Self::Reseal => format!(
                ": it was copied, moved or changed after it was published; `hearth snapshot verify \
                 --reseal {id}` reads all of it, and takes it as it is if that is right"
            ),
            Self::Permissions => format!(
                ": others could have changed it; once owner and mode are right again, `hearth \
                 snapshot verify --reseal {id}` says whether its content is, `hearth snapshot rm {id}` \
                 removes it"
            ),
            Self::Older => format!(
                ": an older generation or a cold start takes its place; `hearth snapshot verify {id}` \
                 says whether its content is right, `hearth snapshot rm {id}` removes it"
            ),
            Self::OtherHost => {
                ": only a host that has this can restore it; here a cold start takes its place"
                    .to_owned()
            }
            Self::OtherVersion => format!(
                ": another version of hearth made it; a cold start takes its place, `hearth snapshot \
                 rm {id}` removes it"
            ),
            Self::Once => format!(
                ": it was taken of a sandbox at work, which must not go on twice; `hearth snapshot rm \
                 {id}` removes it"
            ),
            Self::Mend => String::new(),
        }
    }
}

impl Refusal {
    /// With anything that has a text.
    pub(super) fn new(
        field: impl Into<String>,
        found: impl fmt::Display,
        expected: impl fmt::Display,
        remedy: Remedy,
    ) -> Self {
        Self {
            field: field.into(),
            found: found.to_string(),
            expected: expected.to_string(),
            remedy,
        }
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Size { found, most } => Self::new(
                "size of manifest.json",
                format!("{found} bytes or more"),
                format!("at most {most} bytes"),
                Remedy::Remove,
            ),
            ManifestError::Json(error) => {
                Self::new("manifest.json", error, "a manifest", Remedy::Remove)
            }
            ManifestError::Format { found, known } => Self::new(
                "format of manifest.json",
                format!("version {found}"),
                format!("version {known}"),
                Remedy::OtherVersion,
            ),
            ManifestError::Field {
                field,
                found,
                expected,
            } => Self::new(field, found, expected, Remedy::Remove),
        }
    }
}

impl SnapshotError {
    /// Of a call that failed.
    pub(super) fn io(path: &Path, what: &'static str, error: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.into(),
            what,
            error: error.into(),
        }
    }

    /// Of a write of `needs` bytes that failed: where there is no room, says how much is missing.
    pub(super) fn write(path: &Path, what: &'static str, needs: u64, error: Errno) -> Self {
        match error {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
                let at = path.parent().unwrap_or(path);
                let room = rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs(at));
                Self::Full {
                    path: path.into(),
                    what,
                    needs,
                    free: room.map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize)),
                }
            }
            error => Self::io(path, what, error),
        }
    }

    /// What tells failures of restores apart: the same word for the same failure. None where it says
    /// nothing of the snapshot.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Refused { refusal, .. } if refusal.remedy != Remedy::OtherHost => {
                Some(&refusal.field)
            }
            // What the medium or the file system has lost, not what the process lacks.
            Self::Io { what, error, .. }
                if [Errno::IO, Errno::UCLEAN, Errno::BADMSG]
                    .map(Errno::raw_os_error)
                    .map(Some)
                    .contains(&error.raw_os_error()) =>
            {
                Some(what)
            }
            _ => None,
        }
    }
}
