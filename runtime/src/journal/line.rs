//! The bytes of the file.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Lives};

/// Version of the format; a file of another one is not read.
pub(super) const VERSION: u32 = 1;
/// No line is longer: an entry has some 250 bytes.
const MAX_LINE: usize = 4096;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Version of the format.
    pub journal: u32,
    /// `/proc/sys/kernel/random/boot_id` of who wrote it.
    pub boot: Box<str>,
}

/// What a journal's bytes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub(super) header: Option<Header>,
    /// Lives that began and have not ended.
    pub lives: Lives,
    /// Lines that were torn or damaged, and so left out.
    pub damaged: u64,
}

/// Appends `content` as a line. It begins with the end of a line: what a former write may have
/// left unfinished stays a line of its own.
pub(super) fn write<T: Serialize>(content: &T, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let json = serde_json::to_string(content)?;
    out.extend_from_slice(
        format!("\n{:08x} {json}\n", crc32fast::hash(json.as_bytes())).as_bytes(),
    );
    Ok(())
}

/// Reads a journal, whatever its bytes are.
#[must_use]
pub fn read(bytes: &[u8]) -> Lines {
    let mut lines = Lines::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let Some(json) = checked(line) else {
            lines.damaged += 1;
            continue;
        };
        if lines.header.is_none()
            && let Ok(header) = serde_json::from_slice(json)
        {
            lines.header = Some(header);
        } else if let Ok(entry) = serde_json::from_slice::<Entry>(json) {
            lines.lives.apply(entry);
        } else {
            lines.damaged += 1;
        }
    }
    lines
}

/// The content of a line whose checksum is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    if line.len() > MAX_LINE {
        return None;
    }
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(json)).then_some(json)
}
