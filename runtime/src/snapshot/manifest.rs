//! The manifest: what a snapshot is made of. It never changes, and its digest is the snapshot's id.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::id::{Digest, Generation, Key};

/// Version of the format; another one is refused.
pub(super) const FORMAT: u32 = 1;
/// Bytes that a manifest may have.
pub const MAX_MANIFEST: u64 = 64 << 10;
/// Bytes that a state may have: it is read as a whole at each restore.
pub const MAX_STATE: u64 = 16 << 20;
/// Bytes of memory or of a disk.
const MAX_LARGE: u64 = 1 << 40;
/// Regions of memory.
const MAX_REGIONS: usize = 64;
/// Bytes of the producer's name.
const MAX_PRODUCER: usize = 64;
/// The end of the year 9999: a later time has no text.
const MAX_TIME: u64 = 253_402_300_799_999;
/// What memory is made of.
const PAGE: u64 = 4096;

/// What a snapshot is made of, and where it can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Whose it is.
    pub key: Key,
    /// Which of its snapshots.
    pub generation: Generation,
    /// Before any request, or in the middle of one.
    pub kind: Kind,
    /// When it was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What took it, with its version.
    pub producer: String,
    /// Version of the state's own format.
    pub state_format: u32,
    /// The processor that the guest saw.
    pub cpu: Cpu,
    /// Where in the guest the memory is, in the order of the file.
    pub regions: Vec<Region>,
    /// Processor and devices.
    pub state: Part,
    /// The guest's memory, laid out as it was.
    pub memory: Part,
    /// Its writable layer, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Part>,
}

/// When a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Before any request: any number of sandboxes can begin with it.
    Template,
    /// Of a sandbox that had work: it goes on once, or what it did is done twice.
    Busy,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Of all of its bytes.
    pub digest: Digest,
    /// How many these are.
    pub bytes: u64,
}

/// Memory in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Where the guest has it.
    pub guest: u64,
    /// Where the file has it.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// Bytes that are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Too many.
    #[error("it has {found} bytes or more; a manifest has at most {most}")]
    Size {
        /// How many there are.
        found: u64,
        /// How many there may be.
        most: u64,
    },
    /// No JSON, or not of this form.
    #[error("it is no manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("its format is version {found}; this hearth knows version {known}")]
    Format {
        /// That which it says.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A field has a value that cannot be.
    #[error("{field} is {found}, and must be {expected}")]
    Field {
        /// Which.
        field: String,
        /// What it has.
        found: String,
        /// What it could have.
        expected: String,
    },
}

impl Manifest {
    /// Reads one, whatever the bytes are.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        /// All that must be there in every version.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let found = bytes.len() as u64;
        if found > MAX_MANIFEST {
            return Err(ManifestError::Size {
                found,
                most: MAX_MANIFEST,
            });
        }
        let versioned: Versioned = serde_json::from_slice(bytes)?;
        if versioned.format != FORMAT {
            return Err(ManifestError::Format {
                found: versioned.format,
                known: FORMAT,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Bytes of all files that it names.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let disk = self.disk.map_or(0, |disk| disk.bytes);
        self.state.bytes + self.memory.bytes + disk
    }

    /// That no value is one that makes trouble for who believes it.
    fn check(&self) -> Result<(), ManifestError> {
        within("generation", self.generation.0, 1, u64::MAX)?;
        within("created_unix_ms", self.created_unix_ms, 0, MAX_TIME)?;
        within("state.bytes", self.state.bytes, 1, MAX_STATE)?;
        within("memory.bytes", self.memory.bytes, PAGE, MAX_LARGE)?;
        if let Some(disk) = &self.disk {
            within("disk.bytes", disk.bytes, 1, MAX_LARGE)?;
        }
        let producer = &self.producer;
        if producer.len() > MAX_PRODUCER || producer.chars().any(char::is_control) {
            let found = format!("{:?}", producer.chars().take(80).collect::<String>());
            return Err(field("producer", &found, &"a name of at most 64 bytes"));
        }
        if !self.cpu.is_bounded() {
            return Err(field(
                "cpu",
                &"too long, or has names that are no names",
                &"a vendor and at most 64 words, with names of up to 32 characters",
            ));
        }
        self.check_regions()
    }

    /// The regions are the file's pages, one after the other, and do not meet in the guest.
    fn check_regions(&self) -> Result<(), ManifestError> {
        within(
            "number of regions",
            self.regions.len() as u64,
            1,
            MAX_REGIONS as u64,
        )?;
        let (mut offset, mut guest) = (0, 0);
        for (index, region) in self.regions.iter().enumerate() {
            let name = |what| format!("regions[{index}].{what}");
            if region.bytes == 0 || region.bytes % PAGE != 0 || region.bytes > MAX_LARGE {
                let most = format!("1 to {MAX_LARGE} bytes, in pages of {PAGE}");
                return Err(field(name("bytes"), &region.bytes, &most));
            }
            if region.offset != offset {
                return Err(field(name("offset"), &region.offset, &offset));
            }
            // Sums of at most 64 sizes of at most 2^40.
            offset += region.bytes;
            if region.guest < guest || region.guest % PAGE != 0 {
                let least = format!("at least {guest}, at a page");
                return Err(field(name("guest"), &region.guest, &least));
            }
            guest = match region.guest.checked_add(region.bytes) {
                Some(end) => end,
                None => {
                    return Err(field(
                        name("guest"),
                        &region.guest,
                        &"where its end is an address",
                    ));
                }
            };
        }
        if offset != self.memory.bytes {
            return Err(field("memory.bytes", &self.memory.bytes, &offset));
        }
        Ok(())
    }
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), ManifestError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(field(name, &value, &format!("{least} to {most}")))
}

fn field(field: impl Into<String>, found: &dyn Display, expected: &dyn Display) -> ManifestError {
    ManifestError::Field {
        field: field.into(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}
