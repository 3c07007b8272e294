//! The directory of captures: each published whole or not at all, bounded in number and bytes.
//!
//! Everything happens beneath one open directory, by names without slashes and without following
//! links: whoever can put a link there gains nothing.

mod folder;
mod note;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::format::{self, FormatError, HEADER_BYTES, MAX_BODY_BYTES};
use super::model::{Capture, CaptureId};
use folder::Folder;
use note::{Kill, kill_of};
pub use note::{Left, Note};

/// What the names of captures end with.
const SUFFIX: &str = ".oom";
/// What the names of notes end with: there was a kill, whose capture is on its way.
const NOTE: &str = ".part";
/// What the names of captures end with while they are written.
const UNFINISHED: &str = ".whole";
/// Notes at a time, the oldest go first: more than there are captures on their way.
const NOTES: usize = 2048;
/// Kills of one process in one millisecond that get names of their own.
const SAME_NAME: u32 = 16;

/// A store that cannot be used. Each says all of it in its own text, and none has a source: who
/// prints it with its sources would say that twice.
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
    #[error("the capture {id}: {error}")]
    Format {
        /// Which.
        id: CaptureId,
        /// Why.
        error: FormatError,
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
            Self::Io { error, .. } => match error.kind() {
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
    notes: Notes,
    /// What was found when it was opened.
    left: Vec<Left>,
    counts: StoreCounts,
}

/// Kills that are noted, with the names that their captures are to have.
pub type Notes = BTreeMap<Kill, CaptureId>;

impl Store {
    /// Opens (and makes) `dir`, and removes what an agent that died left unfinished. `notes` are
    /// those of our own, where it was open before.
    pub fn open(dir: &Path, bounds: Bounds, notes: Notes) -> Result<Self, StoreError> {
        let folder = Folder::make(dir)?;
        folder.lock()?;
        let mut store = Self {
            folder,
            bounds,
            files: BTreeMap::new(),
            notes,
            left: Vec::new(),
            counts: StoreCounts::default(),
        };
        let mut unfinished = BTreeSet::new();
        for name in store.folder.names()? {
            let Some(bytes) = store.folder.bytes(&name) else {
                continue;
            };
            if let Some(id) = unfinished_id_of(&name) {
                unfinished.insert(id.to_owned());
            } else if id_of(&name).is_some() {
                store.files.insert(name, bytes);
            }
        }
        for name in unfinished {
            store.clear(name)?;
        }
        store.make_room(0)?;
        Ok(store)
    }

    /// Removes what an agent that died left of the capture `name`.
    fn clear(&mut self, name: String) -> Result<(), StoreError> {
        let [note, unfinished] = [NOTE, UNFINISHED].map(|suffix| format!(".{name}{suffix}"));
        self.folder.remove(&unfinished)?;
        if self.notes.values().any(|id| id.as_str() == name) {
            return Ok(());
        }
        let read = self.read_note(&note);
        self.folder.remove(&note)?;
        // Where the capture is there, the agent died before it could remove the note.
        if !self.files.contains_key(&format!("{name}{SUFFIX}")) {
            self.counts.unfinished += 1;
            self.left.push(Left { name, note: read });
        }
        Ok(())
    }

    fn read_note(&self, name: &str) -> Option<Note> {
        let file = self.folder.read(name).ok().flatten()?;
        serde_json::from_reader(file.take(note::MAX_BYTES)).ok()
    }

    /// Notes that there was a kill, until its capture is kept or cannot be. Not synced: that is
    /// for the death of the agent, not of the node.
    pub fn note(&mut self, note: &Note) -> Result<(), StoreError> {
        if self.notes.contains_key(&note.kill()) {
            return Ok(());
        }
        let id = self.free_name(&note.id())?;
        let bytes = serde_json::to_vec(note).map_err(|error| StoreError::Format {
            id: id.clone(),
            error: error.into(),
        })?;
        if self.notes.len() >= NOTES
            && let Some((_, oldest)) = self.notes.pop_first()
        {
            self.folder.remove(&format!(".{oldest}{NOTE}"))?;
        }
        self.folder.write_new(&format!(".{id}{NOTE}"), &bytes)?;
        self.notes.insert(note.kill(), id);
        Ok(())
    }

    /// Publishes `capture`, under another name where its own is taken; the oldest go first to make
    /// room for it. Its note goes, either way: whoever could not keep it says so.
    pub fn keep(&mut self, capture: &mut Capture) -> Result<(), StoreError> {
        let noted = self.notes.remove(&kill_of(capture));
        let named = match &noted {
            Some(id) => Ok(id.clone()),
            None => self.free_name(&capture.id),
        };
        let kept = named.and_then(|id| {
            capture.id = id;
            self.publish(capture)
        });
        if let Some(id) = noted {
            // What is left goes at the next start at the latest.
            let _ = self.folder.remove(&format!(".{id}{NOTE}"));
        }
        kept
    }

    fn publish(&mut self, capture: &Capture) -> Result<(), StoreError> {
        let id = &capture.id;
        let bytes = format::encode(capture).map_err(|error| StoreError::Format {
            id: id.clone(),
            error,
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

    /// What an agent that died had left when this was opened.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        &self.left
    }

    /// Closes it. The notes stay, for it to be opened again with.
    #[must_use]
    pub fn close(self) -> (Notes, StoreCounts) {
        (self.notes, self.counts)
    }

    /// Removes the notes: their captures will not come, and that is counted.
    pub fn end(self) {
        for id in self.notes.values() {
            // What is left goes at the next start.
            let _ = self.folder.remove(&format!(".{id}{NOTE}"));
        }
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
        let is_taken = |id: &CaptureId| {
            let is_noted = self.notes.values().any(|noted| noted == id);
            is_noted || self.files.contains_key(&format!("{id}{SUFFIX}"))
        };
        let free = names.find(|id| !is_taken(id));
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
        format::decode(&bytes).map_err(|error| StoreError::Format {
            id: id.clone(),
            error,
        })
    }
}

/// Name of the capture of which a file with this name is what is there before it is finished.
fn unfinished_id_of(name: &str) -> Option<&str> {
    let name = name.strip_prefix('.')?;
    name.strip_suffix(NOTE)
        .or_else(|| name.strip_suffix(UNFINISHED))
}

/// The capture whose file has this name.
fn id_of(name: &str) -> Option<CaptureId> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests;
