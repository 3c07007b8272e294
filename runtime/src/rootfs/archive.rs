//! The entries of a tar archive, with what stands in records before them, and bounded memory.
//!
//! The `tar` crate reads headers; its own way with long names and PAX records reads these as a
//! whole, whatever size they claim.

use std::borrow::Cow;
use std::io::{self, Read};

use tar::{EntryType, PaxExtensions};

/// Bytes of a long name or of PAX records.
const MAX_EXTENSION: u64 = 64 * 1024;

/// What the next entry has that does not fit into its header.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// One entry.
pub(super) struct Entry<'a, R: Read> {
    pub(super) path: Vec<u8>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) content: tar::Entry<'a, R>,
}

/// Calls `each` with every entry, in order.
pub(super) fn entries<R: Read, E: From<io::Error>>(
    bytes: R,
    mut each: impl FnMut(Entry<'_, R>) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(bytes);
    let mut extension = Extension::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => extension.path = Some(text(&mut entry)?),
            EntryType::GNULongLink => extension.link = Some(text(&mut entry)?),
            EntryType::XHeader => pax(&read(&mut entry)?, &mut extension)?,
            // Records for all that follows: of these images have comments only.
            EntryType::XGlobalHeader => {
                read(&mut entry)?;
            }
            kind => {
                let Extension { path, link } = std::mem::take(&mut extension);
                let header_link = entry.header().link_name_bytes().map(Cow::into_owned);
                let whole = Entry {
                    path: path.unwrap_or_else(|| entry.header().path_bytes().into_owned()),
                    link: link.or(header_link),
                    kind,
                    mode: entry.header().mode()?,
                    content: entry,
                };
                each(whole)?;
            }
        }
    }
    Ok(())
}

fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    if entry.size() > MAX_EXTENSION {
        return Err(invalid(&format!(
            "a long name or PAX record of {} bytes; at most {MAX_EXTENSION} are allowed",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A long name: it ends with a NUL.
fn text<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let mut bytes = read(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn pax(records: &[u8], extension: &mut Extension) -> io::Result<()> {
    for record in PaxExtensions::new(records) {
        let record = record?;
        let value = || Some(record.value_bytes().to_vec());
        match record.key_bytes() {
            b"path" => extension.path = value(),
            b"linkpath" => extension.link = value(),
            // Two sizes of one file: programs differ in which they believe.
            b"size" => {
                return Err(invalid(
                    "a PAX record gives a size; larger than 8 GiB is refused",
                ));
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(invalid("a sparse file; pack it as an ordinary one"));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
