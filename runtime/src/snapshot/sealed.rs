//! Which files a snapshot's large parts are on this node. A restore has no time to read them: that
//! they are the very files that were read when it was published, unchanged since, must do.

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::error::{Refusal, Remedy};
use super::file::{self, Fault};
use super::folder::Folder;
use super::id::SnapshotId;

/// The file's name.
pub(super) const SEALED: &str = "sealed.json";
/// It has a tenth of it.
const MAX_SEALED: u64 = 4096;

/// The large files of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// Whose they are.
    pub(super) snapshot: SnapshotId,
    /// The memory.
    pub(super) memory: Record,
    /// The disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<Record>,
}

/// One file, as nothing but it is for as long as nobody writes to it, changes its mode or its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    device: u64,
    inode: u64,
    ctime_s: i64,
    ctime_ns: u64,
    bytes: u64,
}

impl Record {
    #[expect(
        clippy::allow_attributes,
        reason = "the types of these fields differ by architecture"
    )]
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    pub(super) fn of(status: &Stat) -> Self {
        Self {
            device: status.st_dev,
            inode: status.st_ino,
            ctime_s: status.st_ctime as i64,
            ctime_ns: status.st_ctime_nsec as u64,
            bytes: file::size(status),
        }
    }

    /// That `found` is the file of this record.
    pub(super) fn check(&self, name: &str, found: &Self) -> Result<(), Refusal> {
        let fields = [
            ("device", found.device.to_string(), self.device.to_string()),
            ("inode", found.inode.to_string(), self.inode.to_string()),
            ("size", found.bytes.to_string(), self.bytes.to_string()),
            ("ctime", found.ctime(), self.ctime()),
        ];
        for (field, found, expected) in fields {
            if found != expected {
                let field = format!("{field} of {name}");
                return Err(Refusal::new(field, found, expected, Remedy::Reseal));
            }
        }
        Ok(())
    }

    fn ctime(&self) -> String {
        format!("{}.{:09}", self.ctime_s, self.ctime_ns)
    }
}

impl Sealed {
    /// Reads it: that of `snapshot` and of no other.
    pub(super) fn read(folder: &Folder, snapshot: SnapshotId) -> Result<Self, Fault> {
        let bytes = file::read(folder, SEALED, MAX_SEALED)?;
        let refused = |field: &str, found: String, expected: String| {
            Fault::Refused(Refusal::new(field, found, expected, Remedy::Reseal))
        };
        let sealed: Self = serde_json::from_slice(&bytes)
            .map_err(|error| refused(SEALED, error.to_string(), "a record of files".to_owned()))?;
        if sealed.snapshot != snapshot {
            let (found, expected) = (sealed.snapshot.to_string(), snapshot.to_string());
            return Err(refused("snapshot in sealed.json", found, expected));
        }
        Ok(sealed)
    }

    /// As it is stored.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Numbers and an id: always JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
