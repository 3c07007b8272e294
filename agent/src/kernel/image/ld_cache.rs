//! `/etc/ld.so.cache`: where the dynamic linker finds libraries by name.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Root;

/// The largest cache that is read; a desktop's has 200 KB.
const MAX_BYTES: u64 = 16 << 20;
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64: u32 = 0x0303;

/// Library name to path beneath the root; empty if there is no cache.
pub(super) fn read(root: &Root) -> HashMap<String, PathBuf> {
    let Ok(file) = root.open("/etc/ld.so.cache".as_ref()) else {
        return HashMap::new();
    };
    if file.len() > MAX_BYTES {
        return HashMap::new();
    }
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
    if file.read(0, &mut bytes).is_err() {
        return HashMap::new();
    }
    parse(&bytes)
}

/// The entries for x86-64 that need no special CPU; the first of a name counts.
fn parse(bytes: &[u8]) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    let Some(cache) = new_format(bytes) else {
        return found;
    };
    let Some(count) = number(cache, 20) else {
        return found;
    };
    let entries = cache.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
    for entry in entries.take(count as usize) {
        let (Some(flags), Some(name), Some(path)) =
            (number(entry, 0), number(entry, 4), number(entry, 8))
        else {
            continue;
        };
        // Variants for newer CPUs come under the same name; the plain one is always there.
        let plain = entry
            .get(16..24)
            .is_some_and(|hwcap| hwcap.iter().all(|byte| *byte == 0));
        if flags != X86_64 || !plain {
            continue;
        }
        if let (Some(name), Some(path)) = (
            super::elf::name_at(cache, name),
            super::elf::name_at(cache, path),
        ) {
            found
                .entry(name.to_owned())
                .or_insert_with(|| PathBuf::from(path));
        }
    }
    found
}

/// The part in the present format; up to glibc 2.31 an older one stands before it.
fn new_format(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.starts_with(MAGIC) {
        return Some(bytes);
    }
    if !bytes.starts_with(OLD_MAGIC) {
        return None;
    }
    let count = number(bytes, 12)? as usize;
    let end = count
        .checked_mul(12)?
        .checked_add(16)?
        .checked_next_multiple_of(8)?;
    bytes.get(end..).filter(|rest| rest.starts_with(MAGIC))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*four))
}
