//! Reading all of a snapshot, as a restore has no time to.

use rustix::fs::fstat;

use super::error::{Refusal, Remedy, SnapshotError};
use super::file::{self, DISK, Fault, MEMORY};
use super::folder::Folder;
use super::manifest::{Manifest, Part};
use super::restore::{Held, state};
use super::sealed::{Record, SEALED, Sealed};
use super::store::{Snapshot, Store};

/// One whose content is what was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it is made of.
    pub manifest: Manifest,
    /// Its files are others than those that were known, and are now known.
    pub is_resealed: bool,
}

impl Store {
    /// Reads all of it, and compares it with its manifest. With `reseal`, files that are right, but
    /// not those that were known on this node (it was copied here, or the device has another number
    /// since the last boot), are from now on.
    pub fn verify(&self, snapshot: &Snapshot, reseal: bool) -> Result<Verified, SnapshotError> {
        let verified = self.read_all(snapshot, reseal);
        verified.map_err(|fault| fault.of(snapshot))
    }

    fn read_all(&self, snapshot: &Snapshot, reseal: bool) -> Result<Verified, Fault> {
        let Held {
            folder,
            manifest,
            memory,
        } = self.hold(snapshot)?;
        state(&folder, &manifest.state)?;
        let before = Record::of(&memory.1);
        let memory = content(&folder, MEMORY, &memory.0, &manifest.memory)?;
        let disk = match &manifest.disk {
            Some(part) => {
                let (file, _) = file::open(&folder, DISK)?;
                Some(content(&folder, DISK, &file, part)?)
            }
            None => None,
        };
        // What was written to while it was read may be anything.
        before.check(MEMORY, &memory)?;
        let now = Sealed {
            snapshot: snapshot.id,
            memory,
            disk,
        };
        let known = Sealed::read(&folder, snapshot.id).and_then(|known| {
            known.memory.check(MEMORY, &now.memory)?;
            match (&known.disk, &now.disk) {
                (Some(known), Some(now)) => Ok(known.check(DISK, now)?),
                (None, Some(_)) => {
                    Err(
                        Refusal::new("disk in sealed.json", "missing", "a record", Remedy::Reseal)
                            .into(),
                    )
                }
                (_, None) => Ok(()),
            }
        });
        let is_resealed = match known {
            Ok(()) => false,
            Err(Fault::Refused(refusal)) if reseal && refusal.remedy == Remedy::Reseal => {
                let _lock = self.lock()?;
                folder.replace(SEALED, &now.to_bytes())?;
                true
            }
            Err(fault) => return Err(fault),
        };
        Ok(Verified {
            manifest,
            is_resealed,
        })
    }
}

/// Reads a large file, and says which it is.
fn content(
    folder: &Folder,
    name: &str,
    file: &std::fs::File,
    part: &Part,
) -> Result<Record, Fault> {
    let path = folder.path().join(name);
    let read = file::digest(file).map_err(|error| SnapshotError::io(&path, "read", error))?;
    let (digest, bytes) = read;
    if bytes != part.bytes {
        let field = format!("size of {name}");
        return Err(Refusal::new(field, bytes, part.bytes, Remedy::Remove).into());
    }
    if digest != part.digest {
        let field = format!("digest of {name}");
        return Err(Refusal::new(field, digest, part.digest, Remedy::Remove).into());
    }
    let status = fstat(file).map_err(|error| folder.failed("look at", name, error))?;
    Ok(Record::of(&status))
}
