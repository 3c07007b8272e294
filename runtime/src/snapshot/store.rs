//! The directory of all snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::draft::UNFINISHED;
use super::error::SnapshotError;
use super::file::{self, Fault, MANIFEST};
use super::folder::Folder;
use super::id::{Generation, Key, SnapshotId};
use super::manifest::{Kind, MAX_MANIFEST, Manifest};
use super::restore::USED;

/// What the names of snapshots begin with that are being removed.
pub(super) const GONE: &str = ".gone-";
const LOCK: &str = "lock";
/// Nobody holds the lock for longer: large files are written and read before it is taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Templates of one key that can be restored, and as many busy ones; older ones are removed.
    pub generations: usize,
    /// Bytes on disk of all snapshots.
    pub bytes: u64,
    /// Restores of one that fail the same way before it is not restored any more.
    pub failures: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            generations: 2,
            bytes: 16 << 30,
            failures: 3,
        }
    }
}

/// The snapshots in one directory. Several processes may have it open, and several threads.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) root: Arc<Folder>,
    pub(super) bounds: Bounds,
}

/// One that was published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of what.
    pub key: Key,
    /// Which of these.
    pub generation: Generation,
    /// Its id.
    pub id: SnapshotId,
}

/// The right to change what there is, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(
    #[expect(dead_code, reason = "held, and given back when closed")] std::os::fd::OwnedFd,
);

impl Store {
    /// Opens the directory, made where it is not there, and removes what publishers and removers
    /// left that were killed.
    pub fn open(directory: &Path, bounds: Bounds) -> Result<Self, SnapshotError> {
        let store = Self {
            root: Arc::new(Folder::root(directory)?),
            bounds,
        };
        store.sweep()?;
        Ok(store)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// All that there are, by key, the newest generation first.
    pub fn all(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut all = Vec::new();
        for key in self.keys()? {
            all.extend(self.of(&key)?);
        }
        Ok(all)
    }

    /// Those of one key, the newest generation first.
    pub fn of(&self, key: &Key) -> Result<Vec<Snapshot>, SnapshotError> {
        let Some(folder) = self.root.any(&key.directory())? else {
            return Ok(Vec::new());
        };
        let names = folder.names()?;
        let mut snapshots: Vec<Snapshot> = names
            .iter()
            .filter_map(|name| {
                let (generation, id) = Generation::of_directory(name)?;
                let key = key.clone();
                Some(Snapshot {
                    key,
                    generation,
                    id,
                })
            })
            .collect();
        snapshots.sort_unstable_by(|a, b| b.cmp(a));
        Ok(snapshots)
    }

    /// The newest template of `key` that is good by all that is known without reading its large files.
    /// Busy ones are for whoever knows what they were at work on.
    pub fn newest(&self, key: &Key) -> Result<Option<Snapshot>, SnapshotError> {
        for snapshot in self.of(key)? {
            if self.good(&snapshot)? == Some(Kind::Template) {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    /// The one with this id.
    pub fn find(&self, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        let found = self.all()?.into_iter().find(|snapshot| snapshot.id == id);
        found.ok_or(SnapshotError::Gone(id))
    }

    /// What one is made of.
    pub fn manifest(&self, snapshot: &Snapshot) -> Result<Manifest, SnapshotError> {
        let read = self
            .folder(snapshot)
            .and_then(|(_, folder)| manifest(&folder, snapshot));
        read.map_err(|fault| fault.of(snapshot))
    }

    /// Bytes that one takes on the disk.
    pub fn disk_bytes(&self, snapshot: &Snapshot) -> Result<u64, SnapshotError> {
        match self.any(snapshot)? {
            Some((_, folder)) => folder.disk_bytes(),
            None => Ok(0),
        }
    }

    /// Whether a busy one was restored, and so is used up.
    pub fn is_used(&self, snapshot: &Snapshot) -> Result<bool, SnapshotError> {
        match self.any(snapshot)? {
            Some((_, folder)) => folder.is_there(USED),
            None => Ok(true),
        }
    }

    /// Of what kind it is; none where it is in quarantine, used up or has another manifest than it was
    /// published with.
    pub(super) fn good(&self, snapshot: &Snapshot) -> Result<Option<Kind>, SnapshotError> {
        if self.failures(snapshot)?.quarantined.is_some() || self.is_used(snapshot)? {
            return Ok(None);
        }
        match self.manifest(snapshot) {
            Ok(manifest) => Ok(Some(manifest.kind)),
            Err(SnapshotError::Refused { .. } | SnapshotError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn keys(&self) -> Result<Vec<Key>, SnapshotError> {
        let names = self.root.names()?;
        let mut keys: Vec<Key> = names
            .iter()
            .filter_map(|name| Key::of_directory(name))
            .collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// The directories of its key and of itself, which must be as they were made.
    pub(super) fn folder(&self, snapshot: &Snapshot) -> Result<(Folder, Folder), Fault> {
        let of_key = self.root.inner(&snapshot.key.directory())?;
        let own = of_key.inner(&snapshot.directory())?;
        Ok((of_key, own))
    }

    /// The directories of its key and of itself, however they are; none where it is not there.
    pub(super) fn any(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Option<(Folder, Folder)>, SnapshotError> {
        let Some(of_key) = self.root.any(&snapshot.key.directory())? else {
            return Ok(None);
        };
        let own = of_key.any(&snapshot.directory())?;
        Ok(own.map(|own| (of_key, own)))
    }

    /// Waits until nobody else changes what there is. Each holder has its own descriptor, so that
    /// threads exclude each other, too.
    pub(super) fn lock(&self) -> Result<Lock, SnapshotError> {
        let lock = self
            .root
            .open(LOCK, OFlags::RDWR | OFlags::CREATE)
            .map_err(|error| self.root.failed("open", LOCK, error))?;
        let begin = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(lock)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(self.root.failed("lock", LOCK, error)),
            }
            if begin.elapsed() > PATIENCE {
                return Err(SnapshotError::Busy {
                    path: self.root.path().join(LOCK),
                    seconds: PATIENCE.as_secs(),
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes what was left half made or half removed by somebody who is gone.
    fn sweep(&self) -> Result<(), SnapshotError> {
        let lock = self.lock()?;
        for name in self.root.names()? {
            if name.starts_with(GONE) {
                self.root.destroy(&name)?;
            } else if name.starts_with(UNFINISHED) {
                // Its maker took this lock before it let go of the store's.
                let is_made = match self.root.any(&name)? {
                    Some(folder) => {
                        match flock(folder.fd(), FlockOperation::NonBlockingLockExclusive) {
                            Ok(()) => false,
                            Err(Errno::WOULDBLOCK) => true,
                            Err(error) => return Err(self.root.failed("lock", &name, error)),
                        }
                    }
                    None => false,
                };
                if !is_made {
                    self.root.destroy(&name)?;
                }
            } else if Key::of_directory(&name).is_some() {
                self.tidy(&lock, &name)?;
            }
        }
        Ok(())
    }

    /// Removes the directory of a key where nothing is in it.
    pub(super) fn tidy(&self, _lock: &Lock, of_key: &str) -> Result<(), SnapshotError> {
        let is_empty = match self.root.any(of_key)? {
            Some(folder) => folder.names()?.is_empty(),
            None => false,
        };
        if is_empty {
            self.root.remove(of_key)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// The name of its directory in that of its key.
    pub(super) fn directory(&self) -> String {
        self.generation.directory(self.id)
    }

    /// Where it is in a store at `directory`.
    #[must_use]
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.key.directory()).join(self.directory())
    }
}

/// Reads the manifest of `snapshot`: of this id, and in the place that it says.
pub(super) fn manifest(folder: &Folder, snapshot: &Snapshot) -> Result<Manifest, Fault> {
    use super::error::{Refusal, Remedy};
    let bytes = file::read(folder, MANIFEST, MAX_MANIFEST)?;
    let refused = |field: &str, found: String, expected: String| {
        Fault::Refused(Refusal::new(field, found, expected, Remedy::Remove))
    };
    // Before anything in it is believed.
    let found = SnapshotId::of_manifest(&bytes);
    if found != snapshot.id {
        let expected = snapshot.id.to_string();
        return Err(refused(
            "digest of manifest.json",
            found.to_string(),
            expected,
        ));
    }
    let manifest = Manifest::parse(&bytes).map_err(Refusal::from)?;
    if manifest.key != snapshot.key {
        let (found, expected) = (manifest.key.directory(), snapshot.key.directory());
        return Err(refused("key", found, expected));
    }
    if manifest.generation != snapshot.generation {
        let found = manifest.generation.to_string();
        return Err(refused(
            "generation",
            found,
            snapshot.generation.to_string(),
        ));
    }
    Ok(manifest)
}
