//! The directory of captures: each published whole or not at all, bounded in number and bytes.
//!
//! Everything happens beneath one open directory, by names without slashes and without following
//! links: whoever can put a link there gains nothing.

mod folder;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::format::{self, FormatError, HEADER_BYTES, MAX_BODY_BYTES};
use super::model::{Capture, CaptureId};
use folder::Folder;

/// What the names of captures end with.
const SUFFIX: &str = ".oom";
/// What the names of unfinished ones end with.
const UNFINISHED: &str = ".part";
/// Kills of one process in one millisecond that get names of their own.
const SAME_NAME: u32 = 16;

/// A store that cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory is a link.
    #[error(
        "the directory of captures {} is a symbolic link, or no directory; captures are secrets \
         and follow none: name the directory itself in oom.dir", .0.display()
    )]
    Link(PathBuf),
    /// Others can look into it.
    #[error(
        "the directory of captures {0} is open to others (owner {owner}, mode {mode:04o}), and \
         captures hold command lines and memory; make it ours alone: \
         chown {me} {0} && chmod 700 {0}", path.display()
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
    /// Another agent writes there.
    #[error(
        "another hearth writes captures to {}; give each its own oom.dir", .0.display()
    )]
    Busy(PathBuf),
    /// A capture that cannot be encoded or decoded.
    #[error("the capture {id}: {source}")]
    Format {
        /// Which.
        id: CaptureId,
        /// Why.
        source: FormatError,
    },
    /// One capture is larger than all may be.
    #[error("the capture {id} has {bytes} bytes, and all may have {max}: raise oom.max_bytes")]
    TooLarge {
        /// Which.
        id: CaptureId,
        /// Its length.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// No such capture.
    #[error("there is no capture {id} in {}; `hearth oom list` shows those there are", dir.display())]
    None {
        /// Which.
        id: CaptureId,
        /// Where.
        dir: PathBuf,
    },
    /// Too many kills with one name.
    #[error("{SAME_NAME} captures are named like {0} already")]
    SameName(CaptureId),
}

impl StoreError {
    /// A word for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk_full",
                _ => "io",
            },
            Self::Link(_) | Self::Open { .. } => "unsafe_directory",
            Self::Busy(_) => "busy",
            Self::Format { .. } | Self::None { .. } | Self::SameName(_) => "format",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// What may be in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Captures.
    pub captures: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What a store did to remain what it should be; totals since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Captures that went because there were too many or they were too large.
    pub evicted: u64,
    /// Unfinished ones, left by an agent that died, that were removed.
    pub unfinished: u64,
}

/// The directory, with the right to write to it.
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    bounds: Bounds,
    /// Bytes by name: the names sort by age.
    files: BTreeMap<String, u64>,
    counts: StoreCounts,
}

impl Store {
    /// Opens (and makes) `dir`, and removes what an agent that died left unfinished.
    pub fn open(dir: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        let folder = Folder::make(dir)?;
        folder.lock()?;
        let mut store = Self {
            folder,
            bounds,
            files: BTreeMap::new(),
            counts: StoreCounts::default(),
        };
        for name in store.folder.names()? {
            let Some(bytes) = store.folder.bytes(&name) else {
                continue;
            };
            if name.starts_with('.') && name.ends_with(UNFINISHED) {
                store.folder.remove(&name)?;
                store.counts.unfinished += 1;
            } else if id_of(&name).is_some() {
                store.files.insert(name, bytes);
            }
        }
        store.make_room(0)?;
        Ok(store)
    }

    /// Publishes `capture`, under another name where its own is taken; the oldest go first to make
    /// room for it.
    pub fn keep(&mut self, capture: &mut Capture) -> Result<(), StoreError> {
        let id = self.free_name(&capture.id)?;
        capture.id = id;
        let id = &capture.id;
        let bytes = format::encode(capture).map_err(|source| StoreError::Format {
            id: id.clone(),
            source,
        })?;
        let length = bytes.len() as u64;
        if length > self.bounds.bytes {
            return Err(StoreError::TooLarge {
                id: id.clone(),
                bytes: length,
                max: self.bounds.bytes,
            });
        }
        self.make_room(length)?;
        let name = format!("{id}{SUFFIX}");
        self.folder
            .publish(&name, &format!(".{id}{UNFINISHED}"), &bytes)?;
        self.files.insert(name, length);
        Ok(())
    }

    /// What it did so far.
    #[must_use]
    pub const fn counts(&self) -> StoreCounts {
        self.counts
    }

    /// How many captures and bytes there are.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        (self.files.len(), self.files.values().sum())
    }

    fn free_name(&self, id: &CaptureId) -> Result<CaptureId, StoreError> {
        let others = (2..=SAME_NAME).map(|n| id.again(n));
        let mut names = std::iter::once(id.clone()).chain(others);
        let free = names.find(|id| !self.files.contains_key(&format!("{id}{SUFFIX}")));
        free.ok_or_else(|| StoreError::SameName(id.clone()))
    }

    /// Removes the oldest until one of `more` bytes fits (or, of 0, until the bounds hold).
    fn make_room(&mut self, more: u64) -> Result<(), StoreError> {
        let one = usize::from(more > 0);
        let mut total = self.files.values().sum::<u64>().saturating_add(more);
        while self.files.len() + one > self.bounds.captures || total > self.bounds.bytes {
            let Some((name, bytes)) = self.files.pop_first() else {
                break;
            };
            self.folder.remove(&name)?;
            total -= bytes;
            self.counts.evicted += 1;
        }
        Ok(())
    }
}

/// The directory, to look at: beside an agent that writes, and without its bounds.
#[derive(Debug)]
pub struct Captures {
    folder: Folder,
}

impl Captures {
    /// Opens `dir`.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            folder: Folder::open(dir)?,
        })
    }

    /// The names, newest first.
    pub fn ids(&self) -> Result<VecDeque<CaptureId>, StoreError> {
        let mut ids: Vec<_> = self
            .folder
            .names()?
            .iter()
            .filter_map(|name| id_of(name))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids.into())
    }

    /// One capture.
    pub fn read(&self, id: &CaptureId) -> Result<Capture, StoreError> {
        let name = format!("{id}{SUFFIX}");
        let file = self.folder.read(&name)?.ok_or_else(|| StoreError::None {
            id: id.clone(),
            dir: self.folder.path().to_owned(),
        })?;
        let mut bytes = Vec::new();
        // One byte more than the longest, so that a longer one is told from it.
        let most = HEADER_BYTES + MAX_BODY_BYTES + 1;
        file.take(most as u64)
            .read_to_end(&mut bytes)
            .map_err(|source| self.folder.failed("read", &name, source))?;
        format::decode(&bytes).map_err(|source| StoreError::Format {
            id: id.clone(),
            source,
        })
    }
}

/// The capture whose file has this name.
fn id_of(name: &str) -> Option<CaptureId> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests;
