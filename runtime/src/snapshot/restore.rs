//! What a sandbox is restored from: opened only as it was published, and held while it is used.

use std::fs::File;
use std::io::Read as _;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::cpu::Cpu;
use super::error::{Refusal, Remedy, SnapshotError};
use super::file::{self, DISK, Fault, MEMORY, STATE};
use super::folder::Folder;
use super::id::{Digest, Key};
use super::manifest::{Kind, Manifest, Part};
use super::sealed::{Record, Sealed};
use super::store::{Snapshot, Store, manifest};

/// Says of a busy one that it was restored.
pub(super) const USED: &str = "used";

/// Where a state is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What its processor can show to a guest.
    pub cpu: Cpu,
    /// The version of the state's format that is understood.
    pub state_format: u32,
}

/// All that a sandbox is restored from. Nobody removes it while `memory` is open in any process, or
/// mapped in one.
#[derive(Debug)]
pub struct Opened {
    /// Which.
    pub snapshot: Snapshot,
    /// What it is made of.
    pub manifest: Manifest,
    /// The guest's memory, for reading.
    pub memory: File,
    /// Processor and devices, as they were.
    pub state: Vec<u8>,
    /// The guest's writable layer, for reading.
    pub disk: Option<File>,
}

/// One that is held, and whose small files were read.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) folder: Folder,
    pub(super) manifest: Manifest,
    pub(super) memory: (File, Stat),
}

impl Store {
    /// Opens one for a restore here: as it was published, by its manifest, the digest of its state and
    /// the record of its large files, which are not read. One that is busy is used up by this.
    pub fn restore(&self, snapshot: &Snapshot, host: &Host) -> Result<Opened, SnapshotError> {
        let opened = self.open_for(snapshot, host);
        opened.map_err(|fault| fault.of(snapshot))
    }

    /// Opens the newest template of `key` that can be restored here. What is refused on the way there is
    /// told, and noted so that it is not tried for ever. None where there is none: what is left is a
    /// start.
    pub fn restore_newest(
        &self,
        key: &Key,
        host: &Host,
        refused: &mut dyn FnMut(&Snapshot, &SnapshotError),
    ) -> Result<Option<Opened>, SnapshotError> {
        for snapshot in self.of(key)? {
            let opened = self.open_template(&snapshot, host);
            match opened.map_err(|fault| fault.of(&snapshot)) {
                Ok(Some(opened)) => return Ok(Some(opened)),
                Ok(None) => {}
                Err(error) => {
                    refused(&snapshot, &error);
                    let noted = error.failure().map(|way| self.failed(&snapshot, way));
                    // That it cannot be noted keeps nobody from the older one.
                    if let Some(Err(error)) = noted {
                        refused(&snapshot, &error);
                    }
                }
            }
        }
        Ok(None)
    }

    /// As [`restore`](Self::restore); none where it is not to be tried.
    fn open_template(&self, snapshot: &Snapshot, host: &Host) -> Result<Option<Opened>, Fault> {
        if self.failures(snapshot)?.quarantined.is_some() {
            return Ok(None);
        }
        let held = self.hold(snapshot)?;
        if held.manifest.kind == Kind::Busy {
            return Ok(None);
        }
        Self::open_held(held, snapshot, host).map(Some)
    }

    fn open_for(&self, snapshot: &Snapshot, host: &Host) -> Result<Opened, Fault> {
        let held = self.hold(snapshot)?;
        if let Some(why) = self.failures(snapshot)?.quarantined {
            let found = format!("there, for its restores failed: {why}");
            return Err(Refusal::new("quarantine", found, "absent", Remedy::Older).into());
        }
        Self::open_held(held, snapshot, host)
    }

    fn open_held(held: Held, snapshot: &Snapshot, host: &Host) -> Result<Opened, Fault> {
        let Held {
            folder,
            manifest,
            memory,
        } = held;
        if manifest.state_format != host.state_format {
            let (found, expected) = (manifest.state_format, host.state_format);
            return Err(Refusal::new("state_format", found, expected, Remedy::OtherVersion).into());
        }
        manifest.cpu.check(&host.cpu)?;
        let sealed = Sealed::read(&folder, snapshot.id)?;
        check(MEMORY, &memory.1, &manifest.memory, &sealed.memory)?;
        let disk = match (&manifest.disk, &sealed.disk) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Refusal::new(
                    "disk in sealed.json",
                    "missing",
                    "a record",
                    Remedy::Reseal,
                )
                .into());
            }
            (Some(part), Some(record)) => {
                let (file, status) = file::open(&folder, DISK)?;
                check(DISK, &status, part, record)?;
                Some(file)
            }
        };
        let state = state(&folder, &manifest.state)?;
        if manifest.kind == Kind::Busy {
            use_up(&folder)?;
        }
        Ok(Opened {
            snapshot: snapshot.clone(),
            manifest,
            memory: memory.0,
            state,
            disk,
        })
    }

    /// Becomes one of its users.
    pub(super) fn hold(&self, snapshot: &Snapshot) -> Result<Held, Fault> {
        let (of_key, folder) = self.folder(snapshot)?;
        hold(&of_key, folder, snapshot)
    }
}

/// Becomes a user of what is in `folder`. What is being removed is gone, whatever of it is still there.
pub(super) fn hold(of_key: &Folder, folder: Folder, snapshot: &Snapshot) -> Result<Held, Fault> {
    let read = || {
        let (memory, status) = file::open(&folder, MEMORY)?;
        let is_ours = file::use_it(&memory);
        if !is_ours.map_err(|error| folder.failed("lock", MEMORY, error))? {
            return Err(Fault::Gone);
        }
        Ok((manifest(&folder, snapshot)?, (memory, status)))
    };
    let read = read();
    // Once it is locked nobody removes it; before that somebody may have.
    if !of_key.has(&snapshot.directory(), &folder) {
        return Err(Fault::Gone);
    }
    let (manifest, memory) = read?;
    Ok(Held {
        folder,
        manifest,
        memory,
    })
}

/// That a large file is what was published, as far as that shows without reading it.
fn check(name: &str, status: &Stat, part: &Part, record: &Record) -> Result<(), Refusal> {
    let found = file::size(status);
    if found != part.bytes {
        let field = format!("size of {name}");
        return Err(Refusal::new(field, found, part.bytes, Remedy::Remove));
    }
    record.check(name, &Record::of(status))
}

/// The state, whose size and digest are those of the manifest.
pub(super) fn state(folder: &Folder, part: &Part) -> Result<Vec<u8>, Fault> {
    let (file, status) = file::open(folder, STATE)?;
    let found = file::size(&status);
    if found != part.bytes {
        return Err(Refusal::new("size of state", found, part.bytes, Remedy::Remove).into());
    }
    let mut state = Vec::with_capacity(usize::try_from(found).unwrap_or_default() + 1);
    let read = file.take(part.bytes).read_to_end(&mut state);
    read.map_err(|error| SnapshotError::io(&folder.path().join(STATE), "read", error))?;
    let digest = Digest::of(&state);
    if digest != part.digest {
        return Err(Refusal::new("digest of state", digest, part.digest, Remedy::Remove).into());
    }
    Ok(state)
}

/// Says, on disk, that it was restored; refuses where that was said before.
fn use_up(folder: &Folder) -> Result<(), Fault> {
    use rustix::fs::OFlags;
    match folder.open(USED, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
        Ok(_) => Ok(folder.sync()?),
        Err(Errno::EXIST) => {
            Err(Refusal::new("restores of a busy snapshot", "1", "0", Remedy::Once).into())
        }
        Err(error) => {
            let path = folder.path().join(USED);
            Err(SnapshotError::write(&path, "note that it is restored", 4096, error).into())
        }
    }
}
