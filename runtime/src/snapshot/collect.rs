//! What is removed: what nobody uses, and nobody will.

use std::fs::File;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::SnapshotError;
use super::file::{self, MEMORY};
use super::folder::Folder;
use super::id::Key;
use super::manifest::Kind;
use super::step::step;
use super::store::{GONE, Lock, Snapshot, Store};

/// What came of removing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// These are gone.
    pub removed: Vec<Snapshot>,
    /// Bytes of the disk that they had.
    pub bytes: u64,
    /// These would be, but somebody uses them.
    pub in_use: Vec<Snapshot>,
}

impl Store {
    /// Removes, of each key, all but the `keep` newest templates and busy ones that can be restored, and
    /// what cannot be, but for the newest; all of a key that is not wanted any more. What somebody uses stays.
    pub fn gc(
        &self,
        keep: usize,
        is_wanted: &dyn Fn(&Key) -> bool,
    ) -> Result<Collected, SnapshotError> {
        let mut all = Collected::default();
        for key in self.keys()? {
            // Others may come in between.
            let lock = self.lock()?;
            let keep = if is_wanted(&key) { Some(keep) } else { None };
            all.add(self.collect_of(&lock, &key, keep)?);
        }
        Ok(all)
    }

    /// Removes one, unless somebody uses it. Says how many bytes of the disk it had.
    pub fn remove(&self, snapshot: &Snapshot) -> Result<u64, SnapshotError> {
        let lock = self.lock()?;
        match self.take_away(&lock, snapshot)? {
            Taken::Removed(bytes) => Ok(bytes),
            Taken::InUse => Err(SnapshotError::InUse(snapshot.id)),
            Taken::Gone => Err(SnapshotError::Gone(snapshot.id)),
        }
    }

    /// As [`gc`](Self::gc), of one key.
    pub(super) fn collect(
        &self,
        lock: &Lock,
        key: &Key,
        keep: usize,
    ) -> Result<Collected, SnapshotError> {
        self.collect_of(lock, key, Some(keep))
    }

    /// Sees to it that `needs` bytes more are within what there may be: first by removing old
    /// generations of the same key.
    pub(super) fn make_room(
        &self,
        lock: &Lock,
        key: &Key,
        needs: u64,
    ) -> Result<(), SnapshotError> {
        let most = self.bounds.bytes;
        let stored = self.stored()?;
        if stored.saturating_add(needs) <= most {
            return Ok(());
        }
        // Never the last one: that the new one takes its place is not certain yet.
        let keep = self.bounds.generations.saturating_sub(1).max(1);
        let freed = self.collect(lock, key, keep)?.bytes;
        let stored = stored.saturating_sub(freed);
        if stored.saturating_add(needs) <= most {
            return Ok(());
        }
        Err(SnapshotError::OverBudget {
            stored,
            needs,
            most,
        })
    }

    /// Bytes that all of them take on the disk.
    pub fn stored(&self) -> Result<u64, SnapshotError> {
        let mut stored = 0;
        for snapshot in self.all()? {
            stored += self.disk_bytes(&snapshot)?;
        }
        Ok(stored)
    }

    fn collect_of(
        &self,
        lock: &Lock,
        key: &Key,
        keep: Option<usize>,
    ) -> Result<Collected, SnapshotError> {
        let mut collected = Collected::default();
        let (mut templates, mut busy, mut others) = (0, 0, 0);
        for snapshot in self.of(key)? {
            if let Some(keep) = keep {
                let (count, most) = match self.good(&snapshot)? {
                    Some(Kind::Template) => (&mut templates, keep),
                    Some(Kind::Busy) => (&mut busy, keep),
                    None if self.is_used(&snapshot)? => (&mut others, 0),
                    // Somebody may want to see what is wrong with it.
                    None => (&mut others, 1),
                };
                *count += 1;
                if *count <= most {
                    continue;
                }
            }
            match self.take_away(lock, &snapshot)? {
                Taken::Removed(bytes) => {
                    collected.bytes += bytes;
                    collected.removed.push(snapshot);
                }
                Taken::InUse => collected.in_use.push(snapshot),
                Taken::Gone => {}
            }
        }
        Ok(collected)
    }

    /// Takes one out of its place, and then away: whoever comes finds all of it or nothing.
    fn take_away(&self, lock: &Lock, snapshot: &Snapshot) -> Result<Taken, SnapshotError> {
        let Some((of_key, own)) = self.any(snapshot)? else {
            return Ok(Taken::Gone);
        };
        // Held until it is gone: who opened it meanwhile sees that it must not use it.
        let memory = memory(&own)?;
        if let Some(memory) = &memory {
            let taken = file::take_it(memory);
            if !taken.map_err(|error| own.failed("lock", MEMORY, error))? {
                return Ok(Taken::InUse);
            }
        }
        let bytes = own.disk_bytes()?;
        let gone = format!("{GONE}{}", snapshot.id);
        self.root.destroy(&gone)?;
        step();
        of_key.rename(&snapshot.directory(), &self.root, &gone)?;
        step();
        of_key.sync()?;
        self.root.sync()?;
        self.root.destroy(&gone)?;
        self.tidy(lock, &snapshot.key.directory())?;
        Ok(Taken::Removed(bytes))
    }
}

enum Taken {
    Removed(u64),
    InUse,
    Gone,
}

impl Collected {
    fn add(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.bytes += other.bytes;
        self.in_use.extend(other.in_use);
    }
}

/// The file whose users count; none where it is not what it was, and so has none.
fn memory(folder: &Folder) -> Result<Option<File>, SnapshotError> {
    match folder.open(MEMORY, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(error) => Err(folder.failed("open", MEMORY, error)),
    }
}
